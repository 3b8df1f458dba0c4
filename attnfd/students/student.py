"""Makes, saves and loads a student and its distiller."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save_file

from attnfd import paths
from attnfd.config.network import NEEDED
from attnfd.config.params import Settings
from attnfd.config.schema import Student
from attnfd.discovery import component
from attnfd.distillers.base import Distiller
from attnfd.errors import UserError
from attnfd.models import checkpoint, weight_file
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.network import Network
from attnfd.models.restore import kind_name
from attnfd.models.taps import NetInfo
from attnfd.networks.base import make_network
from attnfd.paths import DISTILLER, HISTORY, Cell

Pair = tuple[Network, Distiller]

STORED = ("runs:/", "models:/")
"""The prefixes of models in the tracking store."""


def make_student(cell: Cell, settings: Settings, classes: int, teacher: NetInfo, *, weights: str) -> Pair:
    """A new student and its distiller.

    Args:
        weights: of the student, see `attnfd.networks.base.Kind.make`.
    """
    assert settings.student is not None
    student = make_network(settings.student, classes, weights=weights)
    dropout = settings.distill.encoder_dropout if settings.distill and cell.method != "none" else None
    if dropout is not None:
        assert isinstance(student, DeepLabV3Plus)
        student.encoder_dropout.p = dropout
    return student, _distiller(cell, settings, student.info, teacher)


def load_start(student: Student, key: str, fetched: Path | None = None) -> tuple[Network, dict[str, Any]]:
    """The model that a student starts from, and its card.

    Args:
        key: key of the student in `params.yaml`; messages start with it.
        fetched: the folder of the model, if it comes from the tracking store.

    Raises:
        UserError: the model does not exist, is damaged, or is another network than the student.
    """
    assert student.weights is not None
    folder = fetched or paths.main_root() / Path(student.weights).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"{key}.weights: found {student.weights}, which is not a folder; allowed: the folder of a model, "
            "such as models/shapes/resnet18/attnfd/0 (copy it first if you train the same cell), or a model "
            "of MLflow: runs:/<run id>/<name>, models:/<name>/<version>"
        )
    model, card = checkpoint.load(folder)
    made_of = card["architecture"]
    if card["frozen"] or made_of["attention"] is not None:
        raise UserError(f"{key}.weights: {student.weights} is a teacher; allowed: a student's model")
    for part, found in [("network", kind_name(card))] + [
        (part, made_of[part]) for part in NEEDED[student.network] if part in made_of
    ]:
        wanted = getattr(student, part)
        if found != wanted:
            raise UserError(
                f"{key}.weights: {student.weights} has the {part} {found}; allowed: {wanted}, "
                f"as {key}.{part} says"
            )
    return model, card


def start_from(
    network: Network, student: Student, key: str, classes: Sequence[str], fetched: Path | None = None
) -> dict[str, Any]:
    """Give a new student the weights of the model that it starts from.

    If the model has other classes, or another order of them, the student keeps its new classifier.

    Returns:
        An entry for the student's card: the model, its SHA-256, and where the classifier comes from.
    """
    model, card = load_start(student, key, fetched)
    same = list(card.get("classes", ())) == list(classes)
    new = set() if same else _of_classes(student, len(classes))
    taken = {name: value for name, value in model.state_dict().items() if name not in new}
    network.load_state_dict({**network.state_dict(), **taken})
    return {
        "weights": student.weights,
        "sha256": card["sha256"],
        "classifier": "of the model" if same else "new, as the classes differ",
    }


def _of_classes(student: Student, classes: int) -> set[str]:
    """Names of the weights whose shape depends on the number of classes."""
    with torch.random.fork_rng(devices=[]):
        here, more = (make_network(student, number).state_dict() for number in (classes, classes + 1))
    return {name for name, value in here.items() if value.shape != more[name].shape}


def save_student(cell: Cell, pair: Pair, history: pd.DataFrame, card: Mapping[str, Any]) -> None:
    """Write the student with its card and its training history; and the distiller, in a separate file.

    Later, only pictures use the distiller's connectors and attention.
    """
    student, distiller = pair
    checkpoint.save(cell.model, student, {**card, "val_miou": history["miou"].max()})
    state = {name: tensor.contiguous() for name, tensor in distiller.state_dict().items()}
    save_file(state, cell.model / DISTILLER)
    history.to_csv(cell.model / HISTORY, index=False)


def load_distiller(cell: Cell, settings: Settings, student: NetInfo, teacher: NetInfo) -> Distiller:
    """Load the distiller that `save_student` wrote.

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
    check_layers(cell.method, settings.method, student=student, teacher=teacher)
    return component("distillers", cell.method)(student, teacher, settings.method)


def check_layers(name: str, method: Any, **networks: NetInfo) -> None:
    """Check that the networks have the layers that a method compares; pass them as `student`, `teacher`.

    Raises:
        UserError: a network does not have a layer.
    """
    for network, info in networks.items():
        for layer in getattr(method, "layers", ()):
            if layer not in info.channels:
                raise UserError(
                    f"methods.{name}.layers: found {layer!r}, which the {network} does not have; allowed: "
                    f"{', '.join(info.channels) or 'a method on logits, such as kd'}"
                )
