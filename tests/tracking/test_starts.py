"""Students start from models of the store."""

from pathlib import Path

import numpy as np
import pytest
import torch

from attnfd.cli.preflight import _started
from attnfd.config.params import Params, load_params
from attnfd.config.schema import Student
from attnfd.config.task import Task
from attnfd.errors import UserError
from attnfd.models import checkpoint
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.paths import Cell
from attnfd.students.student import load_start
from attnfd.tracking import inputs, runs, starts, store, trainings
from attnfd.training.checkpoints import Checkpoints
from tests import miniature
from tests.tracking.conftest import FRESH
from tests.tracking.test_runs import cell as cell
from tests.tracking.test_runs import write_outs

mlflow = store.library()


def student(weights: str | None) -> Student:
    return Student(backbone="mobilenetv2", dropout=(0.5, 0.1), weights=weights)


@pytest.fixture
def logged(cell: Cell) -> tuple[str, str]:
    """A model in the store, by its run and as a registered model; its files are deleted from the disk."""
    torch.manual_seed(0)
    checkpoint.save(cell.model, DeepLabV3Plus("mobilenetv2", classes=3).eval(), {"classes": ["a", "b", "c"]})
    weights = checkpoint.fingerprint(cell.model)
    with runs.open_run(cell, {}, FRESH) as run:
        run.trained(weights)
        run.model(np.zeros((1, 20, 20, 3), dtype=np.uint8))
    version = mlflow.register_model(f"runs:/{run.id}/{cell.name}", f"start-{cell.seed}").version
    return f"runs:/{run.id}/{cell.name}", f"models:/start-{cell.seed}/{version}"


def test_a_run_and_a_registered_model_give_the_weights_that_were_logged(
    logged: tuple[str, str], cell: Cell
) -> None:
    for name in logged:
        with starts.fetched(student(name)) as folder:
            assert folder is not None
            model, card = load_start(student(name), "students.new", folder)
            assert starts.fingerprint(student(name), folder) == checkpoint.fingerprint(cell.model)
        assert card["classes"] == ["a", "b", "c"]
        kept = checkpoint.load(cell.model)[0].state_dict()
        assert all(torch.equal(value, kept[key]) for key, value in model.state_dict().items())
        assert not folder.exists()


def test_nothing_is_fetched_for_a_folder_or_for_new_weights(cell: Cell) -> None:
    for weights in (None, str(cell.model)):
        with starts.fetched(student(weights)) as folder:
            assert folder is None
    assert starts.fingerprint(student(None), None) is None
    assert starts.fingerprint(student("gone"), None) is None
    assert starts.fingerprint(student(str(cell.model)), None) == checkpoint.fingerprint(cell.model)


@pytest.mark.parametrize("name", ["models:/nothing/1", f"runs:/{'0' * 32}/nothing"])
def test_a_model_that_the_store_has_not_is_named(name: str) -> None:
    with pytest.raises(UserError, match=name), starts.fetched(student(name)):
        pass


def params_with(weights: str) -> Params:
    Path("params.yaml").write_bytes((miniature.PROJECT / "params.yaml").read_bytes())
    section = {"backbone": "mobilenetv2", "dropout": [0.5, 0.1], "weights": weights}
    miniature.change(Path.cwd(), {"students": {"mobilenetv2": section}})
    return load_params()


def test_the_check_before_a_run_reads_it(logged: tuple[str, str]) -> None:
    run, registered = logged
    assert _started(params_with(registered), "mobilenetv2") == f"start from {registered}"
    params = params_with(run)
    raw = params.raw["students"]["mobilenetv2"]
    raw["backbone"] = "resnet18"
    with pytest.raises(UserError, match=r"has the backbone mobilenetv2; allowed: resnet18"):
        _started(params, "mobilenetv2")


def test_a_training_is_given_the_model_and_its_checkpoints_belong_to_it(
    logged: tuple[str, str], cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def checkpoints(params: Params, cell: Cell, start: str | None = None) -> Checkpoints:
        seen.append(start)
        return Checkpoints(Path("checkpoints", cell.name))

    def learn(tasks: list[Task]) -> list[str]:
        (task,) = tasks
        assert task.start is not None
        assert checkpoint.fingerprint(task.start) == checkpoint.fingerprint(cell.model)
        write_outs(task.cell)
        return [checkpoint.fingerprint(task.cell.model)]

    monkeypatch.setattr(inputs, "checkpoints", checkpoints)
    new = Cell.distilled("toy", "mobilenetv2", "kd", 7)
    params = params_with(logged[0])
    params.raw["recipes"]["toy"] = params.raw["recipes"]["shapes"]
    trainings.train([Task(params, new)], learn)  # type: ignore[arg-type]
    assert seen == [checkpoint.fingerprint(cell.model)]
