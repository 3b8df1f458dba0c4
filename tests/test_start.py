"""A student that starts from a whole model: the weights that it takes, its card, and the refusals."""

from pathlib import Path

import pytest
import torch

from attnfd import paths
from attnfd.cli.preflight import _started
from attnfd.config.params import Params, load_params
from attnfd.config.task import Task
from attnfd.errors import UserError
from attnfd.models import checkpoint
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.paths import Cell
from attnfd.training.checkpoints import Checkpoints
from stages import distill as stage
from stages.freeze import freeze
from tests import miniature, tasks
from tests.test_stages import params as params

CELL = Cell.distilled("shapes", "mobilenetv2", "none", 0)


def model_of(folder: Path, classes: tuple[str, ...], backbone: str = "mobilenetv2") -> DeepLabV3Plus:
    torch.manual_seed(5)
    model = DeepLabV3Plus(backbone, len(classes))
    checkpoint.save(folder, model, {"classes": list(classes), "val_miou": 0.5})
    return model


def with_start(weights: str) -> Params:
    student = {"backbone": "mobilenetv2", "dropout": [0.5, 0.1], "weights": weights}
    miniature.change(Path.cwd(), {"students": {"mobilenetv2": student}, "run": miniature.RUN})
    return load_params()


@pytest.fixture
def classes(params: Params) -> tuple[str, ...]:
    from attnfd.data.prepared import open_prepared

    freeze(tasks.of(params, "shapes"))
    return open_prepared(params, "shapes").card.classes


@pytest.mark.parametrize("same", [True, False])
def test_a_student_starts_where_the_model_ended(classes: tuple[str, ...], same: bool) -> None:
    names = classes if same else ("road", "car", "tree")
    model = model_of(Path("old"), names)
    task = Task(with_start("old"), CELL, checkpoints=Checkpoints(Path("none")))
    teacher = checkpoint.load(paths.frozen("shapes"))[0]
    made = stage._make(task, classes, teacher.info)
    started, kept = made.pair[0].state_dict(), model.state_dict()
    for name, value in kept.items():
        if same or not name.startswith("classifier."):
            assert torch.equal(started[name], value), name
    assert started["classifier.weight"].shape[0] == len(classes)
    assert made.started["started_from"] == {
        "weights": "old",
        "sha256": checkpoint.fingerprint(Path("old")),
        "classifier": "of the model" if same else "new, as the classes differ",
    }


def test_the_card_of_a_trained_student_says_where_it_started(classes: tuple[str, ...]) -> None:
    model_of(Path("old"), classes)
    stage.distill([Task(with_start("old"), CELL, checkpoints=Checkpoints(Path("none")))])
    card = checkpoint.load(CELL.model)[1]
    assert card["started_from"]["sha256"] == checkpoint.fingerprint(Path("old"))


def test_what_it_cannot_start_from_is_refused_before_anything_runs(classes: tuple[str, ...]) -> None:
    model_of(Path("other"), classes, backbone="resnet18")
    for weights, message in {
        "gone": r"students.mobilenetv2.weights: found gone, which is not a folder",
        "other": r"students.mobilenetv2.weights: other has the backbone resnet18; allowed: mobilenetv2",
        "models/shapes/teacher": "is a teacher; allowed: a student's model",
        "models/shapes/frozen": "is a teacher",
    }.items():
        with pytest.raises(UserError, match=message):
            _started(with_start(weights), "mobilenetv2")
