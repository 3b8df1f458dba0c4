"""Supervisely: a project with a JSON file of objects for every image."""

import base64
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, FiniteFloat

from attnfd.data.images import IMAGES
from attnfd.errors import UserError
from attnfd.imports.base import BACKGROUND, SPLITS, Export, Importer, Sample
from attnfd.imports.parts.canvas import Canvas, Points, Region, Size
from attnfd.imports.parts.files import Part, Pixels, decoded, read_json, typed

META = "meta.json"
DRAWN = ("polygon", "bitmap", "rectangle")


Corners = list[tuple[FiniteFloat, FiniteFloat]]


class Class(Part):
    """An entry of `classes`."""

    title: Annotated[str, Field(min_length=1)]
    color: str = ""


class Meta(Part):
    """`meta.json`."""

    classes: Annotated[list[Class], Field(min_length=1)]


class Outline(Part):
    """A polygon with holes, or two corners of a rectangle."""

    exterior: Corners
    interior: tuple[Corners, ...] = ()


class Bitmap(Part):
    """A packed PNG, and the position of its upper left corner."""

    data: str
    origin: tuple[int, int]


class Object(Part):
    """An entry of `objects`."""

    classTitle: str  # noqa: N815 - as Supervisely spells it
    geometryType: str  # noqa: N815
    points: Outline | None = None
    bitmap: Bitmap | None = None


class Extent(Part):
    """The size of an image."""

    height: Pixels
    width: Pixels


class Content(Part):
    """The JSON file of an image."""

    objects: list[Object]
    size: Extent | None = None


class Supervisely(Importer):
    """`meta.json`, and per dataset `img/x.jpg` and `ann/x.jpg.json` with polygons, bitmaps and rectangles."""

    about = "Supervisely project: meta.json, and img/ and ann/ in every dataset"

    def fits(self, root: Path) -> bool:
        return (root / META).is_file() and bool(_datasets(root))

    def read(self, root: Path) -> Export:
        entries = typed(Meta, read_json(root / META), root / META).classes
        names = [entry.title for entry in entries if entry.title.lower() not in (BACKGROUND, "bg")]
        index = {entry.title: 0 for entry in entries}
        index |= {name: 1 + place for place, name in enumerate(names)}
        colours = {index[entry.title]: _rgb(entry.color) for entry in entries}
        export = Export(
            {0: BACKGROUND, **{1 + place: name for place, name in enumerate(names)}},
            palette={value: rgb for value, rgb in colours.items() if rgb is not None},
            overlaps="the later object of the file",
        )
        for home in _datasets(root):
            _add(export, root, home, index)
        return export


def _datasets(root: Path) -> list[Path]:
    return sorted(folder.parent for folder in root.glob("**/ann") if (folder.parent / "img").is_dir())


def _rgb(colour: str) -> tuple[int, ...] | None:
    text = colour.lstrip("#")
    try:
        return tuple(bytes.fromhex(text)) if len(text) == 6 else None
    except ValueError:
        return None


def _add(export: Export, root: Path, home: Path, index: dict[str, int]) -> None:
    """The samples of one dataset of a project."""
    files = {file.name.removesuffix(".json"): file for file in sorted((home / "ann").glob("*.json"))}
    images = {file.name: file for file in (home / "img").iterdir() if file.suffix.lower() in IMAGES}
    bare = sorted(images.keys() - files.keys())
    if bare:
        export.remarks.append(f"{len(bare)} images have no JSON file, such as {images[bare[0]]}")
    inside = home.relative_to(root).as_posix()
    prefix = "" if inside == "." else f"{inside}/"
    left: Counter[str] = Counter()
    for name, file in files.items():
        try:
            content = typed(Content, read_json(file), file)
        except UserError as error:
            export.faults.append(str(error))
            continue
        if name not in images:
            export.faults.append(f"{file}: its image {name} is missing")
            continue
        unknown = sorted({entry.classTitle for entry in content.objects} - index.keys())
        export.faults += [f"{file}: the class {title!r} of an object is not in {META}" for title in unknown]
        left.update(entry.geometryType for entry in content.objects if entry.geometryType not in DRAWN)
        given = (content.size.height, content.size.width) if content.size else None
        stem = Path(name).stem
        draw = partial(_draw, content.objects, index)
        split = SPLITS.get(home.name.lower())
        export.samples.append(Sample(prefix + stem, images[name], split, draw, str(file), given))
    export.remarks += [
        f"{count} objects are of the kind {kind}, which has no area" for kind, count in sorted(left.items())
    ]


def _draw(objects: Sequence[Object], index: dict[str, int], size: Size) -> Canvas:
    canvas = Canvas(size)
    for number, entry in enumerate(objects, start=1):
        kind, what = entry.geometryType, f"object {number} ({entry.classTitle})"
        if kind not in DRAWN or entry.classTitle not in index:
            continue
        try:
            _put(canvas, entry, index[entry.classTitle], what)
        except (ValueError, zlib.error) as error:
            canvas.faults.append(f"{what}, a {kind}, cannot be drawn ({error})")
    return canvas


def _put(canvas: Canvas, entry: Object, value: int, what: str) -> None:
    if entry.geometryType == "bitmap":
        if entry.bitmap is None:
            raise ValueError("it has no bitmap")
        canvas.place(value, _bitmap(entry.bitmap.data), *entry.bitmap.origin, what)
        return
    if entry.points is None:
        raise ValueError("it has no points")
    outer: Points = entry.points.exterior
    if entry.geometryType == "rectangle":
        if len(outer) != 2:
            raise ValueError(f"found {len(outer)} points; allowed: 2")
        (left, top), (right, bottom) = outer
        outer = [(left, top), (right, top), (right, bottom), (left, bottom)]
    canvas.polygon(value, outer, entry.points.interior, what)


def _bitmap(data: str) -> Region:
    """Decode a PNG from zlib and Base64; its pixels are in the alpha channel if there is one."""
    picture = decoded(zlib.decompress(base64.b64decode(data)))
    part = picture.getchannel("A") if "A" in picture.getbands() else picture.convert("L")
    return np.array(part) > 0
