"""The contract of a format: an importer reads the export of an annotation tool as images and masks.

A format is one file of this package. It finds the images and draws their masks. The parts that all formats
share, from the checks to the new folder, are in `attnfd/sources/imports.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

from attnfd.data.images import IMAGES, MASKS
from attnfd.data.labels import VOID
from attnfd.imports.parts.canvas import Canvas, Size, of_values
from attnfd.readers.base import sift, walk

BACKGROUND = "background"
"""Class of the pixels that no object covers."""

SPLITS = {
    "train": "train", "training": "train", "trainaug": "train", "train2017": "train",
    "val": "val", "valid": "val", "validation": "val", "val2017": "val",
    "test": "test", "testing": "test", "test2017": "test",
}  # fmt: skip
"""The split for the name of a folder, a list or a file."""


class Sample(NamedTuple):
    """An image of an export, and how to draw its mask.

    Attributes:
        name: its path in the new folder, without suffix.
        image: its file, or a function that returns the file's content.
        split: train, val or test; None if the export does not say.
        draw: draws its mask on a canvas of a given size. A `ValueError` or `OSError` counts as a fault.
        size: size in the export; None for the size of the upright image.
        source: the file to name in faults of its mask.
    """

    name: str
    image: Path | Callable[[], bytes]
    split: str | None
    draw: Callable[[Size], Canvas]
    source: str
    size: Size | None = None


@dataclass
class Export:
    """What an importer found.

    Attributes:
        classes: a name for every index of the new masks; 255 is void.
        palette: an RGB colour for some of the indices.
        overlaps: which of two objects gets a pixel that both cover.
        remarks: what was left out, a line each.
        faults: what you must fix first, a line each, with the name of the file.
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
    """A description in one line."""

    @abstractmethod
    def fits(self, root: Path) -> bool:
        """Whether a folder looks like this format; reads no more than this check needs."""

    @abstractmethod
    def read(self, root: Path) -> Export:
        """Find images, classes and masks, without drawing anything.

        Raises:
            UserError: the folder has another format, or a file that all others need is missing.
        """


BASE = Importer


def to_void(labels: Mapping[int, int]) -> dict[int, int]:
    """`labels` with 255 as void, unless 255 has a class."""
    return {VOID: VOID, **labels}


def by_name(folder: Path, suffixes: Sequence[str] = IMAGES) -> dict[str, Path]:
    """Files of a folder and its subfolders, by their relative path without suffix."""
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
    """Add a sample for every mask with an image; report masks without an image and images without a mask.

    Args:
        prefix: begins the names in the new folder, such as `train/`.
    """
    for name, mask in sorted(masks.items()):
        if name in images:
            draw = of_values(mask, labels)
            export.samples.append(Sample(prefix + name, images[name], split, draw, str(mask)))
    no_image = sorted(masks.keys() - images.keys())
    export.faults += [f"{masks[name]}: its image {name} is missing" for name in no_image]
    bare = sorted(images.keys() - masks.keys())
    if bare and masks:
        export.remarks.append(f"{len(bare)} images have no mask, such as {images[bare[0]]}")


def pair_listed(
    export: Export,
    images: Mapping[str, Path],
    masks: Mapping[str, Path],
    labels: Mapping[int, int],
    splits: Mapping[str | None, set[str]],
) -> None:
    """Add a sample for every mask that a list names, or for all masks if there is no list."""
    for split, names in (splits or {None: set(masks)}).items():
        export.faults += [
            f"the list of {split or 'all images'}: {name} has neither an image nor a mask"
            for name in sorted(names - masks.keys() - images.keys())
        ]
        ours = {name: mask for name, mask in masks.items() if name in names}
        pair(export, {name: images[name] for name in names & images.keys()}, ours, labels, split)
    unlisted = sorted(masks.keys() - set().union(*splits.values())) if splits else []
    if unlisted:
        export.remarks.append(f"{len(unlisted)} masks are in no list, such as {unlisted[0]}")


def all_masks(folder: Path) -> dict[str, Path]:
    return by_name(folder, MASKS)
