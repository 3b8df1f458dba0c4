"""The values in a mask: classes, colours and void."""

from collections.abc import Mapping

import numpy as np

VOID = 255
"""Class of the pixels that every loss and every score ignores."""

UNLABELLED = 254
"""Class of the pixels that only a teacher labels; classes are 0 to 253."""

COLOUR = 256
"""A label of this value or more is a colour: COLOUR + 0xRRGGBB."""


def label_table(labels: Mapping[int, int]) -> np.ndarray:
    """`labels` as an array: value in a mask → class index; values without a class are void.

    It has 256 entries, or more if the labels are colours.
    """
    size = COLOUR + 2**24 if max(labels) >= COLOUR else COLOUR
    table = np.full(size, VOID, dtype=np.uint8)
    table[list(labels)] = list(labels.values())
    return table
