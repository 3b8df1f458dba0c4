"""The contract of a dataset: where its images and masks are, and what the values in a mask mean."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from attnfd.config.section import Section
from attnfd.errors import UserError


class Pair(NamedTuple):
    """An image and its mask, relative to the dataset's root."""

    image: Path
    mask: Path


class Reader(ABC):
    """A dataset as it lies on disk; `prepare` turns it into index and card, and only `prepare` uses it.

    Masks stay as they are: `labels` says which class each value of a mask is, and everything downstream
    reads masks through that table.
    """

    Options: ClassVar[type[Section]]
    """The keys of `recipes.<dataset>.prepare` beside `reader`."""

    own_classes: ClassVar[bool] = False
    """Whether the recipe names the classes; those of a published dataset are given, also for a part of it."""

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    """An RGB colour per class."""

    labels: Mapping[int, int]
    """Value in a mask → class index, or 255 for void; any other value is an error.

    Values are grey values or palette indices, or all of them colours; see `COLOUR`.
    """

    def __init__(self, options: Any, root: Path) -> None:
        self.options = options
        self.root = root

    def draw(self) -> None:  # noqa: B027 - most readers have nothing to draw
        """Write the images and masks below `root`, for datasets that are drawn rather than read."""

    @abstractmethod
    def pairs(self) -> dict[str, list[Pair]]:
        """Images and masks of the splits `train` and `val`.

        Raises:
            UserError: a folder or list file is missing; the message says how to get the dataset.
        """


def original(image: Path) -> Path:
    """The image that this one is a copy of by its name, or itself.

    Roboflow's augmentation writes several copies of `frame.jpg`, called `frame_jpg.rf.<hash>.jpg`.

    Example:
        >>> original(Path("train/frame_jpg.rf.0c1e.jpg")).name
        'frame_jpg'
    """
    name, is_copy, _ = image.name.partition(".rf.")
    return Path(name) if is_copy else image


def read_list(path: Path, fix: str) -> list[str]:
    """The lines of a file that lists images.

    Args:
        fix: what to do if it is not there.

    Raises:
        UserError: it is not there, or is no text in UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError:
        raise UserError(f"{path}: not found; {fix}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: no text in UTF-8 ({error}); save it as UTF-8") from None


BASE = Reader
