"""Roboflow's "Semantic Segmentation Masks": masks beside their images, and a table of their values."""

import csv
from pathlib import Path

from attnfd.data.images import IMAGES, MASKS
from attnfd.errors import UserError
from attnfd.imports.base import SPLITS, Export, Importer, by_name, pair, to_void
from attnfd.imports.parts.files import read_text

NAMES = "_classes.csv"
SUFFIX = "_mask"


class Roboflow(Importer):
    """`train/x.jpg`, `train/x_mask.png` and `train/_classes.csv`; also for `valid` and `test`."""

    about = (
        "Roboflow, Semantic Segmentation Masks: train/, valid/, test/ with x.jpg, x_mask.png, _classes.csv"
    )

    def fits(self, root: Path) -> bool:
        return bool(_tables(root))

    def read(self, root: Path) -> Export:
        tables = {table: _classes(table) for table in _tables(root)}
        if not tables:
            raise UserError(f"{root}: found no train/{NAMES}")
        first, names = next(iter(tables.items()))
        export = Export(names)
        export.faults += [
            f"{first} and {table}: name different classes; they are two datasets: import them separately"
            for table, other in tables.items()
            if other != names
        ]
        for table in tables:
            home = table.parent
            masks = {
                name.removesuffix(SUFFIX): file
                for name, file in by_name(home, MASKS).items()
                if name.endswith(SUFFIX)
            }
            taken = set(masks.values())
            images = {name: file for name, file in by_name(home, IMAGES).items() if file not in taken}
            labels = to_void({value: value for value in names})
            prefix = "" if home == root else f"{home.name}/"
            pair(export, images, masks, labels, SPLITS.get(home.name), prefix)
        return export


def _tables(root: Path) -> list[Path]:
    """The table of every split, or the only table."""
    order = ("train", "valid", "val", "test", ".")
    return [root / name / NAMES for name in order if (root / name / NAMES).is_file()]


def _classes(table: Path) -> dict[int, str]:
    """The class of every value, from lines of `value, class` below a heading."""
    rows = [row for row in csv.reader(read_text(table).splitlines()) if row]
    try:
        names = {int(row[0]): row[1].strip() for row in rows[1:]}
    except (ValueError, IndexError):
        raise UserError(f"{table}: allowed: a heading, then lines of a pixel value and its class") from None
    empty = [value for value, name in names.items() if not name]
    if empty:
        raise UserError(f"{table}: value {empty[0]} has no name; give it one")
    return names
