"""What the file of a teacher says of it, compared with what the teacher is here."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attnfd import paths
from attnfd.errors import UserError
from attnfd.models import weight_file

STRIDES = ("output_stride", "out_stride")
SCORES = ("best_pred", "best_miou", "best_mIoU", "best_score", "val_miou", "miou", "mIoU")
"""Names under which checkpoints keep the output stride, and the mIoU as a share or in per cent."""

FAR = 0.03
"""Of mIoU: other sizes and crops of the validation images cost less."""

logger = logging.getLogger(__name__)


def check_stride(file: Path, wanted: int) -> None:
    """See that a checkpoint was trained at the output stride `wanted`, if it names one.

    Raises:
        UserError: it was not.
    """
    for key, value in _entries(weight_file.beside(file)):
        stride = weight_file.number(value)
        if key in STRIDES and stride not in (None, wanted):
            raise UserError(
                f"{file}: {key} is {stride:g}; allowed: {wanted}, train_teacher.output_stride, at which "
                "the network computes something else; change that, or give a teacher that was trained at "
                f"{wanted}"
            )


def compare(file: Path, classes: Sequence[str], miou: float, output_stride: int) -> None:
    """Warn where an imported teacher differs from what its file says, or where the file says nothing.

    Args:
        file: the checkpoint, or the `model.safetensors` in a folder of ours.
        classes: of the dataset.
        miou: of the teacher as it came, on the validation split.
        output_stride: of the teacher here.
    """
    said = _card(file) if file.name == paths.MODEL else weight_file.beside(file)
    theirs = said.get("classes")
    pairs = zip(theirs, classes, strict=False) if isinstance(theirs, list) else ()
    for number, (given, wanted) in enumerate(pairs):
        if given != wanted:
            logger.warning(
                "%s: class %d of the teacher is %r, that of the dataset is %r; unless both mean the same, "
                "give a teacher of these classes in this order", file, number, given, wanted,
            )  # fmt: skip
            break
    claimed = _score(said)
    if claimed is None:
        logger.warning(
            "%s: the teacher has mIoU %.1f %% here, and its file names no score; compare it with the score "
            "that its authors report", file, 100 * miou,
        )  # fmt: skip
    elif miou < claimed - FAR:
        logger.warning(
            "%s: the teacher has mIoU %.1f %% here, but %.1f %% according to its file; it may have been "
            "trained at an output stride other than %d, on other classes, or on images that were normalised "
            "in another way", file, 100 * miou, 100 * claimed, output_stride,
        )  # fmt: skip


def _card(file: Path) -> Mapping[str, Any]:
    return json.loads((file.parent / paths.CARD).read_bytes())


def _score(said: Mapping[str, Any]) -> float | None:
    for key in SCORES:
        score = weight_file.number(said.get(key))
        if score is not None and 0 < score <= 100:
            return score if score <= 1 else score / 100
    return None


def _entries(said: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Keys and values of nested mappings."""
    for key, value in said.items():
        yield key, value
        if isinstance(value, Mapping):
            yield from _entries(value)
