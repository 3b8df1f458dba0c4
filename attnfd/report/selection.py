"""The images of a split that a report shows: typical ones, those that AttnFD changes most, and a failure."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

TYPICAL, GAINS, LOSSES, WORST = "typical", "largest gain", "largest loss", "lowest mIoU"


class Chosen(NamedTuple):
    """An image, and why it was chosen."""

    id: str
    reason: str


def choose(ours: pd.Series, none: pd.Series | None) -> list[Chosen]:
    """Two typical images, two with the largest gain, one with the largest loss, one with the lowest score.

    No image is chosen twice. Of equal images, the first one is chosen.

    Args:
        ours: mIoU of a method on each image, by id.
        none: the same for the undistilled student; None leaves out gains and losses.

    Example:
        >>> ours = pd.Series({"a": 0.5, "b": 0.1, "c": 0.9, "d": 0.6, "e": 0.7, "f": 0.8})
        >>> none = pd.Series({"a": 0.4, "b": 0.3, "c": 0.4, "d": 0.6, "e": 0.7, "f": 0.6})
        >>> [f"{id} {reason}" for id, reason in choose(ours, none)]
        ['d typical', 'e typical', 'c largest gain', 'f largest gain', 'b largest loss', 'a lowest mIoU']
    """
    chosen: dict[str, str] = {}
    for ranked, count, reason in _rankings(ours, none):
        left = [
            str(id) for id in ranked.sort_values(ascending=False, kind="stable").index if id not in chosen
        ]
        chosen |= dict.fromkeys(left[:count], reason)
    return [Chosen(*item) for item in chosen.items()]


def _rankings(ours: pd.Series, none: pd.Series | None) -> Iterator[tuple[pd.Series, int, str]]:
    """The values that rank the images, how many images are chosen, and why."""
    yield -(ours - ours.median()).abs(), 2, TYPICAL
    if none is not None:
        gain = ours - none
        yield gain[gain > 0], 2, GAINS
        yield -gain[gain < 0], 1, LOSSES
    yield -ours, 1, WORST
