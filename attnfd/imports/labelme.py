"""LabelMe: a JSON file of shapes beside every image."""

import base64
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from attnfd.data.images import IMAGES
from attnfd.data.labels import VOID
from attnfd.errors import UserError
from attnfd.imports.base import (
    BACKGROUND,
    Canvas,
    Export,
    Importer,
    Sample,
    Size,
    decoded,
    mentions,
    read_json,
    read_text,
)
from attnfd.readers.base import sift, walk

NAMES = "labels.txt"
IGNORE, GROUND = "__ignore__", "_background_"
LINE, POINT = 10, 5
"""Width of a line and radius of a point, as LabelMe itself draws them."""


class LabelMe(Importer):
    """`x.json` with shapes; the image is `imagePath` beside it, or is inside."""

    about = "LabelMe: a JSON file with shapes beside every image (what labelme2voc writes is `voc`)"

    def fits(self, root: Path) -> bool:
        return next(_files(root), None) is not None

    def read(self, root: Path) -> Export:
        files = sorted(_files(root))
        if not files:
            raise UserError(f"{root}: found no JSON file with shapes")
        faults: list[str] = []
        contents = {file: content for file in files if (content := _content(file, faults)) is not None}
        names = _names(root, contents, faults)
        index = {
            GROUND: 0,
            BACKGROUND: 0,
            IGNORE: VOID,
            **{name: 1 + place for place, name in enumerate(names)},
        }
        export = Export(
            {0: BACKGROUND, **{1 + place: name for place, name in enumerate(names)}},
            overlaps="the later shape of the file",
            faults=faults,
        )
        for file, content in contents.items():
            _add(export, root, file, content, index)
        images = set(sift(walk(root), IMAGES).files)
        bare = sorted(images - {sample.image for sample in export.samples})
        if bare:
            export.remarks.append(f"{len(bare)} images without a JSON file, {bare[0]} for one")
        return export


def _files(root: Path) -> Iterator[Path]:
    found = walk(root) if root.is_dir() else ()
    return (file for file in found if file.suffix == ".json" and mentions(file, '"shapes"'))


def _content(file: Path, faults: list[str]) -> dict[str, Any] | None:
    try:
        content = read_json(file)
    except UserError as error:
        faults.append(str(error))
        return None
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        faults.append(f"{file}: no file of LabelMe; allowed: a list of shapes")
        return None
    return content


def _names(root: Path, contents: dict[Path, dict[str, Any]], faults: list[str]) -> list[str]:
    """Classes in the order of labels.txt, or else by name."""
    shapes = [(file, shape) for file, content in contents.items() for shape in content["shapes"]]
    faults += [f"{file}: a shape has no label" for file, shape in shapes if not shape.get("label")]
    found = {str(shape["label"]) for _, shape in shapes if shape.get("label")}
    listed = []
    if (root / NAMES).is_file():
        listed = [line.strip() for line in read_text(root / NAMES).splitlines() if line.strip()]
        for name in sorted(found - set(listed)):
            where = next(file for file, shape in shapes if shape.get("label") == name)
            faults.append(f"{where}: found the label {name!r}; allowed: those of {root / NAMES}")
    return [name for name in listed or sorted(found) if name not in (IGNORE, GROUND, BACKGROUND)]


def _add(export: Export, root: Path, file: Path, content: dict[str, Any], index: dict[str, int]) -> None:
    name = file.relative_to(root).with_suffix("").as_posix()
    path = file.parent / str(content.get("imagePath") or "").replace("\\", "/")
    beside = next((file.with_suffix(suffix) for suffix in IMAGES if file.with_suffix(suffix).is_file()), None)
    image: Path | Callable[[], bytes] | None = path if path.is_file() else beside
    if image is None and content.get("imageData"):
        image = partial(base64.b64decode, content["imageData"])
    if image is None:
        export.faults.append(f"{file}: its image {content.get('imagePath')} is missing")
        return
    height, width = content.get("imageHeight"), content.get("imageWidth")
    size = (height, width) if height and width else None
    draw = partial(_draw, content["shapes"], index)
    export.samples.append(Sample(name, image, None, draw, str(file), size))


def _draw(shapes: Sequence[dict[str, Any]], index: dict[str, int], size: Size) -> Canvas:
    canvas = Canvas(size)
    for number, shape in enumerate(shapes, start=1):
        if shape.get("label") in index:
            what = f"shape {number} ({shape['label']})"
            kind = shape.get("shape_type") or "polygon"
            try:
                points = [(float(x), float(y)) for x, y in shape["points"]]
                _put(canvas, kind, points, shape, index[shape["label"]], what)
            except (KeyError, TypeError, ValueError) as error:
                canvas.faults.append(f"{what}, a {kind}, cannot be drawn ({error})")
    return canvas


def _put(
    canvas: Canvas, kind: str, points: list[tuple[float, float]], shape: dict[str, Any], value: int, what: str
) -> None:
    """Draw one shape as LabelMe itself does."""
    draw: Callable[[Any], None]
    if kind == "polygon":
        canvas.polygon(value, points, what=what)
        return
    if kind == "mask":
        part = np.array(decoded(base64.b64decode(shape["mask"])).convert("L")) > 0
        canvas.place(value, part, round(points[0][0]), round(points[0][1]), what)
        return
    if kind == "circle":
        centre, on = points
        points = _around(centre, math.dist(centre, on))
        draw = partial(_ellipse, box=points)
    elif kind == "rectangle":
        x, y = zip(*points, strict=True)
        points = [(min(x), min(y)), (max(x), max(y))]
        draw = partial(_rectangle, box=points)
    elif kind == "point":
        draw = partial(_ellipse, box=_around(points[0], POINT))
    elif kind in ("line", "linestrip"):
        draw = partial(_line, points=points)
    else:
        raise ValueError("allowed: polygon, rectangle, circle, line, linestrip, point, mask")
    if canvas.inside(points, what):
        canvas.drawn(value, draw)


def _around(centre: tuple[float, float], radius: float) -> list[tuple[float, float]]:
    x, y = centre
    return [(x - radius, y - radius), (x + radius, y + radius)]


def _ellipse(draw: Any, box: Sequence[tuple[float, float]]) -> None:
    draw.ellipse(box, fill=1, outline=1)


def _rectangle(draw: Any, box: Sequence[tuple[float, float]]) -> None:
    draw.rectangle(box, fill=1, outline=1)


def _line(draw: Any, points: Sequence[tuple[float, float]]) -> None:
    draw.line(points, fill=1, width=LINE)
