"""YOLO's polygons (Ultralytics): a text file for every image, a line for every object."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from attnfd.errors import UserError
from attnfd.imports.base import (
    BACKGROUND,
    SPLITS,
    Canvas,
    Export,
    Importer,
    Sample,
    Size,
    area_masks,
    by_name,
    read_text,
    read_yaml,
)

CONFIGS = ("data.yaml", "data.yml", "dataset.yaml")
CLASSES = "classes.txt"


class Yolo(Importer):
    """`data.yaml` with names and splits; `images/…/x.jpg` and `labels/…/x.txt` with `class x y x y …`."""

    about = "YOLO segmentation: data.yaml (or classes.txt), images/ and labels/ with polygons"

    def fits(self, root: Path) -> bool:
        return any((root / name).is_file() for name in (*CONFIGS, CLASSES))

    def read(self, root: Path) -> Export:
        config = next((root / name for name in (*CONFIGS, CLASSES) if (root / name).is_file()), None)
        if config is None:
            raise UserError(f"{root}: found none of {', '.join((*CONFIGS, CLASSES))}")
        content = read_yaml(config) if config.name != CLASSES else {"names": read_text(config).splitlines()}
        names = _names(config, content)
        export = Export(
            {0: BACKGROUND, **{1 + number: name for number, name in names.items()}},
            overlaps="the smaller object",
        )
        for split, folder in _folders(root, content):
            _add(export, root, folder, split, names)
        return export


def _names(config: Path, content: Any) -> dict[int, str]:
    found = content.get("names") if isinstance(content, dict) else None
    names = dict(enumerate(found)) if isinstance(found, list) else found
    if not isinstance(names, dict) or not names:
        raise UserError(
            f"{config}: found no names; allowed: a list of the classes, such as names: [road, car]"
        )
    empty = [number for number, name in names.items() if not str(name).strip()]
    if empty:
        raise UserError(f"{config}: class {empty[0]} has no name; give it one")
    return {int(number): str(name).strip() for number, name in names.items()}


def _folders(root: Path, content: Any) -> Iterator[tuple[str | None, Path]]:
    """Splits and the folders of their images."""
    named = False
    for key in ("train", "val", "valid", "test"):
        for given in _list(content.get(key)):
            path = Path(given)
            # Roboflow writes ../train/images, as seen from another folder.
            tails = [Path(*path.parts[start:]) for start in range(len(path.parts))]
            folder = next((root / tail for tail in tails if (root / tail).is_dir() and tail.parts), None)
            if folder is None:
                raise UserError(f"{root}: the folder {given} of {key} is missing")
            named = True
            yield SPLITS[key], folder
    if not named:
        yield None, root / "images"


def _list(found: Any) -> list[str]:
    return [str(one) for one in (found if isinstance(found, list) else [found] if found else [])]


def _add(export: Export, root: Path, folder: Path, split: str | None, names: dict[int, str]) -> None:
    inside = list(folder.relative_to(root).parts)
    if "images" not in inside:
        export.faults.append(f"{folder}: allowed: a folder with `images` in its path, beside `labels`")
        return
    place = len(inside) - 1 - inside[::-1].index("images")
    home = root.joinpath(*inside[:place], "labels", *inside[place + 1 :])
    images, labels = by_name(folder), by_name(home, (".txt",))
    labels.pop("classes", None)
    prefix = "/".join([*inside[:place], *inside[place + 1 :], ""])
    export.faults += [
        f"{labels[name]}: its image {name} is missing" for name in sorted(labels.keys() - images.keys())
    ]
    bare = sorted(images.keys() - labels.keys())
    if bare:
        export.remarks.append(f"{len(bare)} images without a label file, {images[bare[0]]} for one")
    for name in sorted(images.keys() & labels.keys()):
        draw = partial(_draw, labels[name], names)
        export.samples.append(Sample(prefix + name, images[name], split, draw, str(labels[name])))


def _draw(file: Path, names: dict[int, str], size: Size) -> Canvas:
    canvas = Canvas(size)
    regions = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        words = line.split()
        if words:
            fault = _fault(words, names)
            if fault:
                canvas.faults.append(f"line {number}: {fault}")
                continue
            region = area_masks(canvas, [_scaled(words[1:], size)], f"line {number}")
            if region is not None:
                regions.append((1 + int(words[0]), region))
    for value, region in sorted(regions, key=lambda pair: -np.count_nonzero(pair[1])):
        canvas.put(region, value)
    return canvas


def _fault(words: Sequence[str], names: dict[int, str]) -> str:
    """What is wrong with a line, or nothing."""
    try:
        places = [float(word) for word in words[1:]]
        number = int(words[0])
    except ValueError:
        return "allowed: a class and the corners of a polygon, all numbers"
    if number not in names:
        return f"found class {number}, which has no name; allowed: {min(names)} to {max(names)}"
    if len(places) == 4:
        return "is a box; allowed: the corners of a polygon (export as segmentation)"
    if len(places) < 6 or len(places) % 2:
        return "allowed: 3 corners or more, an x and a y each"
    if max(places) > 2:
        return "corners are pixels; allowed: shares of width and height, 0 to 1"
    return ""


def _scaled(words: Sequence[str], size: Size) -> list[float]:
    height, width = size
    return [float(word) * (height if place % 2 else width) for place, word in enumerate(words)]
