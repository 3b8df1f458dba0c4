"""A student and the distiller that trains beside it: made, saved, and read again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.torch import save_file

from attnfd import paths
from attnfd.config.params import Settings
from attnfd.config.schema import Student
from attnfd.discovery import component
from attnfd.distillers.base import Distiller
from attnfd.errors import UserError
from attnfd.models import checkpoint, weight_file
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.taps import NetInfo
from attnfd.paths import DISTILLER, HISTORY, Cell

Pair = tuple[DeepLabV3Plus, Distiller]

STORED = ("runs:/", "models:/")
"""How the names of models in the tracking store begin."""

CLASSIFIER = "classifier."
"""How the keys of the only weights begin that depend on the classes."""


def make_student(cell: Cell, settings: Settings, classes: int, teacher: NetInfo, *, weights: str) -> Pair:
    """A new student and its distiller.

    Args:
        weights: of the student's backbone, see `attnfd.models.backbones.build`.
    """
    assert settings.student is not None
    student = DeepLabV3Plus(**settings.student.network, classes=classes, weights=weights)
    return student, _distiller(cell, settings, student.info, teacher)


def load_start(
    student: Student, key: str, fetched: Path | None = None
) -> tuple[DeepLabV3Plus, dict[str, Any]]:
    """The model that a student starts from, and its card.

    Args:
        key: of the student in `params.yaml`, which opens a message.
        fetched: the folder that has the model, if it is one of the tracking store.

    Raises:
        UserError: it is not there, is damaged, or is another network than the student.
    """
    assert student.weights is not None
    folder = fetched or paths.main_root() / Path(student.weights).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"{key}.weights: found {student.weights}, which is no folder; allowed: the folder of a model, "
            "such as models/shapes/resnet18/attnfd/0 (a copy of it, if the same cell is to be trained), or a "
            "model of MLflow: runs:/<run id>/<name>, models:/<name>/<version>"
        )
    model, card = checkpoint.load(folder)
    architecture = model.architecture
    if card["frozen"] or architecture.attention is not None:
        raise UserError(f"{key}.weights: {student.weights} is a teacher; allowed: a student's model")
    if architecture.backbone != student.backbone:
        raise UserError(
            f"{key}.weights: {student.weights} has the backbone {architecture.backbone}; allowed: "
            f"{student.backbone}, as {key}.backbone says"
        )
    return model, card


def start_from(
    network: DeepLabV3Plus, student: Student, key: str, classes: Sequence[str], fetched: Path | None = None
) -> dict[str, Any]:
    """Give a new student the weights of the model that it starts from.

    The classifier stays new unless the model has the same classes in the same order.

    Returns:
        What the card of the student says of it: the model's weights and which classifier there is.
    """
    model, card = load_start(student, key, fetched)
    same = list(card.get("classes", ())) == list(classes)
    taken = {
        name: value for name, value in model.state_dict().items() if same or not name.startswith(CLASSIFIER)
    }
    network.load_state_dict({**network.state_dict(), **taken})
    return {
        "weights": student.weights,
        "sha256": card["sha256"],
        "classifier": "of the model" if same else "new, as the classes differ",
    }


def save_student(cell: Cell, pair: Pair, history: pd.DataFrame, card: Mapping[str, Any]) -> None:
    """Write the student with its card and the history of its training; the distiller is a file of its own.

    Connectors and attention of the distiller serve pictures alone.
    """
    student, distiller = pair
    checkpoint.save(cell.model, student, {**card, "val_miou": history["miou"].max()})
    state = {name: tensor.contiguous() for name, tensor in distiller.state_dict().items()}
    save_file(state, cell.model / DISTILLER)
    history.to_csv(cell.model / HISTORY, index=False)


def load_distiller(cell: Cell, settings: Settings, student: NetInfo, teacher: NetInfo) -> Distiller:
    """The distiller that `save_student` wrote beside a student.

    Raises:
        UserError: the file is missing or damaged, or does not fit the settings of the method.
    """
    distiller = _distiller(cell, settings, student, teacher)
    file = cell.model / DISTILLER
    state = weight_file.read(file)
    weight_file.check(state, distiller.state_dict(), str(file), f"methods.{cell.method}")
    distiller.load_state_dict(state)
    return distiller


def _distiller(cell: Cell, settings: Settings, student: NetInfo, teacher: NetInfo) -> Distiller:
    assert cell.method is not None
    return component("distillers", cell.method)(student, teacher, settings.method)
