"""Datasets of the Hugging Face Hub: parquet files with the images inside."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from attnfd.data.labels import VOID
from attnfd.errors import UserError
from attnfd.imports.base import SPLITS, Export, Importer, Sample, to_void
from attnfd.imports.parts.canvas import Canvas, Size, of_array
from attnfd.imports.parts.files import INSTALL, decoded, read_json
from attnfd.readers.base import walk

NAMES = ("id2label.json", "label2id.json")
IMAGE_COLUMNS = ("image", "pixel_values", "img")
MASK_COLUMNS = ("label", "mask", "annotation", "labels", "semantic_segmentation", "segmentation")
"""Possible names of these columns, the usual ones first."""

LOCK = Lock()


class HuggingFace(Importer):
    """`data/train-00000-of-00001.parquet` with a column of images and one of masks, and `id2label.json`."""

    about = "Hugging Face: parquet files with images and masks inside, and id2label.json beside them"

    def fits(self, root: Path) -> bool:
        return bool(_files(root))

    def read(self, root: Path) -> Export:
        files = _files(root)
        if not files:
            raise UserError(f"{root}: found no .parquet file")
        names = _names(root)
        void = {number for number, name in names.items() if name.lower() in ("void", "ignore")}
        labels = to_void({number: VOID if number in void else number for number in names})
        export = Export({number: name for number, name in names.items() if number not in void})
        counts: Counter[str] = Counter()
        for file in files:
            split = SPLITS.get(re.split(r"[-.]", file.name)[0].lower()) or SPLITS.get(
                file.parent.name.lower()
            )
            home = split or "images"
            for number, (group, row) in enumerate(_rows(file)):
                image, mask = (partial(_cell, file, group, row, column) for column in (0, 1))
                draw = partial(_draw, mask, labels)
                name = f"{home}/{counts[home]:06}"
                export.samples.append(Sample(name, image, split, draw, f"{file}, row {number + 1}"))
                counts[home] += 1
        return export


def _draw(mask: Callable[[], bytes], labels: dict[int, int], _: Size) -> Canvas:
    picture = decoded(mask())
    if picture.mode not in ("1", "L", "P", "I", "I;16"):
        raise ValueError(f"its mask has the mode {picture.mode}; allowed: one channel")
    return of_array(np.array(picture).astype(np.int64), labels)


def _files(root: Path) -> list[Path]:
    return sorted(file for file in walk(root) if file.suffix == ".parquet") if root.is_dir() else []


def _names(root: Path) -> dict[int, str]:
    file = next((root / name for name in NAMES if (root / name).is_file()), None)
    if file is None:
        raise UserError(
            f"{root / NAMES[0]}: not found; write what the values in the masks mean into it, such as "
            '{"0": "road", "1": "car"}'
        )
    content: Any = read_json(file)
    try:
        pairs = content.items()
        names = (
            {int(key): str(value) for key, value in pairs}
            if file.name == NAMES[0]
            else {int(value): str(key) for key, value in pairs}
        )
    except (AttributeError, TypeError, ValueError):
        raise UserError(f'{file}: allowed: numbers and names, such as {{"0": "road", "1": "car"}}') from None
    return names


def _rows(file: Path) -> Iterator[tuple[int, int]]:
    """The row group of every row of a file, and its position in the group."""
    opened = _opened(file)
    _columns(file, opened.schema_arrow.names)
    for group in range(opened.num_row_groups):
        for row in range(opened.metadata.row_group(group).num_rows):
            yield group, row


def _cell(file: Path, group: int, row: int, column: int) -> bytes:
    """The bytes of a row: `column` 0 is the image, 1 the mask."""
    with LOCK:
        found = _group(file, group)[column][row]
    if not found or not found.get("bytes"):
        raise ValueError("is empty; download the dataset with its images inside")
    return found["bytes"]


@lru_cache(maxsize=2)
def _group(file: Path, group: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Images and masks of one row group, so that the whole file need not be in memory."""
    opened = _opened(file)
    image, mask = _columns(file, opened.schema_arrow.names)
    table = opened.read_row_group(group, columns=[image, mask])
    return table.column(image).to_pylist(), table.column(mask).to_pylist()


def _columns(file: Path, names: Sequence[str]) -> tuple[str, str]:
    """The columns of images and of masks."""
    found = [next((name for name in known if name in names), None) for known in (IMAGE_COLUMNS, MASK_COLUMNS)]
    image, mask = found
    if image is None or mask is None:
        raise UserError(
            f"{file}: found the columns {', '.join(names)}; allowed: one of {', '.join(IMAGE_COLUMNS)}, and "
            f"one of {', '.join(MASK_COLUMNS)}"
        )
    return image, mask


def _opened(file: Path) -> Any:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(f"pyarrow: not installed, and this format needs it; {INSTALL}") from None
    try:
        return ParquetFile(file)
    except ArrowException as error:
        raise UserError(f"{file}: not a readable parquet file ({error})") from None
