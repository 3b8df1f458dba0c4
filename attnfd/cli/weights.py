"""The weights that networks start from: which are needed, which are here, and how to get the others."""

from pathlib import Path
from urllib.parse import urlsplit

from attnfd.config.params import Params


def wanted(params: Params) -> list[tuple[str, str]]:
    """Backbone and `weights` of every network that the active recipes train from weights of a file."""
    students = {*params.run.students, *params.run.ablate.students}
    found = {
        (params.student(student).backbone, params.distill(dataset).weights)
        for dataset in params.run.datasets
        for student in students
    }
    teachers = [params.train_teacher(dataset) for dataset in params.run.datasets]
    found |= {(teacher.backbone, teacher.weights) for teacher in teachers if teacher.checkpoint is None}
    return sorted((backbone, weights) for backbone, weights in found if weights != "none")


def check(backbone: str, weights: str) -> str:
    """Where weights are, or how large their download will be; downloads nothing.

    Raises:
        UserError: there are no such weights, or they are not those of the backbone.
    """
    from attnfd.models import backbones

    if megabytes := missing(backbone, weights):
        return f"{weights}: not on this disk yet, a download of {megabytes:.0f} MB"
    backbones.check_weights(backbone, weights)
    return f"{weights}: on this disk"


def fetch(params: Params) -> None:
    """Get all weights now, before the teacher's training and not in the hours after it.

    Raises:
        UserError: some cannot be had.
    """
    from attnfd.models import backbones

    for backbone, weights in wanted(params):
        if megabytes := missing(backbone, weights):
            print(f"Downloading {weights} weights of {backbone}, {megabytes:.0f} MB", flush=True)
        backbones.check_weights(backbone, weights)


def missing(backbone: str, weights: str) -> float | None:
    """Megabytes that have to be downloaded before these weights can be loaded; None: nothing has to be."""
    if weights != "imagenet":
        return None
    import torch
    import torchvision

    from attnfd.models import backbones

    published = torchvision.models.get_model_weights(backbones.entry(backbone).model)["IMAGENET1K_V1"]
    file = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(published.url).path).name)
    return None if file.exists() else published.meta["_file_size"]
