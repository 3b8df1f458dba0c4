"""ADE20K in 150 classes (Zhou et al. 2017), as published for the scene parsing challenge of 2016."""

from collections import Counter
from pathlib import Path

from attnfd.data.labels import VOID
from attnfd.errors import UserError
from attnfd.imports.base import SPLITS, Export, Importer, all_masks, by_name, pair
from attnfd.imports.parts.files import read_text

NAMES = "objectInfo150.txt"


class Ade20k(Importer):
    """`images/training/x.jpg`, `annotations/training/x.png`; of the values 0 to 150, 0 is void."""

    about = "ADEChallengeData2016: images/, annotations/, objectInfo150.txt; 0 (other) becomes void"

    def fits(self, root: Path) -> bool:
        return (root / NAMES).is_file()

    def read(self, root: Path) -> Export:
        export = Export(_classes(root / NAMES))
        labels = {0: VOID, **{index + 1: index for index in export.classes}}
        for folder in ("training", "validation"):
            images, masks = by_name(root / "images" / folder), all_masks(root / "annotations" / folder)
            pair(export, images, masks, labels, SPLITS[folder], f"{folder}/")
        return export


def _classes(file: Path) -> dict[int, str]:
    """The first name of every class, or all of its names if another class has the same first name."""
    rows = [line.split("\t") for line in read_text(file).splitlines()[1:] if line.strip()]
    if not rows or any(len(row) < 5 or not row[0].strip().isdecimal() for row in rows):
        raise UserError(f"{file}: allowed: a heading, then lines of Idx, Ratio, Train, Val, Name with tabs")
    names = {int(row[0]) - 1: row[4].strip() for row in rows}
    first = {index: name.split(",")[0].strip() for index, name in names.items()}
    often = Counter(first.values())
    return {index: name if often[name] == 1 else names[index] for index, name in first.items()}
