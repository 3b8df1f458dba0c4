"""Images and masks as arrays."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from attnfd.datasets.base import VOID

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for a file that it cannot decode."""


def decode_image(file: Path | BytesIO) -> np.ndarray:
    """An image as RGB (H, W, 3), uint8, turned as its EXIF orientation says."""
    with Image.open(file) as image:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def decode_mask(file: Path | BytesIO) -> np.ndarray:
    """The values of a mask (H, W), uint8; of a palette image its indices.

    Raises:
        ValueError: the mask has more than one channel or more than 8 bits.
    """
    with Image.open(file) as mask:
        if mask.mode not in ("1", "L", "P"):
            raise ValueError(f"mask of mode {mask.mode}; allowed: one channel of at most 8 bits")
        return np.array(mask).astype(np.uint8)


def label_table(labels: Mapping[int, int]) -> np.ndarray:
    """`labels` as an array (256,): value in a mask → class index; values without a class are void."""
    table = np.full(256, VOID, dtype=np.uint8)
    table[list(labels)] = list(labels.values())
    return table
