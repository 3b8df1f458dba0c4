"""A teacher that was trained elsewhere: a checkpoint of ours, or one in the layout of the AttnFD authors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from attnfd import paths
from attnfd.config.schema import TrainTeacher
from attnfd.errors import UserError
from attnfd.models import checkpoint, weight_file
from attnfd.models.cbam import CBAM
from attnfd.models.deeplab import RATES, WIDTH, Architecture, DeepLabV3Plus
from attnfd.teachers import claims

# Names of the published DeepLabV3+ (Heo et al. 2019, then AttnFD) by ours; a backbone has torchvision's.
PUBLISHED = {
    "aspp.point.conv": "aspp.aspp1.atrous_conv",
    "aspp.point.bn": "aspp.aspp1.bn",
    **{f"aspp.atrous.{i}.conv": f"aspp.aspp{i + 2}.atrous_conv" for i in range(len(RATES))},
    **{f"aspp.atrous.{i}.bn": f"aspp.aspp{i + 2}.bn" for i in range(len(RATES))},
    "aspp.image.conv": "aspp.global_avg_pool.1",
    "aspp.image.bn": "aspp.global_avg_pool.2",
    "aspp.project.conv": "aspp.conv1",
    "aspp.project.bn": "aspp.bn1",
    "decoder.low_level.conv": "decoder.conv1",
    "decoder.low_level.bn": "decoder.bn1",
    "decoder.fuse.conv": "decoder.last_conv.0",
    "decoder.fuse.bn": "decoder.last_conv.1",
    "decoder.refine.conv": "decoder.last_conv.4",
    "decoder.refine.bn": "decoder.last_conv.5",
    "classifier": "decoder.last_conv.8",
}
CLASSIFIER = f"{PUBLISHED['classifier']}.bias"


class Imported(NamedTuple):
    """A network in eval mode, and whether its attention is new: not from the checkpoint, and the identity."""

    model: DeepLabV3Plus
    new_attention: bool


def import_teacher(config: TrainTeacher, classes: int) -> Imported:
    """The teacher of `config.checkpoint`, which computes what it computed where it comes from.

    A checkpoint without attention is given `config.attention`: gates without weights stand beside the
    forward path, a learned CBAM in it starts as the identity. The published network has CBAMs that its
    forward path does not use; they are left out.

    Args:
        classes: of the dataset.

    Raises:
        UserError: `check_teacher` would.
    """
    found, state = _read(config, classes)
    attention = found.attention or config.attention
    model = DeepLabV3Plus(**{**dict(found), "attention": attention})
    model.load_state_dict(state, strict=False)  # `_read` has compared them
    if found.attention is None and attention.learned:
        _make_identity(model)
    return Imported(model.eval(), found.attention is None)


def check_teacher(config: TrainTeacher, classes: int | None = None) -> None:
    """Find out before anything runs whether `import_teacher` could read the checkpoint.

    Args:
        classes: of the dataset; None: any number will do.

    Raises:
        UserError: it is missing, damaged, frozen, of another network or trained at another output stride, has
            other classes or weights that are no numbers; the message names what differs.
    """
    _read(config, classes)


def fingerprint(config: TrainTeacher) -> str:
    """SHA-256 of the weights in `config.checkpoint`."""
    return checkpoint.digest(_file(config))


def compare(config: TrainTeacher, classes: Sequence[str], miou: float) -> None:
    """Warn where the teacher differs from what its file says; see `attnfd.teachers.claims.compare`."""
    claims.compare(_file(config), classes, miou, config.output_stride)


def _file(config: TrainTeacher) -> Path:
    assert config.checkpoint is not None
    path = paths.main_root() / config.checkpoint
    return path / paths.MODEL if path.is_dir() else path


def _read(config: TrainTeacher, classes: int | None) -> tuple[Architecture, Mapping[str, Tensor]]:
    """The network of the checkpoint, and its weights by our names."""
    found, state = _read_any(config)
    if classes not in (None, found.classes):
        raise UserError(
            f"{config.checkpoint}: has {found.classes} classes, the dataset has {classes}; "
            "give a checkpoint that was trained on its classes"
        )
    return found, state


def _read_any(config: TrainTeacher) -> tuple[Architecture, Mapping[str, Tensor]]:
    file = _file(config)
    if not file.is_file():
        raise UserError(f"train_teacher.checkpoint: {file}: no such file; allowed: a checkpoint, or null")
    if file.name != paths.MODEL or not (file.parent / paths.CARD).is_file():
        return _read_published(file, config)
    model, card = checkpoint.load(file.parent)
    if card["frozen"]:
        raise UserError(f"{file}: is frozen; give the folder that train_teacher wrote")
    if model.architecture.backbone != config.backbone:
        found = model.architecture.backbone
        raise UserError(f"{file}: has the backbone {found}; set train_teacher.backbone: {found}")
    if model.architecture.output_stride != config.output_stride:
        stride = model.architecture.output_stride
        raise UserError(f"{file}: has the output stride {stride}; set train_teacher.output_stride: {stride}")
    weight_file.check_finite(model.state_dict(), str(file))
    return model.architecture, model.state_dict()


def _read_published(file: Path, config: TrainTeacher) -> tuple[Architecture, Mapping[str, Tensor]]:
    given = {key.removeprefix("module."): value for key, value in weight_file.read(file).items()}
    given = {key: value for key, value in given.items() if ".cbam." not in key}
    if CLASSIFIER not in given:
        card = f" and no {paths.CARD} beside it" if file.name == paths.MODEL else ""
        raise UserError(
            f"{file}: no {CLASSIFIER} in it{card}; allowed: a folder that train_teacher wrote, or weights of "
            "a DeepLabV3+ in the layout of the AttnFD authors; other networks cannot be teachers "
            "(docs/bring-your-teacher.md)"
        )
    architecture = Architecture(
        backbone=config.backbone,
        classes=len(given[CLASSIFIER]),
        dropout=config.dropout,
        attention=None,
        output_stride=config.output_stride,
    )
    with torch.device("meta"):
        needed = DeepLabV3Plus(**dict(architecture)).state_dict()
    published = {key: _published(key) for key in needed}
    network = f"the published DeepLabV3+ on {config.backbone}"
    weight_file.check(given, {published[key]: value for key, value in needed.items()}, str(file), network)
    claims.check_stride(file, config.output_stride)
    return architecture, {key: given[name] for key, name in published.items() if name in given}


def _published(key: str) -> str:
    module, _, weight = key.rpartition(".")
    return f"{PUBLISHED.get(module, module)}.{weight}"


@torch.no_grad()
def _make_identity(model: DeepLabV3Plus) -> None:
    """Halve the features at every gate, and let the convolutions behind make up for it.

    Factors of two are exact: the logits stay the same to the bit.
    """
    readers: dict[str, list[Tensor]] = {
        "backbone": [part.conv.weight for part in (model.aspp.point, *model.aspp.atrous, model.aspp.image)],
        "encoder": [model.decoder.fuse.conv.weight[:, :WIDTH]],  # the rest reads low-level features
        "decoder": [model.classifier.weight],
    }
    for layer, weights in readers.items():
        cbam = model.attention[layer]
        assert isinstance(cbam, CBAM)
        factor = cbam.halve()
        for weight in weights:
            weight.mul_(factor)
