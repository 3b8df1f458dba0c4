"""`attnfd plan --equal-time`: the epochs that fit into the same time."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from attnfd.bench import equal_time, timing
from attnfd.bench.equal_time import Budget
from attnfd.cli.tools import plan
from attnfd.config.params import load_params
from attnfd.errors import UserError
from attnfd.paths import Cell
from tests import miniature


def test_each_gets_what_fits_into_the_time() -> None:
    seconds = {"none": 0.1, "kd": 0.15, "attnfd": 0.3}
    assert equal_time.share(seconds, dict.fromkeys(seconds, 60)) == [
        Budget("none", 0.1, 60, 180, 60),
        Budget("kd", 0.15, 60, 120, 40),
        Budget("attnfd", 0.3, 60, 60, 20),
    ]


def test_the_longest_is_the_one_that_takes_most_time_in_its_own_epochs() -> None:
    found = equal_time.share({"none": 0.1, "kd": 0.2}, {"none": 90, "kd": 30})
    assert [(one.as_the_longest, one.as_none) for one in found] == [(90, 90), (45, 45)]
    (_, slow) = equal_time.share({"none": 0.1, "kd": 10}, {"none": 1, "kd": 1})
    assert slow.as_none == 1


def test_it_is_measured_for_the_methods_that_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_bytes((miniature.PROJECT / "params.yaml").read_bytes())
    run = {**miniature.RUN, "methods": ["kd", "attnfd"]}
    miniature.change(tmp_path, {"run": run, "recipes": {"shapes": miniature.SHAPES}})
    miniature.change(tmp_path, {"methods": {"kd": {"on": {"shapes": {"epochs": 5}}}}})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTNFD_DEVICE", "cpu")
    monkeypatch.setattr(timing, "WARM_UP", 1)
    monkeypatch.setattr(equal_time, "ROUNDS", 1)
    with pytest.raises(
        UserError, match=r"data/shapes/card\.json: not found; prepare the dataset: dvc repro prepare@shapes"
    ):
        equal_time.budgets(load_params(), "shapes")
    done = miniature.run(tmp_path, "python", "-m", "attnfd", "prepare", "--dataset", "shapes")
    assert done.returncode == 0, done.stderr
    found = equal_time.budgets(load_params(), "shapes")
    (student,) = miniature.RUN["students"]
    assert [(one.method, one.epochs) for one in found[student]] == [("none", 2), ("kd", 5), ("attnfd", 2)]
    assert all(one.seconds_per_step > 0 for one in found[student])
    console = Console(file=io.StringIO(), width=120)
    equal_time.show("shapes", found, console)
    assert "methods.<method>.on.shapes.epochs" in console.file.getvalue()
    with pytest.raises(UserError, match="unknown name 'shape'"):
        equal_time.budgets(load_params(), "shape")


def test_written_students_train_in_the_longest_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_bytes((miniature.PROJECT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    before = load_params()
    seconds = {"none": 0.1, "kd": 0.15, "attnfd": 0.3}
    found = {"resnet18": equal_time.share(seconds, dict.fromkeys(seconds, 60))}
    console = Console(file=io.StringIO(), width=200)
    equal_time.write("shapes", found, console)
    text = console.file.getvalue()
    assert "add these to run.students: resnet18_equal_time" in text
    params = load_params()
    student = params.student("resnet18_equal_time")
    assert student.epochs == {"shapes": {"none": 180, "kd": 120, "attnfd": 60}}
    assert student.model_copy(update={"epochs": {}}) == before.student("resnet18")
    assert params.report.step_ms["shapes"] == {
        name: {"none": 100, "kd": 150, "attnfd": 300} for name in ("resnet18", "resnet18_equal_time")
    }
    assert params.run == before.run

    def epochs(name: str, method: str, dataset: str = "shapes") -> int:
        distill = params.resolve(Cell.distilled(dataset, name, method, seed=0)).distill
        assert distill is not None
        return distill.epochs

    usual = before.distill("shapes").epochs
    assert [epochs("resnet18_equal_time", method) for method in ("none", "kd", "cwd")] == [180, 120, usual]
    assert epochs("resnet18", "none") == usual
    assert epochs("resnet18_equal_time", "none", "voc") == before.distill("voc").epochs
    equal_time.write("camvid_cpu", found, console)  # The epochs of other datasets do not change.
    assert set(load_params().student("resnet18_equal_time").epochs) == {"shapes", "camvid_cpu"}


def test_the_weights_do_not_depend_on_other_epochs_of_a_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An MLflow run and a checkpoint's key contain only the epochs of their own cell."""
    (tmp_path / "params.yaml").write_bytes((miniature.PROJECT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    cell = Cell.distilled("shapes", "resnet18", "kd", seed=0)
    before = load_params().resolve(cell).of_the_model()
    miniature.change(tmp_path, {"students": {"resnet18": {"epochs": {"shapes": {"none": 7}}}}})
    assert load_params().resolve(cell).of_the_model() == before
    miniature.change(tmp_path, {"students": {"resnet18": {"epochs": {"shapes": {"kd": 7}}}}})
    assert load_params().resolve(cell).of_the_model()["distill"]["epochs"] == 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"students": {"resnet18": {"epochs": {"shape": {"kd": 7}}}}},
            r"students.resnet18.epochs: .*'shape'",
        ),
        (
            {"students": {"resnet18": {"epochs": {"shapes": {"k": 7}}}}},
            r"students.resnet18.epochs.shapes: .*'k'",
        ),
        ({"students": {"resnet18": {"epochs": {"shapes": {"kd": 0}}}}}, r"students.resnet18.epochs"),
        ({"report": {"step_ms": {"shapes": {"resnet": {"kd": 1}}}}}, r"report.step_ms.shapes: .*'resnet'"),
        (
            {"report": {"step_ms": {"shapes": {"resnet18": {"k": 1}}}}},
            r"report.step_ms.shapes.resnet18: .*'k'",
        ),
        ({"report": {"step_ms": {"shapes": {"resnet18": {"kd": 0}}}}}, r"report.step_ms"),
    ],
)
def test_names_and_numbers_are_checked(
    change: dict, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_bytes((miniature.PROJECT / "params.yaml").read_bytes())
    miniature.change(tmp_path, change)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        load_params()


@pytest.mark.parametrize("given", [{}, {"equal_time": "shapes", "changes": ["methods.kd.weight=2"]}])
def test_only_what_was_measured_is_written(given: dict) -> None:
    with pytest.raises(
        UserError, match=r"--write: found .*; allowed: attnfd plan --equal-time <dataset> --write"
    ):
        plan(write=True, **given)
