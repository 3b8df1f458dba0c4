"""The report stage, with known results."""

import json
import re
import subprocess
import time
from base64 import b64decode
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from attnfd import paths
from attnfd.data.prepared import Prepared, open_prepared
from attnfd.distillers.attnfd import AttnFD
from attnfd.errors import UserError
from attnfd.report import paper, provenance, vector
from attnfd.report.names import Names
from attnfd.results import style
from stages.report import report
from tests import tasks
from tests.report import synthetic

FOLDER = Path("reports/tiny")


def contents():
    files = sorted(path for path in FOLDER.rglob("*") if path.is_file())
    return {str(file.relative_to(FOLDER)): file.read_bytes() for file in files}


def test_the_folder():
    settings = synthetic.params(students=["mobilenetv2", "resnet18"])
    more = {
        name.replace("resnet18", "mobilenetv2"): 0.5
        for name in ("resnet18-none-0", "resnet18-kd-0", "resnet18-attnfd-0")
    }
    synthetic.dataset()
    synthetic.results(settings, synthetic.ONE_SEED | more)
    report(tasks.of(settings, "tiny"))
    names = ("comparison", "ablation", "networks", "data", "recipe")
    assert {name for name in contents() if not name.startswith(("figures/", "pdf/"))} == {
        "report.md", "report.html", "tables/comparison_full.tex",
        "plots/curves.csv", "plots/per_class.csv", "plots/confusion.csv",
        *(f"tables/{name}.{kind}" for name in names for kind in ("csv", "tex")),
    }  # fmt: skip
    text = (FOLDER / "report.md").read_text()
    assert "ResNet-18: AttnFD differs from no distillation by +10.00 mIoU" in text
    assert "MobileNetV2: AttnFD differs from no distillation by +0.00 mIoU" in text
    assert "](report.html)" in text
    assert "<ins>" not in text
    assert "tiny: 3 classes; 4 validation images" in text
    assert "- **Warning**: No mask has a pixel of class star." in text
    assert "| square | 0.001 |" in text
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    figures = ["comparison", "sizes", "ablation", "curves", "per_class", "gains", "confusion"]
    for student in ("mobilenetv2", "resnet18"):
        figures += [f"predictions_{student}", f"attention_{student}"]
    assert sorted(pictures) == sorted(f"figures/{name}.svg" for name in figures)
    assert {name for name in contents() if name.startswith("figures/")} == set(pictures)
    for picture in pictures:
        assert ElementTree.parse(FOLDER / picture).getroot().tag.endswith("svg")
        assert (FOLDER / "pdf" / Path(picture).with_suffix(".pdf").name).read_bytes().startswith(b"%PDF")
    assert pd.read_csv(FOLDER / "tables/comparison.csv").loc[0, "student"] == "teacher"


def test_the_page_needs_no_other_file():
    synthetic.dataset()
    synthetic.results(synthetic.params(), synthetic.ONE_SEED)
    report(tasks.of(synthetic.params(), "tiny"))
    text = (FOLDER / "report.html").read_text()
    drawn = re.findall(r'<svg [^>]*aria-label="([^"]*)"', text)
    assert len(drawn) == len(list((FOLDER / "figures").iterdir()))
    assert drawn[0] == "mIoU of every method, the best first"
    offered = {
        name: b64decode(content)
        for content, name in re.findall(r'href="data:[^"]*?;base64,([^"]*)" download="([^"]*)"', text)
    }
    found = {file.name: file.read_bytes() for part in ("tables", "pdf") for file in (FOLDER / part).iterdir()}
    assert offered == found
    assert "src=" not in text
    addresses = re.findall(r'href="([^"]*)"', text)
    assert all(address.startswith(("#", "data:")) for address in addresses)


def test_a_page_follows_the_mode_of_the_browser():
    synthetic.dataset()
    synthetic.results(synthetic.params(), synthetic.ONE_SEED)
    report(tasks.of(synthetic.params(), "tiny"))
    page, file = (FOLDER / "report.html").read_text(), (FOLDER / "figures/comparison.svg").read_text()
    assert style.INK in file
    drawn = re.sub(r'base64,[^"]*', "", "".join(re.findall("<svg.*?</svg>", page, re.DOTALL)))
    assert not re.search("|".join(vector.THEMED), drawn)
    assert set(re.findall(r"var\((--[a-z]+)\)", drawn)) <= set(re.findall(r"(--[a-z]+):", page))
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))  # the parts of different figures have different ids


def test_the_metrics_are_one_number_per_student_and_method():
    synthetic.dataset()
    synthetic.results(synthetic.params(), synthetic.ONE_SEED)
    report(tasks.of(synthetic.params(), "tiny"))
    found = json.loads(paths.summary("tiny").read_text())
    assert list(found) == ["teacher", "resnet18"]
    assert found["resnet18"] == {method: {"miou": pytest.approx(miou)} for method, miou in (
        ("none", 60), ("kd", 55), ("attnfd", 70),
    )}  # fmt: skip


def test_three_seeds():
    settings = synthetic.params(seeds=[0, 1, 2])
    synthetic.dataset()
    synthetic.results(settings, synthetic.THREE_SEEDS)
    report(tasks.of(settings, "tiny"))
    assert "| ResNet-18 | AttnFD | **72.00 ± 2.65** | +10.00 |" in (FOLDER / "report.md").read_text()
    assert "& \\textbf{72.00 $\\pm$ 2.65} & +10.00 &" in (FOLDER / "tables/comparison.tex").read_text()
    table = pd.read_csv(FOLDER / "tables/comparison.csv").set_index("method")
    assert table.loc["attnfd", "miou_std"] == pytest.approx(np.std([0.70, 0.71, 0.75], ddof=1), abs=1e-12)


def test_the_paper_is_found_by_the_reader_of_the_card(monkeypatch):
    prepared = synthetic.dataset()
    monkeypatch.setitem(paper.CLASSES, "voc", len(prepared.card.classes))
    voc = prepared.card.model_copy(update={"reader": "voc"})
    Prepared(voc, prepared.index, prepared.root).write(prepared.root)
    synthetic.results(synthetic.params(), synthetic.ONE_SEED)
    report(tasks.of(synthetic.params(), "tiny"))
    table = pd.read_csv(FOLDER / "tables/comparison.csv").set_index("method")
    assert table.loc["attnfd", "paper_miou"] == pytest.approx(0.7309)
    layers = pd.read_csv(FOLDER / "tables/ablation.csv").set_index("variant")
    assert layers.loc["ed", "paper_accuracy"] == pytest.approx(0.8268)
    monkeypatch.setitem(paper.CLASSES, "voc", 21)
    report(tasks.of(synthetic.params(), "tiny"))
    assert "paper_miou" not in pd.read_csv(FOLDER / "tables/comparison.csv")
    assert "CIRKD" not in (FOLDER / "report.md").read_text()


def test_equal_results_give_equal_bytes(monkeypatch):
    settings = synthetic.params()
    synthetic.dataset()
    synthetic.results(settings, synthetic.ONE_SEED)
    report(tasks.of(settings, "tiny"))
    first = contents()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 1e6)  # changes the dates of the files
    monkeypatch.setenv("MPLBACKEND", "svg")
    with style.matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        report(tasks.of(settings, "tiny"))
    assert contents() == first
    assert str(Path.cwd()).encode() not in b"".join(first.values())


def git(*arguments):
    author = ("-c", "user.name=tests", "-c", "user.email=tests@localhost")
    return subprocess.run(["git", *author, *arguments], check=True, capture_output=True, text=True).stdout


def test_the_commit_is_the_last_of_code_and_params():
    assert provenance.commit() == "not in a Git repository"
    git("init", "--quiet")
    Path("params.yaml").write_text("a: 1\n")
    git("add", ".")
    git("commit", "--quiet", "--message", "params")
    made = git("rev-parse", "HEAD").strip()
    Path("dvc.lock").write_text("later\n")
    git("add", ".")
    git("commit", "--quiet", "--message", "lock")
    assert provenance.commit() == f"commit {made}"
    Path("params.yaml").write_text("a: 2\n")
    assert provenance.commit() == f"commit {made}, with changes that are not committed"


def test_the_page_says_how_it_was_made():
    settings = synthetic.params()
    synthetic.dataset()
    synthetic.results(settings, synthetic.ONE_SEED)
    settings.method = lambda method, dataset, variant=None: AttnFD.Config(weight=10, kd_weight=0)
    settings.run = settings.run.model_copy(update={"methods": ("attnfd",)})
    made = " ".join(provenance.facts(settings, open_prepared(settings, "tiny"), Names.of(settings, "tiny")))
    assert "Command: dvc repro report@tiny" in made
    assert "tiny, read by attnfd/readers/shapes.py; 4 images in val." in made
    assert re.search("SHA-256 [0-9a-f]{64} of the index", made)
    assert "differ from the defaults: AttnFD weight = 10 (default 1)." in made
    table = provenance.recipe(settings, "tiny").set_index("setting")
    assert tuple(table.loc["epochs"]) == ("120", "60", "120")
    assert tuple(table.loc["crop"]) == ("64, 64", "64, 64", "513, 513")
    assert tuple(table.loc["backbone"]) == ("resnet101", "", "resnet101")


def test_only_none_is_enough():
    settings = synthetic.params(methods=["none"])
    kept = {
        name: miou
        for name, miou in synthetic.ONE_SEED.items()
        if name not in ("resnet18-kd-0", "resnet18-attnfd-0")
    }
    synthetic.dataset()
    synthetic.results(settings, kept)
    report(tasks.of(settings, "tiny"))
    assert list(pd.read_csv(FOLDER / "tables/ablation.csv")["variant"]) == ["none", "b", "ed"]
    assert {name for name in contents() if "gains" in name or "attention" in name} == set()


def test_ablations_of_one_kind_are_enough():
    axes = {"variants": ["plain"], "students": ["mobilenetv2"]}
    settings = synthetic.params(methods=["kd"], ablate=axes)
    synthetic.dataset()
    synthetic.results(settings, {"teacher": 0.8, "resnet18-kd-0": 0.5, "mobilenetv2-attnfd-plain-0": 0.6})
    report(tasks.of(settings, "tiny"))
    assert list(pd.read_csv(FOLDER / "tables/settings.csv")["variant"]) == ["plain"]
    assert {name for name in contents() if "ablation" in name} == set()
    assert (FOLDER / "pdf/settings.pdf").exists()
    assert "](figures/settings.svg)" in (FOLDER / "report.md").read_text()


def test_a_missing_cell_writes_nothing():
    settings = synthetic.params()
    synthetic.dataset()
    cells = synthetic.results(settings, synthetic.ONE_SEED)
    (cells[0].results / "predictions.npz").unlink()
    with pytest.raises(UserError, match=r"results/tiny/teacher/predictions.npz: not found: teacher"):
        report(tasks.of(settings, "tiny"))
    assert not FOLDER.exists()


RESULTS = Path("results/tiny/resnet18/kd/0")
TAUGHT = Path("results/tiny/resnet18/attnfd/0")
TRAINED = Path("models/tiny/resnet18/kd/0")


def cut(file):
    file.write_bytes(file.read_bytes()[:-30])


def without(key):
    def harm(file):
        content = json.loads(file.read_text())
        del content[key]
        file.write_text(json.dumps(content))

    return harm


def holding(content):
    return lambda file: file.write_bytes(content)


def arrays(**stored):
    return lambda file: np.savez(file, **stored)


@pytest.mark.parametrize(
    ("file", "harm", "reason"),
    [
        (RESULTS / "metrics.json", cut, ""),
        (RESULTS / "metrics.json", holding(b""), "Expecting value"),
        (RESULTS / "metrics.json", holding(b"\xff\xfe"), ""),
        (RESULTS / "metrics.json", holding(b"[]"), "without miou"),
        (RESULTS / "metrics.json", without("parameters"), "without parameters"),
        (RESULTS / "per_class.csv", holding(b""), "No columns"),
        (RESULTS / "per_class.csv", holding(b"class,iou\nground,0.5\n"), "without accuracy, pixels"),
        (RESULTS / "per_class.csv", holding(b"class,iou,accuracy,pixels\nsea,x,1,1\n"), "could not"),
        (RESULTS / "confusion.npz", cut, ""),
        (RESULTS / "confusion.npz", holding(b""), ""),
        (RESULTS / "confusion.npz", holding(b"cposix\nsystem\n(S'touch trapped'\ntR."), ""),
        (RESULTS / "confusion.npz", arrays(ids=np.array(["a"])), "without matrices"),
        (RESULTS / "confusion.npz", arrays(ids=np.array(["a"]), matrices=np.zeros((2, 3, 3))), ""),
        (RESULTS / "confusion.npz", arrays(ids=np.array(["a"]), matrices=np.array([print])), ""),
        (TAUGHT / "predictions.npz", cut, ""),
        (TAUGHT / "predictions.npz", arrays(other=np.zeros((6, 8), np.uint8)), "without "),
        (TRAINED / "history.csv", holding(b"\0\0\0\0"), ""),
        (TRAINED / "history.csv", holding(b"epoch,loss\n1,2\n"), "without ce, miou"),
    ],
)  # fmt: skip
def test_damaged_results_are_named_in_a_line_and_nothing_is_written(file, harm, reason):
    synthetic.dataset()
    synthetic.results(synthetic.params(), synthetic.ONE_SEED)
    harm(file)
    with pytest.raises(UserError) as refused:
        report(tasks.of(synthetic.params(), "tiny"))
    message = str(refused.value)
    assert message.startswith(f"{file}: damaged ({reason}")
    assert message.endswith("restore it: dvc checkout --force")
    assert "\n" not in message
    assert not FOLDER.exists()
    assert not Path("trapped").exists()


def test_as_many_classes_as_there_can_be(monkeypatch):
    names = tuple(f"class {number}, of many" for number in range(254))
    monkeypatch.setattr(synthetic, "CLASSES", names)
    monkeypatch.setattr(synthetic, "PALETTE", tuple((number, 0, 99) for number in range(254)))
    synthetic.dataset()
    rng = np.random.default_rng(0)
    for cell in synthetic.results(synthetic.params(), synthetic.ONE_SEED):
        scores = pd.DataFrame({"class": names, "iou": rng.random(254), "accuracy": 0.5, "pixels": 9})
        scores.to_csv(cell.results / paths.PER_CLASS, index=False)
        matrices = rng.integers(0, 9, (4, 254, 254), dtype=np.uint32)
        ids = [f"image{number}" for number in range(4)]
        np.savez_compressed(cell.results / paths.CONFUSION, ids=ids, matrices=matrices)
        maps = {id: rng.integers(0, 254, synthetic.SIZE, dtype=np.uint8) for id in ("image1", "image3")}
        np.savez_compressed(cell.results / paths.PREDICTIONS, **maps)
    report(tasks.of(synthetic.params(), "tiny"))
    sizes = {file.stem: file.stat().st_size for file in (FOLDER / "figures").iterdir()}
    assert max(sizes.values()) < 2e6
    assert {"confusion", "per_class", "gains", "predictions_resnet18"} <= sizes.keys()
    assert set(pd.read_csv(FOLDER / "plots/per_class.csv")["class"]) == set(names)
