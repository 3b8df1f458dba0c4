"""The weights that networks start from: which ones are needed, which ones are here, how to get the others."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from attnfd.config.network import DEEPLAB, NetworkConfig
from attnfd.config.params import Params
from attnfd.config.schema import TrainTeacher
from attnfd.discovery import component
from attnfd.errors import UserError

if TYPE_CHECKING:
    from attnfd.models.network import Network
    from attnfd.models.taps import NetInfo


class Start(NamedTuple):
    """What a DeepLabV3+ starts from: a backbone at an output stride, and its `weights`."""

    backbone: str
    weights: str
    output_stride: int


class Other(NamedTuple):
    """A network of another kind that a recipe trains or imports.

    `key` is its key in `params.yaml`, and `role` is student or teacher. `methods` and the `variants` of
    AttnFD compare its layers.
    """

    dataset: str
    key: str
    role: str
    config: NetworkConfig
    weights: str
    methods: tuple[str, ...]
    variants: tuple[str, ...]


def students(params: Params) -> tuple[str, ...]:
    """Every student that is trained."""
    run = params.run
    return tuple(dict.fromkeys((*run.students, *run.tune.students, *run.ablate.students)))


def others(params: Params) -> Iterator[Other]:
    """Every network of another kind than DeepLabV3+ in the active recipes."""
    run = params.run
    for dataset in run.datasets:
        teacher, weights = params.train_teacher(dataset), params.distill(dataset).weights
        if teacher.network != DEEPLAB:
            start, methods = teacher.weights, (*run.methods, *run.tune.methods)
            if teacher.checkpoint is not None:
                start = "none"  # The checkpoint contains all weights.
            yield Other(dataset, "train_teacher", "teacher", teacher, start, methods, run.ablate.variants)
        for name in students(params):
            config = params.student(name)
            if config.network != DEEPLAB:
                taught, tuned = name in run.students, name in run.tune.students
                methods = (*run.methods * taught, *run.tune.methods * tuned)
                variants = run.ablate.variants * (name in run.ablate.students)
                key = f"students.{name}"
                yield Other(dataset, key, "student", config, config.start(weights), methods, variants)


def wanted(params: Params) -> list[Start]:
    """Every DeepLabV3+ of the active recipes that starts from given weights or has a backbone of timm."""
    from attnfd.models import from_timm

    found = {
        Start(
            str(network.backbone),
            network.start(params.distill(dataset).weights),
            network.output_stride,
        )
        for dataset in params.run.datasets
        for network in map(params.student, students(params))
        if network.network == DEEPLAB
    }
    teachers = [params.train_teacher(dataset) for dataset in params.run.datasets]
    found |= {
        Start(str(teacher.backbone), teacher.weights, teacher.output_stride)
        for teacher in teachers
        if teacher.checkpoint is None and teacher.network == DEEPLAB
    }
    return sorted(start for start in found if start.weights != "none" or from_timm.has(start.backbone))


def check(start: Start) -> str:
    """Where the weights are, or how large their download is. Downloads nothing.

    Raises:
        UserError: the weights do not exist or do not fit the backbone, or the backbone does not support this
            output stride.
    """
    from attnfd.models import backbones

    if megabytes := missing(start.backbone, start.weights):
        backbones.check_weights(start.backbone, "none", start.output_stride)
        return f"{start.weights}: not on this disk yet, a download of {megabytes:.0f} MB"
    backbones.check_weights(*start)
    return f"{start.weights}: on this disk" if start.weights != "none" else "none: random initial weights"


def check_other(params: Params, other: Other, classes: int) -> str:
    """Build a network of another kind, and check that it has the layers of the methods. Downloads nothing.

    Raises:
        UserError: the network cannot be built, or a method compares a layer that it does not have.
    """
    found = f"{other.config.made_of}, weights: {other.weights}"
    if other.weights == "imagenet":
        network = _try(params, other._replace(weights="none"), classes)
        found += ", a download if they are not on this disk"
    else:
        network = _try(params, other, classes)
    if network is not None:
        _check_methods(params, other, network.info)
    return found


def _check_methods(params: Params, other: Other, info: "NetInfo") -> None:
    from attnfd.students.student import check_layers

    for method in other.methods:
        if other.role == "teacher" and component("distillers", method).needs_margins:
            raise UserError(
                f"{params.source}: {other.key}.network: found {other.config.network}, whose BNs have no "
                f"margins; allowed for methods.{method}: {DEEPLAB}"
            )
        check_layers(method, params.method(method, other.dataset), **{other.role: info})
    for variant in other.variants:
        check_layers("attnfd", params.method("attnfd", other.dataset, variant), **{other.role: info})


def _try(params: Params, other: Other, classes: int) -> "Network | None":
    from attnfd.networks.base import kind_of

    if isinstance(other.config, TrainTeacher) and other.config.classes:
        classes = len(other.config.classes)
    try:
        return kind_of(other.config.network).check(other.config, classes, other.weights)
    except UserError as error:
        raise UserError(f"{params.source}: {other.key}: {error}") from None


def fetch(params: Params) -> None:
    """Download all weights now, so that no download can fail in the hours after the teacher's training.

    Raises:
        UserError: some weights cannot be downloaded or loaded.
    """
    from attnfd.models import backbones

    for start in wanted(params):
        if megabytes := missing(start.backbone, start.weights):
            print(
                f"Downloading {start.weights} weights of {start.backbone}, {megabytes:.0f} MB",
                flush=True,
            )
        backbones.check_weights(*start)
    for other in others(params):
        if other.weights == "imagenet":
            _try(params, other, classes=2)


def missing(backbone: str, weights: str) -> float | None:
    """Size of the download of these weights in megabytes; None if no download is needed."""
    if weights != "imagenet":
        return None
    from attnfd.models import backbones, from_timm

    if from_timm.has(backbone):
        return from_timm.missing(backbone)
    import torch
    import torchvision

    published = torchvision.models.get_model_weights(backbones.entry(backbone).model)["IMAGENET1K_V1"]
    file = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(published.url).path).name)
    return None if file.exists() else published.meta["_file_size"]
