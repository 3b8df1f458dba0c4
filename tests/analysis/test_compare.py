"""`attnfd compare`: the cells that an address selects, the pairs that are compared, and the output."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from attnfd.analysis import compare
from attnfd.cli import main
from tests import miniature

CLASSES = ("ground", "square", "star")


def write(folder: str, right: int, ids: tuple[str, ...] = ("a", "b")) -> None:
    """Results of two images with 20 pixels each. `right` is the share of correct pixels; there is no star."""
    matrix = np.zeros((len(ids), 3, 3), dtype=np.uint32)
    matrix[:, [0, 1], [0, 1]] = right
    matrix[:, [0, 1], [1, 0]] = 20 - right
    iou = right / (40 - right)
    metrics = {"miou": iou, "mean_accuracy": right / 20, "pixel_accuracy": right / 20, "fw_iou": iou}
    Path(folder).mkdir(parents=True)
    (Path(folder) / "metrics.json").write_text(
        json.dumps({**metrics, "iou": {"ground": iou, "square": iou, "star": None}})
    )
    np.savez_compressed(f"{folder}/confusion.npz", ids=np.array(ids), matrices=matrix)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((miniature.PROJECT / "params.yaml").read_bytes())
    write("results/shapes/teacher", 19)
    for seed, right in enumerate((12, 13, 14)):
        write(f"results/shapes/resnet18/none/{seed}", right)
    for seed, right in enumerate((16, 17)):
        write(f"results/shapes/resnet18/attnfd/{seed}", right)
    write("ablation/shapes/resnet18/b/0", 15)
    return tmp_path


def names(found: compare.Comparison) -> list[tuple[str, str]]:
    return [(a.cell.name, b.cell.name) for a, b in found.pairs]


@pytest.mark.parametrize(
    ("a", "b", "pairs"),
    [
        (
            "shapes/resnet18/none",
            "results/shapes/resnet18/attnfd/",
            [("resnet18-none-0", "resnet18-attnfd-0"), ("resnet18-none-1", "resnet18-attnfd-1")],
        ),
        ("shapes/resnet18/none/2", "shapes/resnet18/attnfd/0", [("resnet18-none-2", "resnet18-attnfd-0")]),
        ("shapes/resnet18/b", "ablation/shapes/resnet18/b/0", [("resnet18-attnfd-b-0",) * 2]),
        (
            "shapes/resnet18/attnfd",
            "shapes/teacher",
            [("resnet18-attnfd-0", "teacher"), ("resnet18-attnfd-1", "teacher")],
        ),
    ],
)
def test_what_an_address_means(a: str, b: str, pairs: list[tuple[str, str]]) -> None:
    assert names(compare.compare(a, b)) == pairs


def test_the_difference_is_that_of_the_paired_seeds() -> None:
    found = compare.compare("shapes/resnet18/none", "shapes/resnet18/attnfd")
    expected = (16 / 24 + 17 / 23) / 2 - (12 / 28 + 13 / 27) / 2
    assert found.difference.mean == pytest.approx(expected)
    assert (found.difference.seeds, found.difference.images) == (2, 2)
    (ground, *ious), _ = compare.gains(found.pairs)
    assert ground == "ground"
    assert ious == pytest.approx([(12 / 28 + 13 / 27) / 2, (16 / 24 + 17 / 23) / 2])


def test_gains_are_sorted_and_an_absent_class_has_none() -> None:
    def result(**iou: float | None) -> Any:
        return compare.Result(cell=None, metrics={"iou": iou}, evaluation=None)  # type: ignore[arg-type]

    pairs = [(result(sky=0.5, road=0.5, car=None), result(sky=0.4, road=0.8, car=0.5))]
    assert compare.gains(pairs) == [("road", 0.5, 0.8), ("sky", 0.5, 0.4)]


def test_changed_settings() -> None:
    found = compare.compare("shapes/resnet18/b/0", "shapes/resnet18/attnfd/0")
    assert isinstance(found.a.settings, dict)
    assert isinstance(found.b.settings, dict)
    assert compare.changed(found.a.settings, found.b.settings) == [
        ("method.layers", "backbone", "backbone, encoder, decoder")
    ]
    assert compare.changed({"method": {"weight": 0}}, {"method": {"weight": 1, "attention": {"r": 2}}}) == [
        ("method.attention.r", "—", "2"),
        ("method.weight", "0", "1"),
    ]


def shown(found: compare.Comparison, **console: Any) -> str:
    output = io.StringIO()
    compare.show(found, Console(file=output, width=100, highlight=False, **console))
    return output.getvalue()


def test_plain_text_without_a_terminal() -> None:
    text = shown(compare.compare("shapes/resnet18/attnfd/0", "shapes/resnet18/none/0"))
    assert "\x1b" not in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "A shapes/resnet18/attnfd/0 seed 0" in lines
    assert any(line.startswith("B is worse than A by −23.81 mIoU") for line in lines)
    assert "mIoU 66.67 42.86 −23.81 −23.81 … −23.81" in lines
    assert any(line.startswith("square 66.67 42.86 −23.81 █") for line in lines)
    assert "method.weight 10.0 0.0" in lines


def test_colours_in_a_terminal() -> None:
    found = compare.compare("shapes/resnet18/none/0", "shapes/resnet18/attnfd/0")
    assert "\x1b[32mB is better than A" in shown(found, force_terminal=True, color_system="standard")


def test_equal_sides() -> None:
    text = shown(compare.compare("shapes/teacher", "shapes/teacher"))
    assert "no setting differs in prepare, train_teacher, evaluate" in text
    assert "B is identical to A on all" in text
    assert "significant" not in text
    assert "█" not in text


def bars(text: str) -> list[str]:
    """The text to the right of the signed gain of every class."""
    rows = [line for line in text.split(" gain ")[1].splitlines() if "█" in line]
    return [line[max(line.rfind(sign) for sign in "+−") :].partition(" ")[2] for line in rows]


def test_a_loss_draws_its_bar_to_the_other_side() -> None:
    gain, loss = (
        ("shapes/resnet18/none/0", "shapes/resnet18/attnfd/0"),
        (
            "shapes/resnet18/attnfd/0",
            "shapes/resnet18/none/0",
        ),
    )
    gains, losses = (bars(shown(compare.compare(*pair))) for pair in (gain, loss))
    assert gains
    assert losses
    half = compare.BAR // 2
    assert all(len(bar) - len(bar.lstrip()) >= half for bar in gains)  # from the middle to the right
    assert all(len(bar.rstrip()) <= half + 2 for bar in losses)  # up to the middle


def test_a_teacher_and_a_student_differ_in_their_settings() -> None:
    text = shown(compare.compare("shapes/teacher", "shapes/resnet18/attnfd"))
    assert "A is a teacher and B is a student: the two kinds of models" in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "model.backbone resnet101 resnet18" in lines
    assert "method.weight — 10.0" in lines
    assert "no setting differs" not in text


Refused = Callable[[str, str], str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    def call(a: str, b: str) -> str:
        monkeypatch.setattr(sys, "argv", ["attnfd", "compare", a, b])
        with pytest.raises(SystemExit) as stopped:
            main.main()
        assert stopped.value.code == 2
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith("error: ")
        assert output.err.count("\n") == 1
        return output.err

    return call


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("shapes/resnet18/atnfd", ("working tree", "did you mean 'shapes/resnet18/attnfd'?")),
        ("shapes/resnet18/attnfd/7", ("did you mean 'shapes/resnet18/attnfd/1'?",)),
        ("", ("unknown name '.'",)),
        ("shapes/resnet18/none/2", ("found seed 2", "attnfd, seeds 0, 1")),
        ("shapes/teacher@HEAD", ("@HEAD", "git")),
    ],
)
def test_refused_in_a_line(refused: Refused, address: str, words: tuple[str, ...]) -> None:
    message = refused("shapes/resnet18/attnfd", address)
    for word in words:
        assert word in message


def test_other_images_are_refused(refused: Refused) -> None:
    write("results/shapes/resnet18/kd/0", 15, ids=("a", "c"))
    message = refused("shapes/resnet18/none/0", "shapes/resnet18/kd")
    assert "results/shapes/resnet18/kd/0/confusion.npz" in message


def test_an_ambiguous_address_is_refused(refused: Refused) -> None:
    write("ablation/shapes/resnet18/none/0", 15)
    assert "ablation/shapes/resnet18/none" in refused("shapes/teacher", "shapes/resnet18/none")


def test_seeds_count_as_numbers_and_other_folders_do_not_count() -> None:
    write("results/shapes/resnet18/attnfd/10", 18)
    write("results/shapes/resnet18/attnfd/0.old", 3)
    found = compare.compare("./shapes/resnet18/attnfd", "shapes/resnet18/attnfd")
    assert [a.cell.seed for a, _ in found.pairs] == [0, 1, 10]


def test_nothing_is_there_yet(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert "dvc repro" in refused("shapes/teacher", "shapes/teacher")


def test_revisions_and_experiments(project: Path, refused: Refused) -> None:
    def run(*command: str) -> None:
        done = miniature.run(project, *command)
        assert done.returncode == 0, done.stderr

    run("git", "init", "--quiet")
    run("dvc", "init", "--quiet")
    run("dvc", "add", "--quiet", "results", "ablation")
    miniature.commit(project, "first")
    miniature.change(project, {"recipes": {"shapes": {"distill": {"epochs": 7}}}})
    shutil.rmtree("results/shapes/resnet18/none/0")
    write("results/shapes/resnet18/none/0", 20)

    found = compare.compare("shapes/resnet18/none/0@HEAD", "shapes/resnet18/none/0")
    assert found.difference.mean == pytest.approx(1 - 12 / 28)
    assert isinstance(found.a.settings, dict)
    assert isinstance(found.b.settings, dict)
    assert compare.changed(found.a.settings, found.b.settings) == [("distill.epochs", "40", "7")]

    run("dvc", "exp", "save", "--name", "more", "--force")
    shutil.rmtree("results")
    found = compare.compare("shapes/resnet18/none/0@HEAD", "shapes/resnet18/none/0@more")
    assert found.difference.mean == pytest.approx(1 - 12 / 28)

    write("results/shapes/resnet18/none/0", 20)
    (project / "params.yaml").write_text("{run: old}")
    found = compare.compare("shapes/resnet18/none/0@HEAD", "shapes/resnet18/none/0")
    assert "settings not compared: params.yaml: section 'training' is missing" in shown(found)

    assert "'nope'" in refused("shapes/teacher@nope", "shapes/teacher")
    assert "shapes/resnet18/attnfd" in refused("shapes/resnet18/atnfd@HEAD", "shapes/teacher")
    shutil.rmtree(".dvc/cache")
    assert "dvc pull" in refused("shapes/teacher@HEAD", "shapes/teacher")


def test_a_revision_without_a_lock_says_what_to_commit(project: Path, refused: Refused) -> None:
    for command in (("git", "init", "--quiet"), ("dvc", "init", "--quiet")):
        assert miniature.run(project, *command).returncode == 0
    (project / ".gitignore").write_text("/results\n/ablation\n")
    miniature.commit(project, "a fresh clone, before the first commit of its lock")
    said = refused("shapes/resnet18/none@HEAD", "shapes/resnet18/none")
    assert "results at HEAD: found none; it has no dvc.lock" in said
    assert "git add dvc.lock && git commit" in said


def test_scores_that_only_one_revision_knows_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    file = Path("results/shapes/resnet18/attnfd/0/metrics.json")
    newer = {**json.loads(file.read_text()), "miou_predicted": 0.5, "of_tomorrow": 0.5}
    file.write_text(json.dumps({key: value for key, value in newer.items() if key != "pixel_accuracy"}))
    found = compare.compare("shapes/resnet18/none/0", "shapes/resnet18/attnfd/0")
    compare.show(found, Console())
    shown = capsys.readouterr().out
    assert "mIoU" in shown
    assert "mean class accuracy" in shown
    assert "pixel accuracy" not in shown
    assert "predicted classes" not in shown
