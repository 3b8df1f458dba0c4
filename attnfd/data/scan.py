"""Every image and mask of a dataset, looked into once: what `prepare` knows of them."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attnfd.data.images import UNREADABLE, decode_image, decode_mask, is_turned, label_table
from attnfd.data.prepared import COLUMNS, SPLITS
from attnfd.datasets.base import COLOUR, VOID, Pair, Reader
from attnfd.errors import UserError

SHOWN = 20
"""Faults that a message lists."""

SHOWN_LABELS = 8
"""Unknown labels that a fault names."""


@dataclass
class Finding:
    """What a pair turned out to be: a row of the index, and what is wrong with it."""

    row: dict[str, Any]
    faults: list[str] = field(default_factory=list)


def scan(reader: Reader, pairs: Mapping[str, Iterable[Pair]]) -> Iterator[Finding]:
    """Look into every pair, in parallel threads, yielding in order."""
    table = label_table(reader.labels)
    jobs = [(split, pair) for split, listed in pairs.items() for pair in listed]
    with ThreadPoolExecutor() as pool:
        yield from pool.map(lambda job: _inspect(reader, table, *job), jobs)


def to_index(findings: Iterable[Finding], reader: Reader, name: str) -> pd.DataFrame:
    """The index of a dataset without fault, sorted by split and id.

    Raises:
        UserError: anything is wrong; the message lists every faulty file, up to 20, one per line.
    """
    found = list(findings)
    rows = pd.DataFrame([finding.row for finding in found], columns=[*COLUMNS, *reader.classes])
    faults = [fault for finding in found for fault in finding.faults]
    faults += [*_empty(rows), *_repeated(rows), *_leaked(rows)]
    if faults:
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        lines = "".join(f"\n  {line}" for line in [*faults[:SHOWN], *more])
        raise UserError(
            f"{name}: faults in {reader.root} ({len(faults)}); mend or unlist these files:{lines}"
        )
    return rows.sort_values(["split", "id"], ignore_index=True)


def _inspect(reader: Reader, table: np.ndarray, split: str, pair: Pair) -> Finding:
    row: dict[str, Any] = {
        "split": split,
        "id": _encodable(pair.image.with_suffix("")),
        "image": _encodable(pair.image),
        "mask": _encodable(pair.mask),
    }
    finding = Finding(row)
    for path in pair:
        if path.as_posix() != _encodable(path):
            finding.faults.append(f"{_encodable(path)}: name is no UTF-8; rename the file")
            return finding
    image = _decoded(reader.root, pair.image, "image", decode_image, finding)
    decode = partial(decode_mask, colours=len(table) > COLOUR)
    mask = _decoded(reader.root, pair.mask, "mask", decode, finding)
    if image is not None:
        row["height"], row["width"] = image.shape[:2]
    if mask is not None:
        unknown = sorted(set(np.unique(mask).tolist()) - set(reader.labels))
        if unknown:
            finding.faults.append(f"{pair.mask}: found {_listed(unknown)}; allowed: {_names(reader.labels)}")
        counts = np.bincount(table[mask].ravel(), minlength=256)
        row.update(zip(reader.classes, counts.tolist(), strict=False))
        row["void"] = int(counts[VOID])
    if image is not None and mask is not None and image.shape[:2] != mask.shape:
        sizes = f"{mask.shape[0]}×{mask.shape[1]}, its image {image.shape[0]}×{image.shape[1]}"
        turned = (
            " after its EXIF orientation; turn the mask likewise"
            if is_turned(reader.root / pair.image)
            else ""
        )
        finding.faults.append(f"{pair.mask}: height×width is {sizes}{turned}; allowed: the same")
    return finding


def _encodable(path: Path) -> str:
    """A path as text that can be written, also if its name is no UTF-8."""
    return path.as_posix().encode(errors="backslashreplace").decode()


def _listed(unknown: list[int]) -> str:
    """Labels without a class, cut to a few: a mask that was scaled or saved as JPEG has thousands."""
    more = f" and {len(unknown) - SHOWN_LABELS} more" if len(unknown) > SHOWN_LABELS else ""
    return f"labels [{_names(unknown[:SHOWN_LABELS])}]{more}"


def _names(labels: Iterable[int]) -> str:
    """Labels as their dataset's author wrote them: numbers, or colours as #RRGGBB."""
    return ", ".join(str(label) if label < COLOUR else f"#{label - COLOUR:06x}" for label in labels)


def _decoded(
    root: Path, path: Path, kind: str, decode: Callable[[BytesIO], np.ndarray], finding: Finding
) -> np.ndarray | None:
    """Decode a file and enter its size and hash into the row."""
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


def _empty(rows: pd.DataFrame) -> list[str]:
    return [
        f"split {split}: found no image; at least one is needed"
        for split in SPLITS
        if split not in set(rows["split"])
    ]


def _repeated(rows: pd.DataFrame) -> list[str]:
    return [
        f"{name}: listed {len(splits)} times ({', '.join(splits)}); allowed: once"
        for name, splits in rows.groupby("id")["split"]
        if len(splits) > 1
    ]


def _leaked(rows: pd.DataFrame) -> list[str]:
    val = rows[rows["split"] == "val"]
    train = rows[rows["split"] != "val"]
    # An image that is listed in both splits has been named already.
    both = val[~val["id"].isin(train["id"])].merge(
        train.dropna(subset="image_sha256").drop_duplicates("image_sha256"),
        on="image_sha256",
        suffixes=("_val", "_train"),
    )
    return [
        f"{leak.image_val}: same content as {leak.image_train}, so validation would see a training image"
        for leak in both.itertuples()
    ]
