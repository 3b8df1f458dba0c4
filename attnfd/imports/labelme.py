"""LabelMe: a JSON file of shapes beside every image."""

import base64
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import FiniteFloat

from attnfd.data.images import IMAGES
from attnfd.data.labels import VOID
from attnfd.errors import UserError
from attnfd.imports.base import BACKGROUND, Export, Importer, Sample
from attnfd.imports.parts.canvas import Canvas, Size
from attnfd.imports.parts.files import Part, Pixels, decoded, mentions, read_json, read_text, typed
from attnfd.readers.base import sift, walk

NAMES = "labels.txt"
IGNORE, GROUND = "__ignore__", "_background_"
POINTS = {"circle": 2, "rectangle": 2, "line": 2, "linestrip": 2}
"""How many points a shape needs; kinds that are not listed need one."""
LINE, POINT = 10, 5
"""Width of a line and radius of a point, as in LabelMe."""


class Shape(Part):
    """An entry of `shapes`."""

    label: str | None = None
    points: list[tuple[FiniteFloat, FiniteFloat]]
    shape_type: str | None = None
    mask: str | None = None

    @property
    def kind(self) -> str:
        return self.shape_type or "polygon"


class Content(Part):
    """A JSON file."""

    shapes: list[Shape]
    imagePath: str | None = None  # noqa: N815 - as LabelMe spells it
    imageData: str | None = None  # noqa: N815
    imageHeight: Pixels | None = None  # noqa: N815
    imageWidth: Pixels | None = None  # noqa: N815


class LabelMe(Importer):
    """`x.json` with shapes; the image is at `imagePath` beside it, or inside the file."""

    about = "LabelMe: a JSON file with shapes beside every image (for the output of labelme2voc use `voc`)"

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
            export.remarks.append(f"{len(bare)} images have no JSON file, such as {bare[0]}")
        return export


def _files(root: Path) -> Iterator[Path]:
    found = walk(root) if root.is_dir() else ()
    return (file for file in found if file.suffix == ".json" and mentions(file, '"shapes"'))


def _content(file: Path, faults: list[str]) -> Content | None:
    try:
        return typed(Content, read_json(file), file)
    except UserError as error:
        faults.append(str(error))
        return None


def _names(root: Path, contents: dict[Path, Content], faults: list[str]) -> list[str]:
    """Classes in the order of labels.txt if it exists, else sorted by name."""
    shapes = [(file, shape) for file, content in contents.items() for shape in content.shapes]
    faults += [f"{file}: a shape has no label" for file, shape in shapes if not shape.label]
    found = {shape.label for _, shape in shapes if shape.label}
    listed = []
    if (root / NAMES).is_file():
        listed = [line.strip() for line in read_text(root / NAMES).splitlines() if line.strip()]
        for name in sorted(found - set(listed)):
            where = next(file for file, shape in shapes if shape.label == name)
            faults.append(f"{where}: found the label {name!r}; allowed: those of {root / NAMES}")
    return [name for name in listed or sorted(found) if name not in (IGNORE, GROUND, BACKGROUND)]


def _add(export: Export, root: Path, file: Path, content: Content, index: dict[str, int]) -> None:
    name = file.relative_to(root).with_suffix("").as_posix()
    path = file.parent / (content.imagePath or "").replace("\\", "/")
    beside = next((file.with_suffix(suffix) for suffix in IMAGES if file.with_suffix(suffix).is_file()), None)
    image: Path | Callable[[], bytes] | None = path if path.is_file() else beside
    if image is None and content.imageData:
        image = partial(base64.b64decode, content.imageData)
    if image is None:
        export.faults.append(f"{file}: its image {content.imagePath} is missing")
        return
    size = (content.imageHeight, content.imageWidth) if content.imageHeight and content.imageWidth else None
    draw = partial(_draw, content.shapes, index)
    export.samples.append(Sample(name, image, None, draw, str(file), size))


def _draw(shapes: Sequence[Shape], index: dict[str, int], size: Size) -> Canvas:
    canvas = Canvas(size)
    for number, shape in enumerate(shapes, start=1):
        if shape.label in index:
            what = f"shape {number} ({shape.label})"
            try:
                _put(canvas, shape, index[shape.label], what)
            except ValueError as error:
                canvas.faults.append(f"{what}, a {shape.kind}, cannot be drawn ({error})")
    return canvas


def _put(canvas: Canvas, shape: Shape, value: int, what: str) -> None:
    """Draw one shape as LabelMe does."""
    draw: Callable[[Any], None]
    kind, points = shape.kind, shape.points
    needed = POINTS.get(kind, 1)
    if len(points) < needed:
        raise ValueError(f"found {len(points)} points; allowed: {needed} or more")
    if kind == "polygon":
        canvas.polygon(value, points, what=what)
        return
    if kind == "mask":
        part = np.array(decoded(base64.b64decode(shape.mask or "")).convert("L")) > 0
        canvas.place(value, part, round(points[0][0]), round(points[0][1]), what)
        return
    if kind == "circle":
        centre, on = points[:2]
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
