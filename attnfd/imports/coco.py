"""COCO JSON: polygons and run lengths per object."""

import os
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from attnfd.data.images import IMAGES
from attnfd.errors import UserError
from attnfd.imports.base import BACKGROUND, SPLITS, Export, Importer, Sample
from attnfd.imports.parts.canvas import Canvas, Region, Size, area_masks
from attnfd.imports.parts.files import Id, Part, Pixels, mentions, read_json, typed
from attnfd.readers.base import sift, walk

KEYS = ("images", "annotations", "categories")
OFFICIAL = "instances_"
"""How the names of COCO's own files with masks begin."""


class Picture(Part):
    """An entry of `images`."""

    id: Id
    file_name: str
    height: Pixels | None = None
    width: Pixels | None = None


class Object(Part):
    """An entry of `annotations`."""

    id: Any = None
    image_id: Id
    category_id: Id
    segmentation: Any = None


class Category(Part):
    """An entry of `categories`."""

    id: Id
    name: str | None = None


class Content(Part):
    """A JSON file."""

    images: list[Picture]
    annotations: list[Object]
    categories: list[Category]


class Coco(Importer):
    """JSON files of images, annotations and categories; images are beside them, or in the usual folders."""

    about = "COCO JSON with polygons or RLE, from COCO, Roboflow, CVAT, Label Studio and others"

    def fits(self, root: Path) -> bool:
        return bool(_files(root))

    def read(self, root: Path) -> Export:
        files = _files(root)
        if not files:
            raise UserError(f"{root}: found no JSON file with {', '.join(KEYS)}")
        contents = _contents(files)
        names = _categories(contents)
        used = {entry.category_id for content in contents.values() for entry in content.annotations}
        numbers = sorted(names, key=lambda number: (isinstance(number, str), number))
        order = [number for number in numbers if number in used]
        unused = [names[number] for number in numbers if number not in used]
        # An export may have its own class background.
        zero = next((number for number in order if names[number].strip().lower() == BACKGROUND), None)
        index = {zero: 0} if zero is not None else {}
        for number in order:
            index.setdefault(number, len(index) + (zero is None))
        classes = {0: BACKGROUND, **{value: names[number] for number, value in index.items()}}
        export = Export(classes, overlaps="the smaller object")
        if unused:
            export.remarks.append(f"categories without objects: {', '.join(unused)}")
        home = Path(os.path.normpath(root if root.is_dir() else root.parent))
        for file, content in contents.items():
            _add(export, home, file, content, index)
        return export


def _files(root: Path) -> list[Path]:
    """JSON files that look like COCO; of COCO's own files, only those with masks."""
    near = [root] if root.is_file() else sorted([*root.glob("*.json"), *root.glob("*/*.json")])
    found = [file for file in near if mentions(file, *(f'"{key}"' for key in KEYS))]
    return [file for file in found if file.name.startswith(OFFICIAL)] or found


def _contents(files: Sequence[Path]) -> dict[Path, Content]:
    """The content of every file; the faults of all files are reported at once."""
    found, faults = {}, []
    for file in files:
        try:
            found[file] = _content(file)
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("\n  ".join(faults))
    return found


def _content(file: Path) -> Content:
    content = read_json(file)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in KEYS):
        raise UserError(f"{file}: not COCO JSON; allowed: lists of {', '.join(KEYS)}")
    if any(isinstance(entry, dict) and "segments_info" in entry for entry in content["annotations"]):
        raise UserError(f"{file}: has COCO's panoptic format; allowed: objects with a segmentation each")
    return typed(Content, content, file)


def _categories(contents: dict[Path, Content]) -> dict[Any, str]:
    """The name of every category; a category must have the same name in all files."""
    names: dict[Any, tuple[str, Path]] = {}
    faults = []
    for file, content in contents.items():
        for entry in content.categories:
            number, name = entry.id, (entry.name or "").strip()
            if not name:
                faults.append(f"{file}: category {number} has no name; give it one")
            other, where = names.setdefault(number, (name, file))
            if other != name:
                faults.append(
                    f"{where} and {file}: category {number} is {other!r} in one and {name!r} in the other; "
                    "they are two datasets: import them separately"
                )
        known = {entry.id for entry in content.categories}
        lost = {entry.category_id for entry in content.annotations} - known
        faults += [f"{file}: objects have category {number}, which has no name" for number in lost]
    if faults:
        raise UserError("COCO JSON: " + "\n  ".join(["", *faults]).strip())
    return {number: name for number, (name, _) in names.items()}


def _add(export: Export, root: Path, file: Path, content: Content, index: dict[Any, int]) -> None:
    """The samples of one file."""
    objects: dict[Any, list[Object]] = defaultdict(list)
    for entry in content.annotations:
        objects[entry.image_id].append(entry)
    boxes = [entry for entry in content.annotations if not entry.segmentation]
    if boxes and len(boxes) == len(content.annotations):
        export.faults.append(
            f"{file}: its objects have only boxes; allowed: a segmentation, as polygons or RLE"
        )
        return
    if boxes:
        export.remarks.append(f"{file.name}: {len(boxes)} objects have no segmentation, only boxes")
    find = _finder(root, file)
    words = [file.stem.removeprefix(OFFICIAL), file.parent.name]
    split = next((SPLITS[word] for word in words if word in SPLITS), None)
    bare = 0
    for picture in content.images:
        image = find(picture.file_name)
        if image is None:
            export.faults.append(f"{file}: its image {picture.file_name} is missing")
            continue
        ours = objects.pop(picture.id, [])
        bare += not ours
        size = (picture.height, picture.width) if picture.height and picture.width else None
        inside = image.relative_to(root).with_suffix("").as_posix()
        draw, where = partial(_draw, ours, index), f"{file}: {picture.file_name}"
        export.samples.append(Sample(inside.removeprefix("images/"), image, split, draw, where, size))
    lost = sorted(objects.keys() - {picture.id for picture in content.images}, key=str)
    export.faults += [f"{file}: objects refer to image {number}, which is not in images" for number in lost]
    if bare:
        export.remarks.append(
            f"{file.name}: {bare} images have no object and become {export.classes[0]} everywhere"
        )


def _finder(root: Path, file: Path) -> Any:
    """A function that finds an image: in the usual folders, or anywhere below the root by its last part."""
    subset = file.stem.removeprefix(OFFICIAL)
    homes = [
        folder / tail
        for folder in (file.parent, file.parent.parent)
        for tail in ("", "images", subset, f"images/{subset}")
    ]
    by_last: dict[str, list[Path]] = defaultdict(list)
    for found in sift(walk(root), IMAGES).files:
        by_last[found.name].append(found)

    def find(name: str) -> Path | None:
        path = name.replace("\\", "/")
        places = (Path(os.path.normpath(home / path)) for home in homes)
        near = next((place for place in places if place.is_file() and place.is_relative_to(root)), None)
        if near is not None:
            return near
        same = by_last[path.rpartition("/")[2]]
        return same[0] if len(same) == 1 else None

    return find


def _draw(objects: Sequence[Object], index: dict[Any, int], size: Size) -> Canvas:
    """Draw the largest object first, so that smaller ones stay visible."""
    canvas = Canvas(size)
    regions: list[tuple[int, Region]] = []
    for entry in objects:
        if entry.segmentation:
            region = area_masks(canvas, entry.segmentation, f"object {entry.id}")
            if region is not None:
                regions.append((index[entry.category_id], region))
    for value, region in sorted(regions, key=lambda pair: -np.count_nonzero(pair[1])):
        canvas.put(region, value)
    return canvas
