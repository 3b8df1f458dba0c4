"""YOLO polygons (Ultralytics): a text file for every image, a line for every object."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from attnfd.errors import UserError
from attnfd.imports.base import BACKGROUND, SPLITS, Export, Importer, Sample, by_name
from attnfd.imports.parts.canvas import Canvas, Size, area_masks
from attnfd.imports.parts.files import read_text, read_yaml

CONFIGS = ("data.yaml", "data.yml", "dataset.yaml")
CLASSES = "classes.txt"


class Yolo(Importer):
    """`data.yaml` with names and splits; `images/…/x.jpg` and `labels/…/x.txt` with `class x y x y …`.

    A split is a folder of images, or a file that lists them, as in exports of CVAT.
    """

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
        for split, images in _splits(root, content):
            _add(export, root, images, split, names)
        _look_for_others(export, root, config)
        return export


def _names(config: Path, content: Any) -> dict[int, str]:
    found = content.get("names") if isinstance(content, dict) else None
    names = dict(enumerate(found)) if isinstance(found, list) else found
    if not isinstance(names, dict) or not names:
        raise UserError(
            f"{config}: found no names; allowed: a list of the classes, such as names: [road, car]"
        )
    empty = [number for number, name in names.items() if name is None or not str(name).strip()]
    if empty:
        raise UserError(f"{config}: class {empty[0]} has no name; give it one")
    try:
        return {int(number): str(name).strip() for number, name in names.items()}
    except (TypeError, ValueError):
        raise UserError(f"{config}: found names {list(names)}; allowed: numbers and their names") from None


def _splits(root: Path, content: Any) -> Iterator[tuple[str | None, list[Path]]]:
    """Splits and their images."""
    named = False
    for key in ("train", "val", "valid", "test"):
        for given in _list(content.get(key)):
            place = _below(root, given)
            if place is None:
                raise UserError(
                    f"{root}: {given} of {key} is missing; allowed: a folder of images, or a list of them"
                )
            named = True
            yield SPLITS[key], _listed(root, place) if place.is_file() else _images(place)
    if not named:
        yield None, _images(root / "images")


def _below(root: Path, given: str) -> Path | None:
    """A file or folder of the export; the path may be relative to another folder, such as ../train/images."""
    parts = Path(given).parts
    tails = (Path(*parts[start:]) for start in range(len(parts)))
    return next(
        (root / tail for tail in tails if tail.parts and ".." not in tail.parts and (root / tail).exists()),
        None,
    )


def _listed(root: Path, file: Path) -> list[Path]:
    """The images that a file lists, one path per line."""
    lines = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    found = {line: _below(root, line) for line in lines}
    lost = [line for line, image in found.items() if image is None]
    if lost:
        raise UserError(f"{file}: {len(lost)} images are missing, such as {lost[0]}")
    return [image for image in found.values() if image is not None]


def _images(folder: Path) -> list[Path]:
    return list(by_name(folder).values())


def _list(found: Any) -> list[str]:
    return [str(one) for one in (found if isinstance(found, list) else [found] if found else [])]


def _add(
    export: Export, root: Path, images: Sequence[Path], split: str | None, names: dict[int, str]
) -> None:
    bare, strange = [], set()
    for image in images:
        inside = image.relative_to(root)
        label = _swapped(inside, "images", "labels")
        if label is None:
            strange.add(image.parent)
        elif (root / label).with_suffix(".txt").is_file():
            file = (root / label).with_suffix(".txt")
            name = (_swapped(inside, "images", "") or inside).with_suffix("").as_posix()
            export.samples.append(Sample(name, image, split, partial(_draw, file, names), str(file)))
        else:
            bare.append(image)
    export.faults += [
        f"{folder}: allowed: a folder with `images` in its path, beside `labels`"
        for folder in sorted(strange)
    ]
    if bare:
        export.remarks.append(f"{len(bare)} images have no label file, such as {bare[0]}")


def _swapped(path: Path, old: str, new: str) -> Path | None:
    """A path in which `new` replaces the last folder called `old`; None if there is none."""
    parts = list(path.parent.parts)
    if old not in parts:
        return None
    place = len(parts) - 1 - parts[::-1].index(old)
    return Path(*parts[:place], new, *parts[place + 1 :], path.name)


def _look_for_others(export: Export, root: Path, config: Path) -> None:
    """Report label files without an image as faults, and count those of images in no split."""
    used = {sample.source for sample in export.samples}
    images, unlisted = by_name(root), []
    for inside, file in by_name(root, (".txt",)).items():
        image = _swapped(Path(inside), "labels", "images")
        if image is None or str(file) in used or file.name == CLASSES:
            continue
        if image.as_posix() in images:
            unlisted.append(file)
        else:
            export.faults.append(f"{file}: its image {image} is missing")
    if unlisted:
        export.remarks.append(
            f"{len(unlisted)} label files are in no split of {config.name}, such as {unlisted[0]}"
        )


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
    """The fault of a line, or ""."""
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
