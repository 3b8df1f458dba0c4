"""Images that look alike without being equal: frames of one scene, or copies that were scaled or re-saved.

As in the perceptual hash dHash, an image is described by the differences between neighbours in a thumbnail.
Here they keep their size instead of becoming bits: where an image is flat, bits are noise.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from attnfd.data.depth import Pixels

SIDE = 17
ALIKE = 0.95
"""Least cosine between the differences of two images that look alike.

Copies that were scaled, re-saved as JPEG, brightened or darkened have more; different photographs of one
kind, also of one microscope, have less. docs/datasets.md has the numbers.
"""
BLOCK = 256


def differences(pixels: Pixels) -> NDArray[np.int16]:
    """What describes an image: the differences of its thumbnail, down and to the right.

    Of more than 8 bits, the range that the image uses is stretched over 8: brightness does not count.
    """
    if pixels.dtype != np.uint8:
        lowest = int(pixels.min())
        spread = max(1, int(pixels.max()) - lowest)
        pixels = ((pixels.astype(np.uint32) - lowest) * 255 // spread).astype(np.uint8)
    small = Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    levels = np.asarray(small, dtype=np.int16)
    return np.concatenate([np.diff(levels, axis=axis).ravel() for axis in (0, 1)])


def lookalikes(these: NDArray[np.int16], those: NDArray[np.int16]) -> list[tuple[int, int]]:
    """Rows of `these` (N, D) that look like one of `those` (M, D), with the most alike of them.

    The most alike pair comes first. Sums of products are whole numbers below 2^53, so that every machine
    finds the same.
    """
    others = those.astype(float)
    found = []
    for start in range(0, len(these), BLOCK):
        block = these[start : start + BLOCK].astype(float)
        # An image of one value has no differences, and is like no other.
        norms = np.maximum(1, np.outer((block**2).sum(1), (others**2).sum(1))) ** 0.5
        cosines = block @ others.T / norms
        best = cosines.argmax(1)
        for row, (column, cosine) in enumerate(zip(best, cosines.max(1), strict=True), start):
            if cosine >= ALIKE:
                found.append((-cosine, row, int(column)))
    return [(row, column) for _, row, column in sorted(found)]
