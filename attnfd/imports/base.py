"""The contract of a format: what an annotation tool hands out, as images and the classes of their pixels.

A format is one file of this package. It says where the images are and draws their masks; what is the same
for all of them, from the checks to the new folder, is in `attnfd/sources/imports.py`.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from attnfd.config.params import load_yaml
from attnfd.data.images import FORMATS, IMAGES, MASKS, UNREADABLE, read_labels
from attnfd.data.labels import COLOUR, VOID, label_table
from attnfd.errors import UserError
from attnfd.readers.base import sift, walk

Size = tuple[int, int]
"""Height and width in pixels."""

Region = NDArray[np.bool_]
Points = Sequence[Sequence[float]]
"""Corners of a polygon, [x, y] each."""

BACKGROUND = "background"
"""Class of the pixels that no object covers."""

SPLITS = {
    "train": "train", "training": "train", "trainaug": "train", "train2017": "train",
    "val": "val", "valid": "val", "validation": "val", "val2017": "val",
    "test": "test", "testing": "test", "test2017": "test",
}  # fmt: skip
"""The split that a folder, a list or a file means by its name."""

INSTALL = "install it: pip install 'attnfd[import]'"
EDGE = 1
"""Pixels that a point may be outside of its image without a word."""


class Canvas:
    """A mask in the making: index 0 until something is put on it; what comes later wins.

    Attributes:
        mask: class index of every pixel (H, W), uint8.
        overlap: pixels that changed from one object's class to another's.
        cut: objects that reached outside of the image, and were cut at its border.
        lost: objects that got no pixel, as they are smaller than one.
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
        """Give the memory of the pixels free; the counts stay."""
        self.mask, self.taken = np.zeros((0, 0), np.uint8), np.zeros((0, 0), bool)

    def put(self, region: Region, value: int) -> None:
        """Give the pixels of a region a class."""
        self.overlap += int((region & self.taken & (self.mask != value)).sum())
        self.mask[region] = value
        self.taken |= region
        self.lost += not region.any()

    def inside(self, points: Points, what: str) -> bool:
        """Whether an object has a part in the image; one that has none is a fault."""
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
        """Fill a polygon whose corners are pixels, as drawing tools do: these pixels belong to it."""
        if len(outer) < 3:
            self.faults.append(f"{what} has {len(outer)} corners; allowed: 3 or more")
        elif self.inside(outer, what):
            self.drawn(value, lambda draw: _fill(draw, outer, holes))

    def drawn(self, value: int, draw: Callable[[ImageDraw.ImageDraw], None]) -> None:
        """Put what a function draws with the fill 1."""
        picture = Image.new("1", self.size[::-1])
        draw(ImageDraw.Draw(picture))
        self.put(np.array(picture), value)

    def place(self, value: int, part: Region, left: int, top: int, what: str) -> None:
        """Put a region whose upper left corner is at a place of the image."""
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


class Sample(NamedTuple):
    """An image of an export, and how its mask is drawn.

    Attributes:
        name: its path in the new folder, without suffix.
        image: its file, or what gives the content of one.
        split: train, val or test; None where the export does not say.
        draw: makes its mask on a canvas of the size that it is given. A `ValueError` or `OSError` is a fault.
        size: that the export says; None for the size of the image as it is seen.
        source: the file that a fault of its mask names.
    """

    name: str
    image: Path | Callable[[], bytes]
    split: str | None
    draw: Callable[[Size], Canvas]
    source: str
    size: Size | None = None


@dataclass
class Export:
    """What an importer has found.

    Attributes:
        classes: a name for every index of the new masks; 255 is void.
        palette: an RGB colour for some of them.
        overlaps: which of two objects gets a pixel that both cover.
        remarks: what was left out, a line each.
        faults: what must be fixed first, a line each, with the name of the file.
    """

    classes: Mapping[int, str]
    samples: list[Sample] = field(default_factory=list)
    palette: Mapping[int, Sequence[int]] = field(default_factory=dict)
    overlaps: str = ""
    remarks: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class Importer(ABC):
    """A format that annotation tools export, or in which datasets are published."""

    about: ClassVar[str]
    """What it is, in a line."""

    @abstractmethod
    def fits(self, root: Path) -> bool:
        """Whether a folder looks like this format; only what is needed for that is read."""

    @abstractmethod
    def read(self, root: Path) -> Export:
        """Find images, classes and masks; nothing is drawn yet.

        Raises:
            UserError: it is another format, or a file that all others need is missing.
        """


BASE = Importer


def area_masks(canvas: Canvas, found: Any, what: str) -> Region | None:
    """The pixels that polygons or run lengths of COCO cover by their area; None after a fault.

    Args:
        found: a list of polygons [x, y, x, y, …], or {counts, size}.
        what: names the object in a fault.

    Raises:
        UserError: pycocotools is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError:
        raise UserError(f"pycocotools: not there, and this format needs it; {INSTALL}") from None
    height, width = canvas.size
    if isinstance(found, dict):
        if list(found.get("size", ())) != [height, width] or "counts" not in found:
            canvas.faults.append(
                f"{what}: its RLE is of size {found.get('size')}; allowed: {[height, width]}"
            )
            return None
        runs = mask.frPyObjects(found, height, width) if isinstance(found["counts"], list) else found
        return mask.decode(runs).astype(bool)
    if any(len(polygon) < 6 or len(polygon) % 2 for polygon in found):
        canvas.faults.append(f"{what}: a polygon has fewer than 3 corners, or a number too many")
        return None
    if not canvas.inside(
        [pair for polygon in found for pair in zip(polygon[::2], polygon[1::2], strict=True)], what
    ):
        return None
    # A list of one with four numbers would be taken for a box, but that is refused above.
    return mask.decode(mask.merge(mask.frPyObjects(found, height, width))).astype(bool)


def of_values(file: Path, labels: Mapping[int, int]) -> Callable[[Size], Canvas]:
    """Draws the mask of a file: `labels` says the class index of every value, or colour, in it."""

    def draw(_: Size) -> Canvas:
        mask = read_labels(file, label_table(labels))
        return of_array(mask.values, labels)

    return draw


def of_array(values: NDArray[Any], labels: Mapping[int, int]) -> Canvas:
    """A canvas with the mask of an array of values."""
    canvas = Canvas(values.shape)
    canvas.mask = label_table(labels)[values]
    unknown = [label for label in np.unique(values).tolist() if label not in labels]
    if unknown:
        shown = ", ".join(map(spelled, unknown[:8])) + (
            f" and {len(unknown) - 8} more" if unknown[8:] else ""
        )
        canvas.faults.append(f"found {shown} in it, which the export gives no name")
    return canvas


def spelled(label: int) -> str:
    """A value in a mask, or a colour as #RRGGBB."""
    return str(label) if label < COLOUR else f"#{label - COLOUR:06x}"


def colour(rgb: Iterable[int]) -> int:
    """The label of a colour."""
    return COLOUR + int.from_bytes(bytes(rgb), "big")


def to_void(labels: Mapping[int, int]) -> dict[int, int]:
    """`labels` in which 255 is void unless it has a class."""
    return {VOID: VOID, **labels}


def by_name(folder: Path, suffixes: Sequence[str] = IMAGES) -> dict[str, Path]:
    """Files of a folder and all below it, by their path in it without suffix."""
    if not folder.is_dir():
        return {}
    return {
        file.relative_to(folder).with_suffix("").as_posix(): file
        for file in sift(walk(folder), suffixes).files
    }


def pair(
    export: Export,
    images: Mapping[str, Path],
    masks: Mapping[str, Path],
    labels: Mapping[int, int],
    split: str | None,
    prefix: str = "",
) -> None:
    """Add a sample for every mask that has an image; say which have none.

    Args:
        prefix: stands before names in the new folder, such as `train/`.
    """
    for name, mask in sorted(masks.items()):
        if name in images:
            draw = of_values(mask, labels)
            export.samples.append(Sample(prefix + name, images[name], split, draw, str(mask)))
    no_image = sorted(masks.keys() - images.keys())
    export.faults += [f"{masks[name]}: its image {name} is missing" for name in no_image]
    bare = sorted(images.keys() - masks.keys())
    if bare and masks:
        export.remarks.append(f"{len(bare)} images without a mask, {images[bare[0]]} for one")


def pair_listed(
    export: Export,
    images: Mapping[str, Path],
    masks: Mapping[str, Path],
    labels: Mapping[int, int],
    splits: Mapping[str | None, set[str]],
) -> None:
    """Add a sample for every mask that a list names, or for all of them if there is no list."""
    for split, names in (splits or {None: set(masks)}).items():
        export.faults += [
            f"the list of {split or 'all images'}: {name} has neither an image nor a mask"
            for name in sorted(names - masks.keys() - images.keys())
        ]
        ours = {name: mask for name, mask in masks.items() if name in names}
        pair(export, {name: images[name] for name in names & images.keys()}, ours, labels, split)
    unlisted = sorted(masks.keys() - set().union(*splits.values())) if splits else []
    if unlisted:
        export.remarks.append(f"{len(unlisted)} masks that no list names, {unlisted[0]} for one")


def all_masks(folder: Path) -> dict[str, Path]:
    return by_name(folder, MASKS)


def read_text(file: Path) -> str:
    """The text of a file.

    Raises:
        UserError: it is missing, or no text in UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: no text in UTF-8 ({error})") from None


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: it is missing, or no JSON.
    """
    try:
        return json.loads(read_text(file))
    except ValueError as error:
        raise UserError(f"{file}: no JSON ({error})") from None


def read_yaml(file: Path) -> Any:
    """The content of a YAML file."""
    return load_yaml(read_text(file), str(file))


def mentions(file: Path, *words: str) -> bool:
    """Whether a text file has all of these words, without reading it into memory."""
    try:
        with file.open("rb") as opened, mmap(opened.fileno(), 0, access=ACCESS_READ) as content:
            return all(content.find(word.encode()) >= 0 for word in words)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return False


def decoded(content: bytes) -> Image.Image:
    """The image in some bytes; a `ValueError` for anything else."""
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            image.load()
            return image.copy()
    except UNREADABLE as error:
        raise ValueError(f"holds no readable picture ({error})") from None
