"""Compares what a teacher's file says about it with the values measured here."""

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
"""Keys of the output stride, and of the mIoU (from 0 to 1, or in per cent), in checkpoints."""

FAR = 0.03
"""Smallest loss of mIoU that is reported: other sizes and crops of the validation images cost less."""

logger = logging.getLogger(__name__)


def check_stride(file: Path, wanted: int) -> None:
    """Check that a checkpoint was trained at the output stride `wanted`, if it contains a stride.

    Raises:
        UserError: it was trained at another one.
    """
    for key, value in _entries(weight_file.beside(file)):
        stride = weight_file.number(value)
        if key in STRIDES and stride not in (None, wanted):
            raise UserError(
                f"{file}: {key} is {stride:g}; allowed: {wanted}, as train_teacher.output_stride says, "
                "because the network computes something else at another stride; change that key, or give a "
                f"teacher that was trained at {wanted}"
            )


def compare(file: Path, classes: Sequence[str], miou: float, output_stride: int) -> None:
    """Warn if an imported teacher differs from what its file says, or if the file contains no score.

    Args:
        file: the checkpoint, or the `model.safetensors` in a folder that train_teacher wrote.
        classes: of the dataset.
        miou: of the imported teacher, before any training here, on the validation split.
        output_stride: of the teacher here.
    """
    said = _card(file) if file.name == paths.MODEL else weight_file.beside(file)
    theirs = said.get("classes")
    pairs = zip(theirs, classes, strict=False) if isinstance(theirs, list) else ()
    for number, (given, wanted) in enumerate(pairs):
        if given != wanted:
            logger.warning(
                "%s: class %d is %r in the teacher and %r in the dataset; if they do not mean the same, "
                "give a teacher with the dataset's classes in the same order", file, number, given, wanted,
            )  # fmt: skip
            break
    claimed = _score(said)
    if claimed is None:
        logger.warning(
            "%s: the teacher has mIoU %.1f %% here, and its file contains no score; compare it with the "
            "score that its authors report", file, 100 * miou,
        )  # fmt: skip
    elif miou < claimed - FAR:
        logger.warning(
            "%s: the teacher has mIoU %.1f %% here, but %.1f %% according to its file; perhaps it was "
            "trained at an output stride other than %d, on other classes, or on images with another "
            "normalisation", file, 100 * miou, 100 * claimed, output_stride,
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
