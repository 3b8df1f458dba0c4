"""The index and the card of a dataset, and what makes a dataset unusable as a whole."""

import hashlib
from collections.abc import Iterable

import pandas as pd

from attnfd.config.schema import Prepare
from attnfd.data.depth import Depth
from attnfd.data.labels import VOID
from attnfd.data.prepared import COLUMNS, SPLITS, Card, Split, to_csv
from attnfd.errors import UserError
from attnfd.readers.base import Reader
from attnfd.scan.files import Finding

SHOWN = 20
"""Faults that a message lists."""


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


def describe(name: str, settings: Prepare, reader: Reader, index: pd.DataFrame, depth: Depth | None) -> Card:
    """The card of an index."""
    return Card(
        name=name,
        reader=settings.reader,
        classes=reader.classes,
        palette=reader.palette,
        void=VOID,
        labels=dict(reader.labels),
        depth=depth,
        splits={
            split: _describe_split(index[index["split"] == split], reader.classes)
            for split in index["split"].unique()
        },
        sha256=hashlib.sha256(to_csv(index)).hexdigest(),
    )


def _describe_split(rows: pd.DataFrame, classes: tuple[str, ...]) -> Split:
    return Split(
        images=len(rows),
        height=(int(rows["height"].min()), int(rows["height"].max())),
        width=(int(rows["width"].min()), int(rows["width"].max())),
        void=int(rows["void"].sum()),
        pixels={name: int(rows[name].sum()) for name in classes},
    )
