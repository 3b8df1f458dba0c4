"""The weights that networks start from: which are needed, which are here, and how to get the others."""

from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from attnfd.config.params import Params


class Start(NamedTuple):
    """What a network starts from: a backbone at an output stride, and its `weights`."""

    backbone: str
    weights: str
    output_stride: int


def wanted(params: Params) -> list[Start]:
    """Every network that the active recipes train from weights of a file, or whose backbone timm builds."""
    from attnfd.models import from_timm

    students = {*params.run.students, *params.run.tune.students, *params.run.ablate.students}
    found = {
        Start(
            network.backbone,
            params.distill(dataset).weights if network.weights is None else "none",
            network.output_stride,
        )
        for dataset in params.run.datasets
        for network in map(params.student, students)
    }
    teachers = [params.train_teacher(dataset) for dataset in params.run.datasets]
    found |= {
        Start(teacher.backbone, teacher.weights, teacher.output_stride)
        for teacher in teachers
        if teacher.checkpoint is None
    }
    return sorted(start for start in found if start.weights != "none" or from_timm.has(start.backbone))


def check(start: Start) -> str:
    """Where weights are, or how large their download will be; downloads nothing.

    Raises:
        UserError: there are no such weights, they are not those of the backbone, or the backbone cannot have
            this output stride.
    """
    from attnfd.models import backbones

    if megabytes := missing(start.backbone, start.weights):
        backbones.check_weights(start.backbone, "none", start.output_stride)
        return f"{start.weights}: not on this disk yet, a download of {megabytes:.0f} MB"
    backbones.check_weights(*start)
    return f"{start.weights}: on this disk" if start.weights != "none" else "none: training starts at random"


def fetch(params: Params) -> None:
    """Get all weights now, before the teacher's training and not in the hours after it.

    Raises:
        UserError: some cannot be had.
    """
    from attnfd.models import backbones

    for start in wanted(params):
        if megabytes := missing(start.backbone, start.weights):
            print(
                f"Downloading {start.weights} weights of {start.backbone}, {megabytes:.0f} MB",
                flush=True,
            )
        backbones.check_weights(*start)


def missing(backbone: str, weights: str) -> float | None:
    """Megabytes that have to be downloaded before these weights can be loaded; None: nothing has to be."""
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
