"""The images of the reported split that the pictures show."""

from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnfd.data.images import decode_image, read_classes
from attnfd.data.labels import label_table
from attnfd.data.prepared import Prepared


class Examples(NamedTuple):
    """Images of one size: RGB (B, H, W, 3), and their ground truth (B, H, W), 255 = void; both uint8."""

    ids: list[str]
    images: NDArray[np.uint8]
    targets: NDArray[np.uint8]

    def at(self, positions: Sequence[int]) -> "Examples":
        """The examples at some positions."""
        chosen = list(positions)
        return Examples(
            [self.ids[position] for position in chosen], self.images[chosen], self.targets[chosen]
        )


def choose(prepared: Prepared, count: int) -> list[str]:
    """Ids of `count` images of the reported split, spread evenly over the images of the most common size."""
    rows = prepared.split(prepared.reported)
    sizes = list(zip(rows["height"], rows["width"], strict=True))
    commonest = Counter(sizes).most_common(1)[0][0]
    ids = [id for id, size in zip(rows["id"], sizes, strict=True) if size == commonest]
    return [ids[position] for position in evenly(count, len(ids))]


def read(prepared: Prepared, ids: Sequence[str]) -> Examples:
    """Images of one size from the reported split, with ground truth, in the order of `ids`."""
    rows = prepared.split(prepared.reported).set_index("id").loc[list(ids)]
    table = label_table(prepared.card.labels)
    return Examples(
        ids=list(ids),
        images=np.stack(
            [decode_image(file, prepared.card.depth) for file in _files(prepared, rows, "image")]
        ),
        targets=np.stack([read_classes(file, table) for file in _files(prepared, rows, "mask")]),
    )


def _files(prepared: Prepared, rows: pd.DataFrame, kind: str) -> list[BytesIO]:
    return [prepared.read(*file) for file in zip(rows[kind], rows[f"{kind}_sha256"], strict=True)]


def evenly(count: int, total: int) -> list[int]:
    """The middles of `count` equal parts of `total` positions; all positions if there are fewer.

    Example:
        >>> evenly(3, 12)
        [2, 6, 10]
    """
    count = min(count, total)
    return [(2 * part + 1) * total // (2 * count) for part in range(count)]
