"""The index and the card of a dataset, and the faults that make a whole dataset unusable."""

import hashlib
from collections.abc import Iterable, Sequence

import pandas as pd

from attnfd.config.schema import Prepare
from attnfd.data.depth import Depth
from attnfd.data.labels import VOID
from attnfd.data.prepared import COLUMNS, SCORED, SPLITS, Card, Split, to_csv
from attnfd.errors import UserError
from attnfd.readers.base import Reader
from attnfd.scan.files import Finding

SHOWN = 20
"""How many faults a message lists."""


def to_index(
    findings: Sequence[Finding], reader: Reader, name: str, splits: Iterable[str] = ()
) -> pd.DataFrame:
    """The index of a dataset without faults, sorted by split and id.

    Args:
        splits: the splits that the reader found; each needs an image, and so does each of `SPLITS`.

    Raises:
        UserError: a split is empty, all masks have colours but the classes have numbers, or files have
            faults; the message lists up to 20 faults, one per line.
    """
    if findings and all(finding.colours for finding in findings):
        colours = " and ".join(map(str, findings[0].colours))
        raise UserError(
            f"{name}: the masks in {reader.root} have colours, such as {colours}; the classes have numbers: "
            "give each its colour in prepare.classes, such as {ground: [0, 0, 0], cat: [200, 40, 40]}"
        )
    rows = pd.DataFrame([finding.row for finding in findings], columns=[*COLUMNS, *reader.classes])
    faults = [fault for finding in findings for fault in finding.faults]
    faults += [*_repeated(rows), *_leaked(rows)]
    if faults:
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        lines = "".join(f"\n  {line}" for line in [*faults[:SHOWN], *more])
        raise UserError(
            f"{name}: faults in {reader.root} ({len(faults)}); fix these files or leave them out:{lines}"
        )
    for split in dict.fromkeys((*SPLITS, *splits)):
        if split not in set(rows["split"]):
            raise UserError(
                f"{name}: split {split}: found no image among the {len(rows)} of {reader.root}; allowed: one "
                f"or more: list some for it, or add images, {_without(split)}"
            )
    return rows.sort_values(["split", "id"], ignore_index=True)


def _without(split: str) -> str:
    if split in SPLITS:
        return "or change the share that validates"
    return f"or remove the split: its list, or prepare.{split} in the recipe"


def _repeated(rows: pd.DataFrame) -> list[str]:
    return [
        f"{name}: listed {len(splits)} times ({', '.join(splits)}); allowed: once"
        for name, splits in rows.groupby("id")["split"]
        if len(splits) > 1
    ]


def _leaked(rows: pd.DataFrame) -> list[str]:
    """Images of `val` with the content of a training image, and of `test` with that of any other split."""
    before = {"val": rows[~rows["split"].isin(SCORED)], "test": rows[rows["split"] != "test"]}
    leaks = []
    for split, others in before.items():
        scored = rows[rows["split"] == split]
        # `_repeated` reports images that are listed in both splits.
        both = scored[~scored["id"].isin(others["id"])].merge(
            others.dropna(subset="image_sha256").drop_duplicates("image_sha256"),
            on="image_sha256",
            suffixes=("_scored", "_other"),
        )
        seen = "validation" if split == "val" else "the test"
        leaks += [
            f"{leak.image_scored}: same content as {leak.image_other}, so {seen} would see a "
            f"{'validation' if leak.split_other == 'val' else 'training'} image"
            for leak in both.itertuples()
        ]
    return leaks


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
