"""Warnings about a dataset: facts that do not stop a training, but that you should know before it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from attnfd.data.labels import VOID
from attnfd.data.prepared import SCORED, Card, per_cent
from attnfd.readers.base import original, twins
from attnfd.scan.files import Finding
from attnfd.scan.likeness import lookalikes
from attnfd.scan.trainable import listed

DARK = 32
"""An image is dark if all its values are below this."""


def doubts(card: Card, findings: Sequence[Finding]) -> list[str]:
    """The warnings of a dataset; equal files give equal warnings, in the same order."""
    splits: dict[str, list[Finding]] = {name: [] for name in card.splits}
    for finding in findings:
        splits[finding.row["split"]].append(finding)
    learned = [finding for name, found in splits.items() if name not in SCORED for finding in found]
    scored = [name for name in SCORED if name in splits]
    return [
        *_classes(card),
        *_void(card),
        *(line for name, found in splits.items() for line in _light(name, found)),
        *_same_names(findings),
        *(line for name in scored for line in _copies(learned, name, splits[name])),
        *(line for name in scored for line in _alike(learned, name, splits[name])),
    ]


def _classes(card: Card) -> Iterator[str]:
    have = {
        name: {key for key, pixels in split.pixels.items() if pixels}
        for name, split in card.splits.items()
        if split.has_masks
    }
    anywhere = set[str]().union(*have.values())
    trained = set[str]().union(*(found for name, found in have.items() if name not in SCORED))
    if absent := [name for name in card.classes if name not in anywhere]:
        yield f"No mask has a pixel of {listed(absent)}."
    if unlearned := [name for name in card.classes if name in anywhere - trained]:
        only = [name for name in SCORED if have.get(name, set()) & set(unlearned)]
        where = f"split {only[0]} has" if len(only) == 1 else f"splits {' and '.join(only)} have"
        yield f"Only the {where} pixels of {listed(unlearned)}. No network is trained on them."
    for split, found in have.items():
        wanted = anywhere if split in SCORED else trained
        if lacking := [name for name in card.classes if name in wanted - found]:
            yield f"The split {split} has no pixel of {listed(lacking)}."


def _void(card: Card) -> Iterator[str]:
    for name, split in card.splits.items():
        share = split.shares()["void"]
        if share > 0.5:
            yield f"Of the pixels of the split {name}, {per_cent(share)} % are void: they are ignored."


def _light(name: str, found: Sequence[Finding]) -> Iterator[str]:
    values = [finding.values for finding in found if finding.values is not None]
    highest = max((each.highest for each in values), default=VOID)
    if highest < DARK and not any(each.deep for each in values):
        yield f"Every image of the split {name} ({len(found)}) is dark: no value is above {highest} of 255."


def _same_names(findings: Sequence[Finding]) -> Iterator[str]:
    """Images whose names would be the same on many disks of Windows and macOS."""
    same = twins(sorted(_images(findings)))
    if same:
        count = sum(map(len, same))
        yield (
            f"Names that differ only in capitals, or in how an accent is stored: {count} images, such as "
            f"{' and '.join(map(str, same[0][:2]))}. On a disk that ignores this, they are one file."
        )


def _copies(learned: Sequence[Finding], split: str, scored: Sequence[Finding]) -> Iterator[str]:
    """Copies of one original in two splits, which lists of images can cause."""
    originals = {original(path): path for path in _images(learned)}
    copies = [path for path in _images(scored) if original(path) in originals]
    if copies:
        first = originals[original(copies[0])]
        yield (
            f"Copies of the same original as a training image, by name: {len(copies)} of the {len(scored)} "
            f"images in the split {split}, such as {copies[0]} (and {first}). The scores will be too high."
        )


def _alike(learned: Sequence[Finding], split: str, scored: Sequence[Finding]) -> Iterator[str]:
    found = lookalikes(*(np.stack([finding.looks for finding in side]) for side in (scored, learned)))
    if found:
        pairs = " and ".join(
            f"{scored[row].row['image']} (like {learned[column].row['image']})" for row, column in found[:2]
        )
        yield (
            f"Almost equal to a training image: {len(found)} of the {len(scored)} images in the split "
            f"{split}, such as {pairs}. Put frames of one video, and copies, into one split."
        )


def _images(findings: Sequence[Finding]) -> list[Path]:
    return [Path(finding.row["image"]) for finding in findings]
