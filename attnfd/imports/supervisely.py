"""Supervisely: a project with a JSON file of objects for every image."""

import base64
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from attnfd.data.images import IMAGES
from attnfd.errors import UserError
from attnfd.imports.base import (
    BACKGROUND,
    SPLITS,
    Canvas,
    Export,
    Importer,
    Region,
    Sample,
    Size,
    decoded,
    read_json,
)

META = "meta.json"
DRAWN = ("polygon", "bitmap", "rectangle")


class Supervisely(Importer):
    """`meta.json`, and per dataset `img/x.jpg` and `ann/x.jpg.json` with polygons, bitmaps and rectangles."""

    about = "Supervisely project: meta.json, and img/ and ann/ of every dataset"

    def fits(self, root: Path) -> bool:
        return (root / META).is_file() and bool(_datasets(root))

    def read(self, root: Path) -> Export:
        meta = read_json(root / META)
        entries = meta.get("classes") if isinstance(meta, dict) else None
        if not isinstance(entries, list) or not entries or not all(entry.get("title") for entry in entries):
            raise UserError(f"{root / META}: allowed: classes, each with a title")
        names = [entry["title"] for entry in entries if entry["title"].lower() not in (BACKGROUND, "bg")]
        index = {entry["title"]: 0 for entry in entries}
        index |= {name: 1 + place for place, name in enumerate(names)}
        colours = {index[entry["title"]]: _rgb(entry.get("color")) for entry in entries}
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


def _rgb(colour: Any) -> tuple[int, ...] | None:
    text = str(colour or "").lstrip("#")
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
        export.remarks.append(f"{len(bare)} images without a JSON file, {images[bare[0]]} for one")
    inside = home.relative_to(root).as_posix()
    prefix = "" if inside == "." else f"{inside}/"
    left: dict[str, int] = {}
    for name, file in files.items():
        try:
            content = read_json(file)
            objects = content["objects"]
        except (UserError, TypeError, KeyError) as error:
            export.faults.append(str(error) if isinstance(error, UserError) else f"{file}: has no objects")
            continue
        if name not in images:
            export.faults.append(f"{file}: its image {name} is missing")
            continue
        unknown = {entry.get("classTitle") for entry in objects} - index.keys()
        export.faults += [f"{file}: the class {name!r} of an object is not in {META}" for name in unknown]
        for entry in objects:
            if entry.get("geometryType") not in DRAWN:
                left[str(entry.get("geometryType"))] = left.get(str(entry.get("geometryType")), 0) + 1
        size = content.get("size") or {}
        given = (size["height"], size["width"]) if {"height", "width"} <= size.keys() else None
        stem = Path(name).stem
        draw = partial(_draw, objects, index)
        split = SPLITS.get(home.name.lower())
        export.samples.append(Sample(prefix + stem, images[name], split, draw, str(file), given))
    export.remarks += [
        f"{count} objects that are a {kind}, which has no area" for kind, count in sorted(left.items())
    ]


def _draw(objects: Sequence[dict[str, Any]], index: dict[str, int], size: Size) -> Canvas:
    canvas = Canvas(size)
    for number, entry in enumerate(objects, start=1):
        kind, what = entry.get("geometryType"), f"object {number} ({entry.get('classTitle')})"
        value = index.get(str(entry.get("classTitle")))
        if value is None or kind not in DRAWN:
            continue
        try:
            if kind == "bitmap":
                left, top = entry["bitmap"]["origin"]
                canvas.place(value, _bitmap(entry["bitmap"]["data"]), left, top, what)
            else:
                outer, holes = entry["points"]["exterior"], entry["points"].get("interior", ())
                if kind == "rectangle":
                    (left, top), (right, bottom) = outer
                    outer = [(left, top), (right, top), (right, bottom), (left, bottom)]
                canvas.polygon(value, outer, holes, what)
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            canvas.faults.append(f"{what}, a {kind}, cannot be drawn ({error})")
    return canvas


def _bitmap(data: str) -> Region:
    """A PNG, packed and in letters; its pixels are in the alpha channel if it has one."""
    picture = decoded(zlib.decompress(base64.b64decode(data)))
    part = picture.getchannel("A") if "A" in picture.getbands() else picture.convert("L")
    return np.array(part) > 0
