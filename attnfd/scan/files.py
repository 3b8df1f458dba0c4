"""Reads every image and mask of a dataset once, and collects what `prepare` needs of them."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from attnfd.data.depth import Values, measure
from attnfd.data.images import (
    UNREADABLE,
    Mask,
    decode_mask,
    drops_a_band,
    orientation,
    read_labels,
    read_pixels,
)
from attnfd.data.labels import COLOUR, VOID, label_table
from attnfd.readers.base import Pair, Reader
from attnfd.scan import likeness

SHOWN_LABELS = 8
"""How many unknown labels a fault names."""
SHOWN_ALLOWED = 16
"""How many allowed labels a fault names; a range of consecutive labels counts once."""

OFF = 2
"""The most by which rounding changes a channel of a colour that mixes two others."""

FIRST_ON_ITS_SIDE = 5
"""EXIF orientations of this value or more swap height and width."""

ReadT = TypeVar("ReadT")


@dataclass
class Finding:
    """The result for a pair: a row of the index, its faults, and what to compare with other pairs.

    Attributes:
        values: the values of the image, if it can be read.
        looks: the image's `likeness.differences`.
        maybe_turned: the image has an EXIF orientation, and the mask's size fits with and without it.
        drops_a_band: the image has a band that is not read.
        labels: the values that occur in the mask, in order.
        palette: the colour, 0xRRGGBB, of each label in an index mask.
        bilevel: the mask has one bit.
        colours: some colours of a mask that should have numbers.
    """

    row: dict[str, Any]
    faults: list[str] = field(default_factory=list)
    values: Values | None = None
    looks: NDArray[np.int16] = field(default_factory=lambda: np.empty(0, np.int16))
    maybe_turned: bool = False
    drops_a_band: bool = False
    labels: tuple[int, ...] = ()
    palette: Mapping[int, int] = field(default_factory=dict)
    bilevel: bool = False
    colours: list[list[int]] = field(default_factory=list)


def scan(reader: Reader, pairs: Mapping[str, Iterable[Pair]]) -> Iterator[Finding]:
    """Inspect every pair in parallel threads; yields in order."""
    table = label_table(reader.labels)
    jobs = [(split, pair) for split, listed in pairs.items() for pair in listed]
    with ThreadPoolExecutor() as pool:
        yield from pool.map(lambda job: _inspect(reader, table, *job), jobs)


def _inspect(reader: Reader, table: np.ndarray, split: str, pair: Pair) -> Finding:
    row: dict[str, Any] = {
        "split": split,
        "id": _encodable(pair.image.with_suffix("")),
        "image": _encodable(pair.image),
        "mask": "" if pair.mask is None else _encodable(pair.mask),
    }
    finding = Finding(row)
    for path in filter(None, pair):
        if path.as_posix() != _encodable(path):
            finding.faults.append(f"{_encodable(path)}: name is not UTF-8; rename the file")
            return finding
    image = _decoded(reader.root, pair.image, "image", _measured, finding)
    mask = None
    if pair.mask is None:
        row |= {"mask_bytes": 0, "mask_sha256": "", "void": 0, **dict.fromkeys(reader.classes, 0)}
    else:
        mask = _decoded(reader.root, pair.mask, "mask", partial(read_labels, table=table), finding)
    if image is not None:
        row["height"], row["width"] = image.size
        finding.values, finding.looks = image.values, image.looks
        finding.drops_a_band = image.drops_a_band
    if mask is not None:
        _count(reader, table, mask, finding)
    elif pair.mask is not None and reader.own_classes and len(table) == COLOUR:
        finding.colours = _colours(reader.root / pair.mask)
    if image is not None and mask is not None:
        _compare_sizes(image, mask, finding)
    return finding


class Measured(NamedTuple):
    """An image's height and width when upright, its EXIF orientation, its values, its looks, and whether it
    has a band that is not read."""

    size: tuple[int, int]
    orientation: int
    values: Values
    looks: NDArray[np.int16]
    drops_a_band: bool


def _measured(file: BytesIO) -> Measured:
    pixels = read_pixels(file)
    size = pixels.shape[0], pixels.shape[1]
    return Measured(
        size, orientation(file), measure(pixels), likeness.differences(pixels), drops_a_band(file)
    )


def _count(reader: Reader, table: np.ndarray, mask: Mask, finding: Finding) -> None:
    """Count the pixels of every class into the row, and check that every label has a class."""
    found = finding.labels = tuple(np.unique(mask.values).tolist())
    unknown = [label for label in found if label not in reader.labels]
    if unknown and not reader.rest_is_void:
        why = "; a mask of one bit has 0 and 1" if mask.bilevel else _why(unknown, reader.labels)
        finding.faults.append(
            f"{finding.row['mask']}: found {_listed(unknown)}; allowed: {spelled(reader.labels)}{why}"
        )
    counts = np.bincount(table[mask.values].ravel(), minlength=256)
    finding.row.update(zip(reader.classes, counts.tolist(), strict=False))
    finding.row["void"] = int(counts[VOID])
    finding.bilevel = mask.bilevel
    if len(table) == COLOUR:
        colours = np.array(mask.palette, dtype=np.int64).reshape(-1, 3) @ (1 << 16, 1 << 8, 1)
        finding.palette = {label: int(colours[label]) for label in found if label < len(colours)}


def _compare_sizes(image: Measured, mask: Mask, finding: Finding) -> None:
    """Check that a mask has its image's size, and note whether this proves that both have one orientation."""
    (height, width), there = image.size, mask.values.shape
    turned = image.orientation != 1
    if image.size != there:
        sizes = f"{there[0]}×{there[1]}, its image {height}×{width}"
        hint = " after its EXIF orientation; turn the mask in the same way" if turned else ""
        finding.faults.append(f"{finding.row['mask']}: height×width is {sizes}{hint}; allowed: the same")
    fits_both = image.orientation < FIRST_ON_ITS_SIDE or height == width
    finding.maybe_turned = turned and fits_both and not mask.turned


def _encodable(path: Path) -> str:
    """A path as text that can be written, even if its name is not UTF-8."""
    return path.as_posix().encode(errors="backslashreplace").decode()


def _listed(unknown: list[int]) -> str:
    """Some labels without a class; a mask that was scaled or saved as JPEG has thousands."""
    more = f" and {len(unknown) - SHOWN_LABELS} more" if len(unknown) > SHOWN_LABELS else ""
    return f"labels [{_names(unknown[:SHOWN_LABELS])}]{more}"


def _why(unknown: list[int], labels: Iterable[int]) -> str:
    """The likely cause of several unknown labels in a mask, as a question."""
    if 1 < len(unknown) == unknown[-1] - unknown[0] + 1:
        return "; are the values numbers of the objects in an image (instances)?"
    if len(unknown) > SHOWN_LABELS or (len(unknown) > 1 and _are_between(unknown, labels)):
        return "; was the mask resized, smoothed or saved as JPEG?"
    return ""


def _are_between(unknown: list[int], labels: Iterable[int]) -> bool:
    """Whether each unknown label is a mix of two known ones, as smoothing makes where two areas meet."""
    known = np.array([_channels(label) for label in sorted(labels)])
    first, second = (known[rows] for rows in np.triu_indices(len(known), 1))
    step = second - first
    for label in unknown:
        away = np.array(_channels(label)) - first
        share = (away * step).sum(1) / (step**2).sum(1)
        off = np.abs(away - share[:, None] * step).max(1)
        if not ((share > 0) & (share < 1) & (off <= OFF)).any():
            return False
    return True


def _channels(label: int) -> tuple[int, ...]:
    return (label,) if label < COLOUR else tuple(int(label - COLOUR).to_bytes(3, "big"))


def spelled(labels: Iterable[int]) -> str:
    """Labels in order, with ranges such as `0 to 149, 255`, and cut if there are too many."""
    runs: list[list[int]] = []
    for label in sorted(labels):
        if runs and label < COLOUR and label == runs[-1][-1] + 1:
            runs[-1].append(label)
        else:
            runs.append([label])
    parts = [_names(run) if len(run) < 3 else f"{run[0]} to {run[-1]}" for run in runs]
    more = f" and {len(parts) - SHOWN_ALLOWED} more" if len(parts) > SHOWN_ALLOWED else ""
    return ", ".join(parts[:SHOWN_ALLOWED]) + more


def _names(labels: Iterable[int]) -> str:
    """Labels as their dataset's author wrote them: numbers, or colours as #RRGGBB."""
    return ", ".join(str(label) if label < COLOUR else f"#{label - COLOUR:06x}" for label in labels)


def _colours(mask: Path) -> list[list[int]]:
    """The first two colours of a mask that cannot be read as numbers; none if it has no colours either."""
    try:
        found = np.unique(decode_mask(mask, colours=True))[:2] - COLOUR
    except UNREADABLE:
        return []
    return [list(int(colour).to_bytes(3, "big")) for colour in found]


def _decoded(
    root: Path, path: Path, kind: str, decode: Callable[[BytesIO], ReadT], finding: Finding
) -> ReadT | None:
    """Decode a file, and write its size and hash into the row."""
    try:
        data = (root / path).read_bytes()
    except UNREADABLE as error:
        finding.faults.append(f"{path}: cannot be read ({getattr(error, 'strerror', error)})")
        return None
    finding.row[f"{kind}_bytes"] = len(data)
    finding.row[f"{kind}_sha256"] = hashlib.sha256(data).hexdigest()
    try:
        return decode(BytesIO(data))
    except UNREADABLE as error:
        finding.faults.append(f"{path}: no readable {kind} ({' '.join(str(error).split())})")
        return None
