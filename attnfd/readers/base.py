"""The contract of a dataset: where its images and masks are, and what the values in a mask mean."""

import os
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import BeforeValidator, Field

from attnfd import discovery
from attnfd.config.section import Section
from attnfd.data.labels import VOID
from attnfd.data.prepared import COLUMNS
from attnfd.errors import UserError

SHOWN_KINDS = 4
"""How many kinds of files a message counts."""


REST = "rest"
"""Means all classes, or values, that are not named."""


Names = Annotated[list[str], BeforeValidator(lambda found: [found] if isinstance(found, str) else found)]
"""One name, or a list of them."""


class Grouped(Section):
    """Options of a reader of a published dataset: which of its classes to use, and how to group them."""

    classes: dict[str, Names] | None = Field(
        default=None,
        description="your own classes, each made of published ones: {person: person, vehicle: [car, bus], "
        "other: rest}; rest means all that are not named. Unset: the published classes",
    )
    void: Names = Field(
        default=[], description="published classes to ignore; or rest, for all that are not named"
    )


class Pair(NamedTuple):
    """An image and its mask, relative to the dataset's root; None: no mask, so a teacher labels the image."""

    image: Path
    mask: Path | None


class Reader(ABC):
    """A dataset on disk. Only `prepare` uses a reader: it writes the index and the card.

    Masks are not changed: `labels` maps each value of a mask to a class, and all later stages read masks
    through this table.
    """

    Options: ClassVar[type[Section]]
    """The keys of `recipes.<dataset>.prepare` beside `reader`."""

    own_classes: bool = False
    """Whether the recipe names the classes; those of a published dataset are fixed, also for a part of it."""

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    """An RGB colour per class."""

    labels: Mapping[int, int]
    """Value in a mask → class index, or 255 for void; any other value is an error.

    The values are grey values or palette indices, or all of them are colours; see `COLOUR`.
    """

    rest_is_void: bool = False
    """Whether values that `labels` does not name become void instead of an error."""

    def __init__(self, options: Any, root: str | Path) -> None:
        self.options = options
        self.root = Path(root)
        if isinstance(options, Grouped) and (options.classes is not None or options.void):
            self._group(options)
        self.remarks: list[str] = []
        """What `pairs` left out, a line each; `prepare` prints them as warnings."""

    def draw(self) -> None:  # noqa: B027 - most readers have nothing to draw
        """Write images and masks below `root`, if the dataset is drawn rather than read."""

    @abstractmethod
    def pairs(self) -> dict[str, list[Pair]]:
        """Images and masks of the splits `train` and `val`, and of `test` and other splits if there are any.

        Raises:
            UserError: a folder or list file is missing; the message says how to get the dataset.
        """

    def _group(self, options: Grouped) -> None:
        """Group published classes as the options say, or make them void."""
        own = {name: [name] for name in self.classes if name not in options.void}
        members = group(self.classes, options.classes or own, options.void)
        names = tuple(members)
        index = {one: names.index(name) for name in names for one in members[name]}
        self.labels = {
            label: VOID if value == VOID else index.get(self.classes[value], VOID)
            for label, value in self.labels.items()
        }
        self.palette = tuple(self.palette[self.classes.index(members[name][0])] for name in names)
        self.classes, self.own_classes = names, True


def group(published: Sequence[str], groups: Mapping[str, list[str]], void: list[str]) -> dict[str, list[str]]:
    """The published classes in every group; a class in no group is void.

    Raises:
        UserError: a class is unknown, is in two groups, or is neither in a group nor void.

    Example:
        >>> group(["road", "car", "bus"], {"vehicle": ["car", "bus"], "ground": ["rest"]}, [])
        {'vehicle': ['car', 'bus'], 'ground': ['road']}
    """
    taken = sorted(set(groups) & set(COLUMNS))
    if taken or len(groups) < 2:
        found = taken or list(groups)
        raise UserError(
            f"prepare.classes: found {', '.join(found)}; allowed: two classes or more, none of which has "
            f"the name of an index column ({', '.join(COLUMNS)})"
        )
    keys = {**{name: f"prepare.classes.{name}" for name in groups}, "void": "prepare.void"}
    wanted = {**groups, "void": void}
    ends = [name for name, members in wanted.items() if members == [REST]]
    named = {name: members for name, members in wanted.items() if name not in ends}
    often = Counter(
        discovery.one_of(one, tuple(published), keys[name])
        for name, members in named.items()
        for one in members
    )
    rest = [one for one in published if one not in often]
    if twice := [one for one, count in often.items() if count > 1]:
        raise UserError(f"prepare.classes: found {', '.join(twice)} twice; allowed: each class in one place")
    if len(ends) > 1:
        raise UserError(f"{keys[ends[1]]}: found rest, as in {keys[ends[0]]}; allowed: rest in one place")
    if rest and not ends:
        raise UserError(
            f"prepare.classes: leaves out {', '.join(rest)}; allowed: each class in one place; write "
            "`void: rest` to ignore these"
        )
    named |= dict.fromkeys(ends, rest)
    if empty := [name for name in groups if not named[name]]:
        raise UserError(
            f"{keys[empty[0]]}: found no class; allowed: published classes, or rest if some are left"
        )
    return {name: named[name] for name in groups}


def original(image: Path) -> Path:
    """The original of an image whose name says that it is a copy; else the image itself.

    Roboflow's augmentation writes several copies of `frame.jpg` as `frame_jpg.rf.<hash>.jpg`.

    Example:
        >>> original(Path("train/frame_jpg.rf.0c1e.jpg")).name
        'frame_jpg'
    """
    name, is_copy, _ = image.name.partition(".rf.")
    return Path(name) if is_copy else image


class Found(NamedTuple):
    """Files to read, in order, and the rest: other files, and links that are not followed."""

    files: list[Path]
    others: list[Path]


def walk(folder: Path) -> Iterator[Path]:
    """All files in a folder and its subfolders, including linked folders; hidden files are left out.

    A link to a folder that contains it is not followed, since it has no end; it is yielded like a file.

    Raises:
        OSError: you have no permission to read a folder.
    """
    for home, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        loops = [name for name in folders if leads_back(Path(home, name))]
        yield from (Path(home, name) for name in (*names, *loops) if not name.startswith("."))
        folders[:] = (name for name in folders if not name.startswith(".") and name not in loops)


def sift(paths: Iterable[Path], suffixes: Sequence[str]) -> Found:
    """Separate files that end in one of `suffixes`, in any case, from all others.

    A broken link counts as the file that it points to, so that the error on reading names it.
    """
    files: list[Path] = []
    others: list[Path] = []
    for path in sorted(paths):
        read = path.suffix.lower() in suffixes and (path.is_file() or not path.exists())
        (files if read else others).append(path)
    return Found(files, others)


def leads_back(folder: Path) -> bool:
    """Whether a folder is a link to a folder that contains it."""
    if not folder.is_symlink():
        return False
    target = Path(os.path.realpath(folder))
    around = (Path(os.path.realpath(parent)) for parent in folder.absolute().parents)
    return any(target == parent or target in parent.parents for parent in around)


def twins(paths: Iterable[Path]) -> list[list[Path]]:
    """Groups of paths that differ only in capitals, or in how an accent is encoded.

    Example:
        >>> [[path.name for path in same] for same in twins([Path("A.png"), Path("a.png"), Path("b.png")])]
        [['A.png', 'a.png']]
    """
    same: dict[str, list[Path]] = {}
    for path in paths:
        same.setdefault(unicodedata.normalize("NFC", path.as_posix()).casefold(), []).append(path)
    return [found for found in same.values() if len(found) > 1]


def listing(paths: Sequence[Path], root: Path | None = None) -> str:
    """How many files of each kind there are, and the name of one, relative to `root` if it is given."""
    kinds = Counter(_kind(path) for path in paths)
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(SHOWN_KINDS))
    more = ", …" if len(kinds) > SHOWN_KINDS else ""
    first = paths[0] if root is None else paths[0].relative_to(root)
    return f"{listed}{more}, such as {first}"


def _kind(path: Path) -> str:
    if path.is_symlink() and not path.is_file():
        return "broken or endless link"
    return path.suffix.lower() or "without suffix"


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def read_list(path: Path, fix: str) -> list[str]:
    """The lines of a file that lists images.

    Args:
        fix: what to do if the file is missing.

    Raises:
        UserError: the file is missing, or is not UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError:
        raise UserError(f"{path}: not found; {fix}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from None


BASE = Reader
