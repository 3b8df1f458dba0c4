"""A mask while it is drawn: which pixels the objects of an export cover, and which object gets a pixel."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from attnfd.data.images import read_labels
from attnfd.data.labels import COLOUR, label_table
from attnfd.errors import UserError
from attnfd.imports.parts.files import INSTALL

Size = tuple[int, int]
"""Height and width in pixels."""

Region = NDArray[np.bool_]
Points = Sequence[Sequence[float]]
"""Corners of a polygon, [x, y] each."""

EDGE = 1
"""A point may be this many pixels outside of its image without being reported."""


class Canvas:
    """A mask while it is drawn: every pixel begins with index 0, and later objects cover earlier ones.

    Attributes:
        mask: class index of every pixel (H, W), uint8.
        overlap: number of pixels that changed from one object's class to another's.
        cut: number of objects that reached outside of the image, and were cut at its border.
        lost: number of objects that are smaller than a pixel, and got none.
        faults: what cannot be drawn.
    """

    def __init__(self, size: Size) -> None:
        self.mask: NDArray[np.uint8] = np.zeros(size, np.uint8)
        self.taken = np.zeros(size, bool)
        self.overlap = self.cut = self.lost = 0
        self.faults: list[str] = []

    @property
    def size(self) -> Size:
        return self.mask.shape

    def clear(self) -> None:
        """Free the memory of the pixels; the counts stay."""
        self.mask, self.taken = np.zeros((0, 0), np.uint8), np.zeros((0, 0), bool)

    def put(self, region: Region, value: int) -> None:
        """Give the pixels of a region a class."""
        self.overlap += int((region & self.taken & (self.mask != value)).sum())
        self.mask[region] = value
        self.taken |= region
        self.lost += not region.any()

    def inside(self, points: Points, what: str) -> bool:
        """Whether part of an object is inside the image; adds a fault if not."""
        places = np.asarray(points, dtype=float).reshape(-1, 2)
        limit = np.array(self.size[::-1])
        if (places.max(0) < 0).any() or (places.min(0) > limit).any():
            where = "; ".join(f"{x:g}, {y:g}" for x, y in (places.min(0), places.max(0)))
            height, width = self.size
            self.faults.append(f"{what} is outside of the image of {width}×{height}: from (x, y) {where}")
            return False
        self.cut += bool((places < -EDGE).any() or (places > limit + EDGE).any())
        return True

    def polygon(
        self, value: int, outer: Points, holes: Iterable[Points] = (), what: str = "a polygon"
    ) -> None:
        """Fill a polygon whose corners are pixels that belong to it, as drawing tools do."""
        if len(outer) < 3:
            self.faults.append(f"{what} has {len(outer)} corners; allowed: 3 or more")
        elif self.inside(outer, what):
            self.drawn(value, lambda draw: _fill(draw, outer, holes))

    def drawn(self, value: int, draw: Callable[[ImageDraw.ImageDraw], None]) -> None:
        """Put the region that a function draws with the value 1."""
        picture = Image.new("1", self.size[::-1])
        draw(ImageDraw.Draw(picture))
        self.put(np.array(picture), value)

    def place(self, value: int, part: Region, left: int, top: int, what: str) -> None:
        """Put a region with its upper left corner at (left, top) of the image."""
        height, width = part.shape
        if self.inside([[left, top], [left + width, top + height]], what):
            region = np.zeros(self.size, bool)
            rows, columns = max(0, -top), max(0, -left)
            kept = part[rows : self.size[0] - top, columns : self.size[1] - left]
            region[top + rows :, left + columns :][: kept.shape[0], : kept.shape[1]] = kept
            self.put(region, value)


def _fill(draw: ImageDraw.ImageDraw, outer: Points, holes: Iterable[Points]) -> None:
    draw.polygon([(x, y) for x, y in outer], fill=1, outline=1)
    for hole in holes:
        draw.polygon([(x, y) for x, y in hole], fill=0)


def area_masks(canvas: Canvas, found: Any, what: str) -> Region | None:
    """The pixels that COCO polygons or run lengths cover; None after a fault.

    Args:
        found: a list of polygons [x, y, x, y, …], or {counts, size}.
        what: the object's name in a fault.

    Raises:
        UserError: pycocotools is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError:
        raise UserError(f"pycocotools: not installed, and this format needs it; {INSTALL}") from None
    height, width = canvas.size
    if isinstance(found, dict):
        return _of_runs(canvas, found, what)
    try:
        found = [[float(number) for number in polygon] for polygon in found]
    except (TypeError, ValueError):
        canvas.faults.append(f"{what}: allowed: polygons [[x, y, x, y, …], …], or counts and size of its RLE")
        return None
    if not np.isfinite([number for polygon in found for number in polygon]).all():
        canvas.faults.append(f"{what}: a corner has a coordinate that is not a finite number")
        return None
    if any(len(polygon) < 6 or len(polygon) % 2 for polygon in found):
        canvas.faults.append(f"{what}: a polygon has fewer than 3 corners, or an odd number of coordinates")
        return None
    if not canvas.inside(
        [pair for polygon in found for pair in zip(polygon[::2], polygon[1::2], strict=True)], what
    ):
        return None
    # pycocotools would read a list of four numbers as a box, but the check above refuses it.
    return mask.decode(mask.merge(mask.frPyObjects(found, height, width))).astype(bool)


def _of_runs(canvas: Canvas, found: Mapping[str, Any], what: str) -> Region | None:
    """The pixels of run lengths, given as numbers or packed."""
    from pycocotools import mask

    height, width = canvas.size
    counts = found.get("counts")
    if found.get("size") != [height, width]:
        canvas.faults.append(f"{what}: its RLE has the size {found.get('size')}; allowed: {[height, width]}")
        return None
    if isinstance(counts, list) and all(isinstance(count, int) and count >= 0 for count in counts):
        covered = sum(counts)
        runs = mask.frPyObjects(dict(found), height, width) if covered == height * width else None
    else:
        covered, runs = -1, dict(found) if isinstance(counts, str) else None
    if runs is None:
        how = "a list of run lengths, or a string" if covered < 0 else f"runs of {height * width} pixels"
        canvas.faults.append(f"{what}: its RLE has invalid counts; allowed: {how}")
        return None
    return mask.decode(runs).astype(bool)


def of_values(file: Path, labels: Mapping[int, int]) -> Callable[[Size], Canvas]:
    """A function that draws the mask of a file; `labels` maps its values or colours to class indices."""

    def draw(_: Size) -> Canvas:
        mask = read_labels(file, label_table(labels))
        return of_array(mask.values, labels)

    return draw


def of_array(values: NDArray[Any], labels: Mapping[int, int]) -> Canvas:
    """A canvas with the mask from an array of values."""
    canvas = Canvas(values.shape)
    canvas.mask = label_table(labels)[values]
    unknown = [label for label in np.unique(values).tolist() if label not in labels]
    if unknown:
        shown = ", ".join(map(spelled, unknown[:8])) + (
            f" and {len(unknown) - 8} more" if unknown[8:] else ""
        )
        canvas.faults.append(f"found {shown} in it, for which the export has no name")
    return canvas


def spelled(label: int) -> str:
    """A value in a mask, or a colour as #RRGGBB."""
    return str(label) if label < COLOUR else f"#{label - COLOUR:06x}"


def colour(rgb: Iterable[int]) -> int:
    """The label of a colour."""
    return COLOUR + int.from_bytes(bytes(rgb), "big")
