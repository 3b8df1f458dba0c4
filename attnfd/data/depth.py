"""Images of more than 8 bits per channel: a dataset scales all of them to 8 bits in the same way."""

from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from attnfd.config.section import Section

LARGEST = 0xFFFF
"""The largest value that an image may have."""

SAMPLE = 256
"""The usual values of an image are taken from about this many rows and columns at most."""

FEW = 32
"""An image that uses fewer of the 256 grey levels gives a warning."""

Pixels = NDArray[np.uint8 | np.uint16]
"""An image as it is stored: RGB (H, W, 3), or grey (H, W) if it has more than 8 bits."""


class Depth(Section):
    """How values of more than 8 bits become 8 bits: `low` becomes 0, `high` becomes 255, in equal steps."""

    low: int = Field(ge=0, le=LARGEST, description="value that becomes 0")
    high: int = Field(ge=0, le=LARGEST, description="value that becomes 255")
    clip: bool = Field(description="whether values outside become 0 or 255; if false, they are an error")


FULL = Depth(low=0, high=LARGEST, clip=False)
"""Takes the upper 8 of 16 bits; used where a card has no `depth`."""


class Values(NamedTuple):
    """The values of an image: whether they have more than 8 bits, their range, and their usual range.

    With more than 8 bits, the usual range leaves out 0.5 % of the pixels at each end, so that one hot pixel
    does not widen it. `same`: all pixels are equal.
    """

    deep: bool
    lowest: int
    highest: int
    low: int
    high: int
    same: bool


def measure(pixels: Pixels) -> Values:
    """The values of an image."""
    deep = pixels.dtype != np.uint8
    low, high = lowest, highest = int(pixels.min()), int(pixels.max())
    if deep:
        rows, columns = (slice(None, None, max(1, side // SAMPLE)) for side in pixels.shape[:2])
        ends = np.percentile(pixels[rows, columns], [0.5, 99.5], method="nearest")
        low, high = (int(value) for value in ends)
    return Values(deep, lowest, highest, low, high, bool((pixels == pixels[0, 0]).all()))


def used(values: Values, depth: Depth | None) -> int:
    """How many of the 256 grey levels the usual values of an image span."""
    levels = _levels(depth or FULL) if values.deep else np.arange(256)
    return int(levels[values.high]) - int(levels[values.low]) + 1


def one_level(values: Values, depth: Depth | None) -> bool:
    """Whether all pixels of an image are equal, or become equal when they are scaled."""
    if not values.deep:
        return values.same
    levels = _levels(depth or FULL)
    return values.same or bool(levels[values.lowest] == levels[values.highest])


def scale(pixels: Pixels, depth: Depth | None) -> NDArray[np.uint8]:
    """An image as RGB (H, W, 3), uint8; an image of 8 bits is returned unchanged.

    Raises:
        ValueError: a value is larger than `depth.high`, and `depth` does not clip.
    """
    if pixels.dtype == np.uint8:
        return cast(NDArray[np.uint8], pixels)
    depth = depth or FULL
    highest = int(pixels.max())
    if highest > depth.high and not depth.clip:
        raise ValueError(f"values up to {highest}; allowed: 0 to {depth.high}, the range of its dataset")
    levels = _levels(depth)[pixels]
    return np.repeat(levels[..., None], 3, axis=2) if levels.ndim == 2 else levels


@lru_cache(maxsize=8)
def _levels(depth: Depth) -> NDArray[np.uint8]:
    """The grey level of every value."""
    values = np.arange(LARGEST + 1).clip(depth.low, depth.high) - depth.low
    return (values * 256 // (depth.high - depth.low + 1)).astype(np.uint8)
