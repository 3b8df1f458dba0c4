"""The report stage, on results that are known."""

import json
import re
from base64 import b64decode
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from attnfd import paths
from attnfd.data.prepared import Prepared
from attnfd.errors import UserError
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
    names = ("comparison", "ablation", "networks", "data")
    assert {name for name in contents() if not name.startswith("figures/")} == {
        "report.md", "report.html", "plots/curves.csv", "plots/per_class.csv", "plots/confusion.csv",
        *(f"tables/{name}.{kind}" for name in names for kind in ("csv", "tex")),
    }  # fmt: skip
    text = (FOLDER / "report.md").read_text()
    assert "resnet18: attnfd is better than none (no distillation) by +10.00 mIoU" in text
    assert "mobilenetv2: attnfd is not distinguishable from none (no distillation): +0.00 mIoU" in text
    assert "4 validation images of 3 classes" in text
    assert "- **Warning**: No mask has a pixel of class star." in text
    assert "| square | 0.001 |" in text
    pictures = re.findall(r"\]\((.*?)\)", text)
    figures = ["comparison", "sizes", "ablation", "curves", "per_class", "gains", "confusion"]
    for student in ("mobilenetv2", "resnet18"):
        figures += [f"overlays_{student}", f"attention_{student}"]
    assert sorted(pictures) == sorted(f"figures/{name}.png" for name in figures)
    assert {name for name in contents() if name.startswith("figures/")} == set(pictures)
    for picture in pictures:
        assert Image.open(FOLDER / picture).format == "PNG"
    assert pd.read_csv(FOLDER / "tables/comparison.csv").loc[0, "student"] == "teacher"


def test_the_page_needs_no_other_file():
    synthetic.dataset()
    synthetic.results(synthetic.params(), synthetic.ONE_SEED)
    report(tasks.of(synthetic.params(), "tiny"))
    text = (FOLDER / "report.html").read_text()
    embedded = [b64decode(found) for found in re.findall(r'src="data:image/png;base64,([^"]*)"', text)]
    assert sorted(embedded) == sorted(file.read_bytes() for file in (FOLDER / "figures").iterdir())
    assert text.count("src=") == len(embedded)


def test_the_metrics_are_one_number_per_student_and_method():
    synthetic.dataset()
    synthetic.results(synthetic.params(), synthetic.ONE_SEED)
    report(tasks.of(synthetic.params(), "tiny"))
    found = json.loads(paths.summary("tiny").read_text())
    assert list(found) == ["teacher", "resnet18"]
    assert found["resnet18"] == {method: {"miou": miou} for method, miou in (
        ("none", 0.6), ("kd", 0.55), ("attnfd", 0.7),
    )}  # fmt: skip


def test_three_seeds():
    settings = synthetic.params(seeds=[0, 1, 2])
    synthetic.dataset()
    synthetic.results(settings, synthetic.THREE_SEEDS)
    report(tasks.of(settings, "tiny"))
    assert "| resnet18 | attnfd | **72.00 ± 2.65** | +10.00 |" in (FOLDER / "report.md").read_text()
    assert "& \\textbf{72.00 $\\pm$ 2.65} & +10.00 &" in (FOLDER / "tables/comparison.tex").read_text()
    table = pd.read_csv(FOLDER / "tables/comparison.csv").set_index("method")
    assert table.loc["attnfd", "miou_std"] == pytest.approx(np.std([0.70, 0.71, 0.75], ddof=1), abs=1e-12)


def test_the_paper_is_found_by_the_reader_of_the_card():
    prepared = synthetic.dataset()
    voc = prepared.card.model_copy(update={"reader": "voc"})
    Prepared(voc, prepared.index, prepared.root).write(prepared.root)
    synthetic.results(synthetic.params(), synthetic.ONE_SEED)
    report(tasks.of(synthetic.params(), "tiny"))
    table = pd.read_csv(FOLDER / "tables/comparison.csv").set_index("method")
    assert table.loc["attnfd", "paper_miou"] == pytest.approx(0.7309)
    layers = pd.read_csv(FOLDER / "tables/ablation.csv").set_index("variant")
    assert layers.loc["ed", "paper_accuracy"] == pytest.approx(0.8268)


def test_equal_results_give_equal_bytes(monkeypatch):
    settings = synthetic.params()
    synthetic.dataset()
    synthetic.results(settings, synthetic.ONE_SEED)
    report(tasks.of(settings, "tiny"))
    first = contents()
    monkeypatch.setenv("MPLBACKEND", "svg")
    with style.matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        report(tasks.of(settings, "tiny"))
    assert contents() == first
    assert str(Path.cwd()).encode() not in b"".join(first.values())


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
    assert Image.open(FOLDER / "figures/settings.png").format == "PNG"
    assert "](figures/settings.png)" in (FOLDER / "report.md").read_text()


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
def test_damaged_results_are_told_in_a_line_and_nothing_is_written(file, harm, reason):
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
    sizes = {file.stem: np.prod(Image.open(file).size) for file in (FOLDER / "figures").iterdir()}
    assert max(sizes.values()) < 25e6
    assert {"confusion", "per_class", "gains", "overlays_resnet18"} <= sizes.keys()
    assert set(pd.read_csv(FOLDER / "plots/per_class.csv")["class"]) == set(names)
