"""A student and the distiller that trains beside it: made, saved, and read again."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from safetensors.torch import save_file

from attnfd.config.params import Settings
from attnfd.discovery import component
from attnfd.distillers.base import Distiller
from attnfd.models import checkpoint, weight_file
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.taps import NetInfo
from attnfd.paths import DISTILLER, HISTORY, Cell

Pair = tuple[DeepLabV3Plus, Distiller]


def make_student(cell: Cell, settings: Settings, classes: int, teacher: NetInfo, *, weights: str) -> Pair:
    """A new student and its distiller.

    Args:
        weights: of the student's backbone, see `attnfd.models.backbones.build`.
    """
    assert settings.student is not None
    student = DeepLabV3Plus(**dict(settings.student), classes=classes, weights=weights)
    if (
        settings.distill is not None
        and settings.distill.encoder_dropout is not None
        and cell.method != "none"
    ):
        student.encoder_dropout.p = settings.distill.encoder_dropout
    return student, _distiller(cell, settings, student.info, teacher)


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
