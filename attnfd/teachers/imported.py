"""A teacher trained elsewhere: a folder that train_teacher wrote, or a file in the AttnFD authors' layout."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from attnfd import paths
from attnfd.config.network import DEEPLAB
from attnfd.config.schema import TrainTeacher
from attnfd.errors import UserError
from attnfd.models import checkpoint, weight_file
from attnfd.models.cbam import CBAM
from attnfd.models.deeplab import RATES, WIDTH, Architecture, DeepLabV3Plus
from attnfd.models.network import Network
from attnfd.models.tapped import Tapped
from attnfd.networks.base import make_network
from attnfd.teachers import claims, class_map

# Our names → names in the published DeepLabV3+ (Heo et al. 2019, then AttnFD). Backbones use torchvision's.
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
    """A network in eval mode, and whether its attention is new, that is, not from the checkpoint."""

    model: Network
    new_attention: bool


def import_teacher(config: TrainTeacher, classes: int, names: Sequence[str] = ()) -> Imported:
    """Import the teacher of `config.checkpoint`. It computes the same as where it was trained.

    A checkpoint without attention gets `config.attention`: gates without weights do not change the forward
    path, and a learned CBAM in the path starts as the identity. The published network has CBAMs that its
    forward path does not use; they are left out. With `config.class_map`, the logits are of the dataset's
    classes.

    Args:
        classes: number of classes of the dataset.
        names: names of these classes; needed for a `class_map`.

    Raises:
        UserError: as in `check_teacher`.
    """
    numbers = class_map.numbers(config, names)
    known = len(config.classes or ()) or classes
    import_network = _import_deeplab if config.network == DEEPLAB else _import_other
    imported = import_network(config, known)
    if numbers is not None:
        model = imported.model
        model.architecture = model.architecture.model_copy(update={"class_map": numbers})
    return imported


def _import_deeplab(config: TrainTeacher, classes: int) -> Imported:
    found, state = _read(config, classes)
    attention = found.attention or config.attention
    model = DeepLabV3Plus(**{**dict(found), "attention": attention})
    model.load_state_dict(state, strict=False)  # `_read` has compared them
    if found.attention is None and attention.learned:
        _make_identity(model)
    return Imported(model.eval(), found.attention is None)


def check_teacher(config: TrainTeacher, classes: int | None = None, names: Sequence[str] = ()) -> None:
    """Check before anything runs that `import_teacher` can read the checkpoint.

    Args:
        classes: number of classes of the dataset; None: any number is valid.
        names: names of these classes; needed for a `class_map`.

    Raises:
        UserError: the checkpoint is missing, damaged or frozen; it is of another network, has another output
            stride or other classes; its weights are not finite; or a class map does not fit. The message
            names what differs.
    """
    class_map.numbers(config, names)
    known = len(config.classes or ()) or classes
    if config.network == DEEPLAB:
        _read(config, known)
    else:
        _import_other(config, known or 2)


def fingerprint(config: TrainTeacher) -> str:
    """SHA-256 of the weights in `config.checkpoint`."""
    return checkpoint.digest(_file(config))


def compare(config: TrainTeacher, classes: Sequence[str], miou: float) -> None:
    """Warn if the teacher differs from what its file says; see `attnfd.teachers.claims.compare`.

    With a `class_map` there is no warning, because the file describes other classes.
    """
    if config.class_map is None:
        claims.compare(_file(config), classes, miou, config.output_stride)


def _file(config: TrainTeacher) -> Path:
    assert config.checkpoint is not None
    path = paths.main_root() / config.checkpoint
    return path / paths.MODEL if path.is_dir() else path


def _read(config: TrainTeacher, classes: int | None) -> tuple[Architecture, Mapping[str, Tensor]]:
    """The network of the checkpoint, and its weights with our names."""
    found, state = _read_any(config)
    if classes is not None:
        _check_classes(config, found.answers, classes)
    return found, state


def _check_classes(config: TrainTeacher, found: int, classes: int) -> None:
    if found == classes:
        return
    if config.classes is not None:
        raise UserError(
            f"{config.checkpoint}: has {found} classes, train_teacher.classes names {classes}; name each once"
        )
    raise UserError(
        f"{config.checkpoint}: has {found} classes, the dataset has {classes}; give a checkpoint that was "
        "trained on the dataset's classes, or map its classes with train_teacher.class_map"
    )


def _read_any(config: TrainTeacher) -> tuple[Architecture, Mapping[str, Tensor]]:
    file = _file(config)
    if not file.is_file():
        raise UserError(f"train_teacher.checkpoint: {file}: no such file; allowed: a checkpoint, or null")
    if file.name != paths.MODEL or not (file.parent / paths.CARD).is_file():
        return _read_published(file, config)
    model = _load(file, config)
    if not isinstance(model, DeepLabV3Plus):
        raise UserError(f"{file}: is not a DeepLabV3+; set train_teacher.network")
    if model.architecture.backbone != config.backbone:
        found = model.architecture.backbone
        raise UserError(f"{file}: has the backbone {found}; set train_teacher.backbone: {found}")
    if model.architecture.output_stride != config.output_stride:
        stride = model.architecture.output_stride
        raise UserError(f"{file}: has the output stride {stride}; set train_teacher.output_stride: {stride}")
    weight_file.check_finite(model.state_dict(), str(file))
    return model.architecture, model.state_dict()


def _load(file: Path, config: TrainTeacher) -> Network:
    model, card = checkpoint.load(file.parent)
    if card["frozen"]:
        raise UserError(f"{file}: is frozen; give the folder that train_teacher wrote")
    named = list(card.get("classes", config.classes or ()))
    if config.classes is not None and named != list(config.classes):
        raise UserError(
            f"{file}: has the classes {', '.join(map(str, named))}; use these names in train_teacher.classes"
        )
    if config.class_map is not None and model.architecture.class_map is not None:
        raise UserError(
            f"train_teacher.class_map: {file} already has a class map; allowed: a teacher without one"
        )
    return model


def _import_other(config: TrainTeacher, classes: int) -> Imported:
    """A teacher of another kind: weights of the network in `config`, or a folder that train_teacher wrote."""
    file = _file(config)
    if not file.is_file():
        raise UserError(f"train_teacher.checkpoint: {file}: no such file; allowed: a checkpoint, or null")
    if file.name == paths.MODEL and (file.parent / paths.CARD).is_file():
        model = _load(file, config)
        _check_classes(config, model.info.classes, classes)
        return Imported(model, not model.attention)
    made = make_network(config, classes, attention=config.attention)
    assert isinstance(made, Tapped)
    found = {key.removeprefix("module."): value for key, value in weight_file.read(file).items()}
    weight_file.check(found, made.net.state_dict(), str(file), "the network that train_teacher describes")
    made.net.load_state_dict(found, strict=False)
    gains = {cbam.halve() for cbam in made.attention.values() if isinstance(cbam, CBAM) and cbam.learned}
    made.architecture = made.architecture.model_copy(update={"gain": max(gains, default=1)})
    return Imported(made.eval(), True)


def _read_published(file: Path, config: TrainTeacher) -> tuple[Architecture, Mapping[str, Tensor]]:
    given = {key.removeprefix("module."): value for key, value in weight_file.read(file).items()}
    given = {key: value for key, value in given.items() if ".cbam." not in key}
    if CLASSIFIER not in given:
        card = f", and there is no {paths.CARD} beside it" if file.name == paths.MODEL else ""
        raise UserError(
            f"{file}: contains no {CLASSIFIER}{card}; allowed: a folder that train_teacher wrote, or weights "
            "of a DeepLabV3+ in the layout of the AttnFD authors; for any other network set "
            "train_teacher.network (docs/bring-your-teacher.md)"
        )
    architecture = Architecture(
        backbone=str(config.backbone),
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
    """Set every gate to ½, and double the weights that read its output.

    Factors of two are exact: the logits stay the same bit for bit.
    """
    readers: dict[str, list[Tensor]] = {
        "backbone": [part.conv.weight for part in (model.aspp.point, *model.aspp.atrous, model.aspp.image)],
        "encoder": [model.decoder.fuse.conv.weight[:, :WIDTH]],  # the other weights read low-level features
        "decoder": [model.classifier.weight],
    }
    for layer, weights in readers.items():
        cbam = model.attention[layer]
        assert isinstance(cbam, CBAM)
        factor = cbam.halve()
        for weight in weights:
            weight.mul_(factor)
