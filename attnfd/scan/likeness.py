"""Images that look alike but are not equal: frames of one scene, or copies that were scaled or saved again.

As in the perceptual hash dHash, the differences between neighbours in a thumbnail describe an image. Here the
differences are not reduced to bits, since in flat areas the bits would be noise.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from attnfd.data.depth import Pixels

SIDE = 17
ALIKE = 0.95
"""Two images look alike if the cosine between their differences is at least this.

It is higher for copies that were scaled, saved again as JPEG, brightened or darkened. It is lower for
different photographs of one kind, even from one microscope. docs/datasets.md has the numbers.
"""
BLOCK = 256


def differences(pixels: Pixels) -> NDArray[np.int16]:
    """The differences between neighbours in an image's thumbnail, downwards and to the right.

    With more than 8 bits, the range that the image uses is scaled to 8 bits, so brightness has no effect.
    """
    if pixels.dtype != np.uint8:
        lowest = int(pixels.min())
        spread = max(1, int(pixels.max()) - lowest)
        pixels = ((pixels.astype(np.uint32) - lowest) * 255 // spread).astype(np.uint8)
    small = Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    levels = np.asarray(small, dtype=np.int16)
    return np.concatenate([np.diff(levels, axis=axis).ravel() for axis in (0, 1)])


def lookalikes(these: NDArray[np.int16], those: NDArray[np.int16]) -> list[tuple[int, int]]:
    """Rows of `these` (N, D) that look like a row of `those` (M, D), each with the most similar one.

    The most similar pair comes first. Sums of products are whole numbers below 2^53, so all machines give the
    same result.
    """
    others = those.astype(float)
    found = []
    for start in range(0, len(these), BLOCK):
        block = these[start : start + BLOCK].astype(float)
        # An image with one value has no differences, and is not similar to any other.
        norms = np.maximum(1, np.outer((block**2).sum(1), (others**2).sum(1))) ** 0.5
        cosines = block @ others.T / norms
        best = cosines.argmax(1)
        for row, (column, cosine) in enumerate(zip(best, cosines.max(1), strict=True), start):
            if cosine >= ALIKE:
                found.append((-cosine, row, int(column)))
    return [(row, column) for _, row, column in sorted(found)]
