"""Trainings of a command: each has a run, and a failure concerns only its own run."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from attnfd.config.params import Params, load_params
from attnfd.config.task import Task
from attnfd.errors import PartlyError, UserError
from attnfd.models import checkpoint
from attnfd.paths import Cell
from attnfd.runtime import processes
from attnfd.tracking import inputs, store
from attnfd.tracking.trainings import train
from attnfd.training.checkpoints import Checkpoints
from tests.tracking.test_runs import write_card, write_outs

mlflow = store.library()
PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
SEEDS = itertools.count(1000)


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """Three cells with a seed that no other test uses; this does not test their inputs."""

    def checkpoints(params: Params, cell: Cell, start: str | None = None) -> Checkpoints:
        kept = Checkpoints(Path("checkpoints", cell.name))
        kept.save({"epoch": 1}, 1)
        return kept

    monkeypatch.setattr(inputs, "checkpoints", checkpoints)
    write_card("shapes")
    seed = next(SEEDS)
    return [Cell.distilled("shapes", "resnet18", method, seed) for method in ("none", "kd", "attnfd")]


def learn(tasks: Sequence[Task]) -> list[str | UserError]:
    """A stage in which KD fails."""
    found: list[str | UserError] = []
    for number, task in enumerate(tasks):
        cell = task.cell
        task.log.metrics({"epoch/loss": number}, step=1)
        if cell.method == "kd":
            found.append(UserError("epoch 2, step 1: kd is nan"))
        else:
            write_outs(cell)
            found.append(checkpoint.fingerprint(cell.model))
    return found


def tasks_of(cells: Sequence[Cell]) -> list[Task]:
    return [Task(PARAMS, cell) for cell in cells]


def status(cell: Cell) -> tuple[str, bool, float]:
    """The status of a cell's run, whether it names a model, and its loss."""
    (run,) = mlflow.search_runs(
        search_all_experiments=True,
        filter_string=f"tags.seed = '{cell.seed}' and tags.method = '{cell.method}'",
        output_format="list",
    )
    return run.info.status, "attnfd.model" in run.data.tags, run.data.metrics["epoch/loss"]


def test_the_run_has_the_counts_of_the_data_from_its_start(cells: list[Cell]) -> None:
    def stop(tasks: Sequence[Task]) -> list[str | UserError]:
        raise UserError("stopped")

    with pytest.raises(UserError, match="stopped"):
        train(tasks_of(cells[:1]), stop)
    (run,) = mlflow.search_runs(
        search_all_experiments=True, filter_string=f"tags.seed = '{cells[0].seed}'", output_format="list"
    )
    assert run.data.metrics["data/train/images"] == 3
    assert run.data.metrics["data/val/pixels/sky"] == 30


def test_each_has_a_run_and_one_that_fails_fails_alone(cells: list[Cell]) -> None:
    with pytest.raises(PartlyError) as raised:
        train(tasks_of(cells), learn)
    name = f"resnet18-kd-{cells[0].seed}"
    wanted = f"1 of 3 failed, the others are complete: {name}: epoch 2, step 1: kd is nan"
    assert str(raised.value) == wanted
    assert raised.value.status == 3
    assert [status(cell) for cell in cells] == [
        ("FINISHED", True, 0.0),
        ("FAILED", False, 1.0),
        ("FINISHED", True, 2.0),
    ]
    # A failed training keeps its checkpoints to resume; a complete one does not.
    assert [Path("checkpoints", cell.name).exists() for cell in cells] == [False, True, False]


def test_a_failure_alone_is_reported_as_it_is(cells: list[Cell]) -> None:
    with pytest.raises(UserError, match=r"^epoch 2, step 1: kd is nan$") as raised:
        train(tasks_of(cells[1:2]), learn)
    assert raised.value.status == 2
    assert status(cells[1]) == ("FAILED", False, 0.0)


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_run_has_the_precision_that_auto_means(
    native: bool, expected: str, cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTNFD_DEVICE", "cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": native})
    train(tasks_of(cells[:1]), learn)
    (run,) = mlflow.search_runs(
        search_all_experiments=True, filter_string=f"tags.seed = '{cells[0].seed}'", output_format="list"
    )
    assert run.data.params["distill.precision"] == expected


def test_what_breaks_the_stage_ends_all_runs(cells: list[Cell]) -> None:
    def broken(tasks: Sequence[Task]) -> list[str]:
        learn(tasks)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tasks_of(cells), broken)
    assert [status(cell)[:2] for cell in cells] == [("KILLED", False)] * 3
    assert all(Path("checkpoints", cell.name).exists() for cell in cells)


def test_a_cell_twice_or_several_processes_are_refused(
    cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="found one twice; allowed: each once"):
        train(tasks_of([cells[0], cells[1], cells[0]]), learn)
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(UserError, match="torchrun: found 3 trainings in one command; allowed: one"):
        train(tasks_of(cells), learn)
