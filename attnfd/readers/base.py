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
"""Kinds of files that a message counts."""


REST = "rest"
"""All classes, or values, that are not named."""


Names = Annotated[list[str], BeforeValidator(lambda found: [found] if isinstance(found, str) else found)]
"""One name, or a list of them."""


class Grouped(Section):
    """Options of a reader whose classes are published: which of them count, and as what."""

    classes: dict[str, Names] | None = Field(
        default=None,
        description="classes of your own, each of published ones: {person: person, vehicle: [car, bus], "
        "other: rest}; rest are all that are not named. Unset: the published classes",
    )
    void: Names = Field(
        default=[], description="published classes that count nowhere; or rest, for all that are not named"
    )


class Pair(NamedTuple):
    """An image and its mask, relative to the dataset's root; None: it has none, for a teacher to label."""

    image: Path
    mask: Path | None


class Reader(ABC):
    """A dataset as it lies on disk; `prepare` turns it into index and card, and only `prepare` uses it.

    Masks stay as they are: `labels` says which class each value of a mask is, and everything downstream
    reads masks through that table.
    """

    Options: ClassVar[type[Section]]
    """The keys of `recipes.<dataset>.prepare` beside `reader`."""

    own_classes: bool = False
    """Whether the recipe names the classes; those of a published dataset are given, also for a part of it."""

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    """An RGB colour per class."""

    labels: Mapping[int, int]
    """Value in a mask → class index, or 255 for void; any other value is an error.

    Values are grey values or palette indices, or all of them colours; see `COLOUR`.
    """

    rest_is_void: bool = False
    """Whether values that `labels` does not name are void rather than an error."""

    def __init__(self, options: Any, root: str | Path) -> None:
        self.options = options
        self.root = Path(root)
        if isinstance(options, Grouped) and (options.classes is not None or options.void):
            self._group(options)
        self.remarks: list[str] = []
        """What `pairs` has left out, a line each; `prepare` prints them as warnings."""

    def draw(self) -> None:  # noqa: B027 - most readers have nothing to draw
        """Write the images and masks below `root`, for datasets that are drawn rather than read."""

    @abstractmethod
    def pairs(self) -> dict[str, list[Pair]]:
        """Images and masks of the splits `train` and `val`, and of `test` and others if there are any.

        Raises:
            UserError: a folder or list file is missing; the message says how to get the dataset.
        """

    def _group(self, options: Grouped) -> None:
        """Put published classes together as the options say, or leave them out."""
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
    """The published classes in every group; what is in none is void.

    Raises:
        UserError: a class is unknown, is in two groups, or is neither in one nor void.

    Example:
        >>> group(["road", "car", "bus"], {"vehicle": ["car", "bus"], "ground": ["rest"]}, [])
        {'vehicle': ['car', 'bus'], 'ground': ['road']}
    """
    taken = sorted(set(groups) & set(COLUMNS))
    if taken or len(groups) < 2:
        found = taken or list(groups)
        raise UserError(
            f"prepare.classes: found {', '.join(found)}; allowed: two classes or more, none with the name "
            f"of an index column ({', '.join(COLUMNS)})"
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
        raise UserError(f"{keys[ends[1]]}: found rest, as in {keys[ends[0]]}; allowed: once")
    if rest and not ends:
        raise UserError(
            f"prepare.classes: leaves out {', '.join(rest)}; allowed: each class in one place; write "
            "`void: rest` if these count nowhere"
        )
    named |= dict.fromkeys(ends, rest)
    if empty := [name for name in groups if not named[name]]:
        raise UserError(
            f"{keys[empty[0]]}: found no class; allowed: published ones, or rest if some are left"
        )
    return {name: named[name] for name in groups}


def original(image: Path) -> Path:
    """The image that this one is a copy of by its name, or itself.

    Roboflow's augmentation writes several copies of `frame.jpg`, called `frame_jpg.rf.<hash>.jpg`.

    Example:
        >>> original(Path("train/frame_jpg.rf.0c1e.jpg")).name
        'frame_jpg'
    """
    name, is_copy, _ = image.name.partition(".rf.")
    return Path(name) if is_copy else image


class Found(NamedTuple):
    """Files that are read, in order, and all else: other files, and links that are not followed."""

    files: list[Path]
    others: list[Path]


def walk(folder: Path) -> Iterator[Path]:
    """All files in a folder and below it, linked folders too; hidden ones are left out.

    A link to a folder around it would have no end: it is not followed, but comes as if it were a file.

    Raises:
        OSError: a folder may not be read.
    """
    for home, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        loops = [name for name in folders if leads_back(Path(home, name))]
        yield from (Path(home, name) for name in (*names, *loops) if not name.startswith("."))
        folders[:] = (name for name in folders if not name.startswith(".") and name not in loops)


def sift(paths: Iterable[Path], suffixes: Sequence[str]) -> Found:
    """Files that end in one of `suffixes`, in any case, apart from all others.

    A broken link counts as the file that it should be, so that whoever reads it names it.
    """
    files: list[Path] = []
    others: list[Path] = []
    for path in sorted(paths):
        read = path.suffix.lower() in suffixes and (path.is_file() or not path.exists())
        (files if read else others).append(path)
    return Found(files, others)


def leads_back(folder: Path) -> bool:
    """Whether a folder is a link to one around it, by its path or on the disk."""
    if not folder.is_symlink():
        return False
    target = Path(os.path.realpath(folder))
    around = (Path(os.path.realpath(parent)) for parent in folder.absolute().parents)
    return any(target == parent or target in parent.parents for parent in around)


def twins(paths: Iterable[Path]) -> list[list[Path]]:
    """Paths that differ only in capitals, or in how an accent is encoded, together.

    Example:
        >>> [[path.name for path in same] for same in twins([Path("A.png"), Path("a.png"), Path("b.png")])]
        [['A.png', 'a.png']]
    """
    same: dict[str, list[Path]] = {}
    for path in paths:
        same.setdefault(unicodedata.normalize("NFC", path.as_posix()).casefold(), []).append(path)
    return [found for found in same.values() if len(found) > 1]


def listing(paths: Sequence[Path], root: Path | None = None) -> str:
    """How many files there are of each kind, and the first by name, relative to `root` if it is given."""
    kinds = Counter(_kind(path) for path in paths)
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(SHOWN_KINDS))
    more = ", …" if len(kinds) > SHOWN_KINDS else ""
    first = paths[0] if root is None else paths[0].relative_to(root)
    return f"{listed}{more}; {first} for one"


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
