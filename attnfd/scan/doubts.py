"""What does not stop a training, but what you should know before it: a warning each."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from attnfd.data.labels import VOID
from attnfd.data.prepared import Card, per_cent
from attnfd.readers.base import original
from attnfd.scan.files import Finding
from attnfd.scan.likeness import lookalikes
from attnfd.scan.trainable import listed

DARK = 32
"""An image without a value from here on is dark."""


def doubts(card: Card, findings: Sequence[Finding]) -> list[str]:
    """The warnings of a dataset; equal files give equal ones, in the same order."""
    splits: dict[str, list[Finding]] = {name: [] for name in card.splits}
    for finding in findings:
        splits[finding.row["split"]].append(finding)
    learned = [finding for name, found in splits.items() if name != "val" for finding in found]
    return [
        *_classes(card),
        *_void(card),
        *(line for name, found in splits.items() for line in _light(name, found)),
        *_copies(learned, splits["val"]),
        *_alike(learned, splits["val"]),
    ]


def _classes(card: Card) -> Iterator[str]:
    have = {
        name: {key for key, pixels in split.pixels.items() if pixels}
        for name, split in card.splits.items()
        if split.has_masks
    }
    anywhere = set[str]().union(*have.values())
    trained = set[str]().union(*(found for name, found in have.items() if name != "val"))
    if absent := [name for name in card.classes if name not in anywhere]:
        yield f"No mask has a pixel of {listed(absent)}."
    if unlearned := [name for name in card.classes if name in anywhere - trained]:
        yield f"Only the split val has pixels of {listed(unlearned)}: no training shows them to a network."
    for split, found in have.items():
        wanted = anywhere if split == "val" else trained
        if lacking := [name for name in card.classes if name in wanted - found]:
            yield f"The split {split} has no pixel of {listed(lacking)}."


def _void(card: Card) -> Iterator[str]:
    for name, split in card.splits.items():
        share = split.shares()["void"]
        if share > 0.5:
            yield f"Of the pixels of the split {name}, {per_cent(share)} % are void: they count nowhere."


def _light(name: str, found: Sequence[Finding]) -> Iterator[str]:
    values = [finding.values for finding in found if finding.values is not None]
    highest = max((each.highest for each in values), default=VOID)
    if highest < DARK and not any(each.deep for each in values):
        yield f"Every image of the split {name} ({len(found)}) is dark: no value is above {highest} of 255."


def _copies(learned: Sequence[Finding], val: Sequence[Finding]) -> Iterator[str]:
    """Copies of one original in two splits, which a list of images can bring about."""
    originals = {original(path): path for path in _images(learned)}
    copies = [path for path in _images(val) if original(path) in originals]
    if copies:
        first = originals[original(copies[0])]
        yield (
            f"Copies of a training image's original, by name: {len(copies)} of the {len(val)} images in the "
            f"split val, such as {copies[0]} (beside {first}). The scores will be too good."
        )


def _alike(learned: Sequence[Finding], val: Sequence[Finding]) -> Iterator[str]:
    found = lookalikes(*(np.stack([finding.looks for finding in side]) for side in (val, learned)))
    if found:
        pairs = " and ".join(
            f"{val[row].row['image']} (like {learned[column].row['image']})" for row, column in found[:2]
        )
        yield (
            f"Almost like a training image: {len(found)} of the {len(val)} images in the split val, such as "
            f"{pairs}. Put frames of one video, and copies, into one split."
        )


def _images(findings: Sequence[Finding]) -> list[Path]:
    return [Path(finding.row["image"]) for finding in findings]
