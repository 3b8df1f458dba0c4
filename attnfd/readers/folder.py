"""A folder of your own images and masks."""

import colorsys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from attnfd.config.section import Section, Seed, validate
from attnfd.config.yaml_file import load_yaml
from attnfd.data.images import IMAGES, MASKS, UNREADABLE, read_classes
from attnfd.data.labels import COLOUR, VOID, label_table
from attnfd.data.prepared import COLUMNS
from attnfd.data.strata import stratify
from attnfd.errors import UserError
from attnfd.readers.base import REST, Pair, Reader, listing, original, read_list, sift, walk

CLASS_FILE = "classes: {ground: 0, cat: 1}"
"""What the shortest YAML file of classes contains."""

ROOT_HINT = (
    "name the dataset's folder in the recipe's prepare.root, or in ATTNFD_FOLDER_ROOT; "
    "docs/your-data.md shows how"
)
ALLOWED = "allowed: 0 to 255, or [red, green, blue], or a list of different ones"
UNLABELLED = "unlabelled"
"""Split of the images without masks."""
POLYGONS = "attnfd data import makes masks from exported polygons"
TO_MASKS = {
    ".npy": "save each array by Image.fromarray(array.astype('uint8')).save('a.png')",
    **dict.fromkeys((".jpg", ".jpeg"), "JPEG changes pixels, so export the masks as PNG"),
    **dict.fromkeys((".json", ".xml", ".txt"), POLYGONS),
}
"""How to convert masks of another format to PNG, by suffix."""


class Classes(Section):
    """A YAML file that says what the values in the masks mean."""

    classes: dict[str, Any] = Field(description="value in a mask of every class; see `labels_of`")
    void: list[Any] | Literal["rest"] = Field(
        default=[], description="values in a mask to ignore; rest: all values that no class has"
    )

    @model_validator(mode="after")
    def _hold(self) -> "Classes":
        labels_of(self.classes, self.void)
        return self


class Options(Section):
    """Where images and masks are, what the masks mean, and which images validate."""

    root: str = Field(description="folder of the dataset, relative to the repository's root")
    images: str = Field(default="images", description="folder of the images, relative to root")
    masks: str = Field(default="masks", description="folder of the masks, with the subfolders of `images`")
    mask_suffix: str = Field(
        default="", description="what follows the image's name in the mask's name, such as _mask"
    )
    classes: dict[str, Any] | str = Field(
        default="classes.yaml",
        description="value of every class in a mask: 0 to 255, or [red, green, blue] for all of them, or a "
        "list of several; "
        "or a YAML file below root that contains `classes` and `void`",
    )
    void: list[Any] | Literal["rest"] = Field(
        default=[],
        description="values in a mask to ignore, beside 255; rest: all values that no class has",
    )
    val: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="share of the images that validate; unset: train.txt and val.txt list them"
    )
    test: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="share of the images that test, beside `val`; unset: those in test.txt if it exists",
    )
    seed: Seed = Field(default=0, description="of the split by share")
    unlabelled: str | None = Field(
        default=None,
        description="folder of images without masks, relative to root, or a file that lists such images; "
        "they become the split unlabelled",
    )

    @model_validator(mode="after")
    def _agree(self) -> "Options":
        if isinstance(self.classes, dict):
            labels_of(self.classes, self.void)
        elif self.void:
            raise ValueError(f"void: found {self.void}; allowed: nothing; write void into {self.classes}")
        if self.test is not None and (self.val is None or self.val + self.test >= 1):
            raise ValueError(
                f"test: found {self.test} beside val: {self.val or 'unset'}; allowed: a share, with val set "
                "and both together less than 1; or list the images in test.txt"
            )
        if Path(self.images) == Path(self.masks) and not self.mask_suffix:
            raise ValueError(
                f"masks: found {self.masks}, the folder of the images; allowed: another folder, or the same "
                "one with mask_suffix, such as _mask for a.jpg and a_mask.png"
            )
        return self


class Folder(Reader):
    """`images/a.jpg` and `masks/a.png`, also in subfolders; hidden files are left out."""

    Options = Options
    own_classes = True

    def __init__(self, options: Any, root: str | Path) -> None:
        super().__init__(options, root)
        if not self.root.is_dir():
            raise UserError(f"{root}: no such folder; {ROOT_HINT}")
        card = self._card()
        self.classes = tuple(card.classes)
        self.labels = labels_of(card.classes, card.void)
        self.rest_is_void = card.void == REST
        first = {index: label for label, index in reversed(self.labels.items())}
        self.palette = tuple(
            _shade(index) if first[index] < COLOUR else _rgb(first[index])
            for index in range(len(self.classes))
        )

    def pairs(self) -> dict[str, list[Pair]]:
        self.remarks = []
        images = self._found(self.options.images, IMAGES)
        masks = self._found(self.options.masks, MASKS)
        bare = self._unlabelled(images)
        images = {name: image for name, image in images.items() if image not in bare}
        images = self._without_masks(images, masks)
        self._remark_lone(images, masks)
        if self.options.val is not None:
            self._refuse_lists(self.options.val)
            splits = self._divided(self._paired(list(images), images, masks), self.options.val)
        else:
            names = ["train", "val", *(["test"] if (self.root / "test.txt").exists() else [])]
            splits = {
                split: self._paired(self._listed(self.root / f"{split}.txt", images), images, masks)
                for split in names
            }
            self._remark_unlisted(images, splits)
        return {**splits, UNLABELLED: [Pair(image, None) for image in bare]} if bare else splits

    def _unlabelled(self, images: Mapping[str, Path]) -> list[Path]:
        """Images without masks, of a folder or a list."""
        given = self.options.unlabelled
        if given is None:
            return []
        if (self.root / given).is_file():
            return [images[name] for name in self._listed(self.root / given, images)]
        return list(self._found(given, IMAGES).values())

    def _card(self) -> Classes:
        if isinstance(self.options.classes, dict):
            return Classes(classes=self.options.classes, void=self.options.void)
        path = self.root / self.options.classes
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:
            raise UserError(
                f"{path}: not found; list the classes there, such as `{CLASS_FILE}`, or in the recipe's "
                "prepare.classes; docs/your-data.md shows how"
            ) from None
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from None
        raw = load_yaml(text, str(path))
        if not isinstance(raw, dict) or "classes" not in raw:
            raise UserError(
                f"{path}: found no `classes`; allowed: a YAML file such as `{CLASS_FILE}`; or write the same "
                "mapping into the recipe as prepare.classes"
            )
        return validate(Classes, raw, str(path))

    def _found(self, folder: str, suffixes: tuple[str, ...]) -> dict[str, Path]:
        """Files of a folder, relative to the root; keys are paths relative to the folder, without suffix."""
        found: dict[str, Path] = {}
        home = self.root / folder
        files, others = sift(walk(home), suffixes)
        if others:
            self.remarks.append(f"Files that are not read: {listing(others, self.root)}.")
        for path in files:
            inside = path.relative_to(home)
            name = inside.with_suffix("").as_posix()
            if name in found:
                raise UserError(f"{home}: found {found[name].name} and {path.name}; allowed: one of them")
            found[name] = Path(folder) / inside
        if not found:
            raise _none_of(suffixes, home, "masks" if suffixes is MASKS else "images", others)
        return found

    def _without_masks(self, images: Mapping[str, Path], masks: Mapping[str, Path]) -> dict[str, Path]:
        """Leave out files that are masks of other images, for layouts where the two folders overlap."""
        taken = {masks.get(name + self.options.mask_suffix): name for name in images}
        return {name: image for name, image in images.items() if taken.get(image, name) == name}

    def _remark_lone(self, images: Mapping[str, Path], masks: Mapping[str, Path]) -> None:
        """Remark on masks without an image; in a shared folder, a file may be in both mappings."""
        wanted = {name + self.options.mask_suffix for name in images}
        lone = [path for name, path in masks.items() if name not in wanted and path not in images.values()]
        if lone:
            self.remarks.append(f"Masks without an image: {len(lone)}, such as {lone[0]}.")

    def _remark_unlisted(self, images: Mapping[str, Path], splits: Mapping[str, list[Pair]]) -> None:
        listed = {pair.image for pairs in splits.values() for pair in pairs}
        if unlisted := [image for image in images.values() if image not in listed]:
            self.remarks.append(f"Images that no list names: {len(unlisted)}, such as {unlisted[0]}.")

    def _refuse_lists(self, share: float) -> None:
        lists = [name for name in ("train.txt", "val.txt", "test.txt") if (self.root / name).exists()]
        if lists:
            raise UserError(
                f"{self.root}: found {' and '.join(lists)}, and prepare.val: {share} in the recipe; allowed: "
                "one of the two: remove `val` from the recipe to use the lists, or move the lists elsewhere"
            )

    def _listed(self, listed: Path, images: Mapping[str, Path]) -> list[str]:
        fix = (
            "list the images of the split there, a name per line, or set prepare.val to the share that "
            "validates"
        )
        lines = read_list(listed, fix)
        names = []
        for number, line in enumerate(map(str.strip, lines), start=1):
            # A dot does not always begin a suffix: a.v2 is a whole name.
            path = Path(line)
            has_suffix = line not in images and path.suffix.lower() in IMAGES
            name = (path.with_suffix("") if has_suffix else path).as_posix() if line else ""
            if name and name not in images:
                raise UserError(
                    f"{listed}, line {number}: found {line!r}; allowed: one image per line, by its name "
                    f"relative to {self.root / self.options.images}, such as {_meant(line, images)}"
                )
            names.append(name)
        return list(filter(None, names))

    def _paired(
        self, names: Sequence[str], images: Mapping[str, Path], masks: Mapping[str, Path]
    ) -> list[Pair]:
        suffix = self.options.mask_suffix
        bare = [name for name in names if name + suffix not in masks]
        if bare:
            count = "1 image" if len(bare) == 1 else f"{len(bare)} images"
            raise UserError(
                f"{self.root / self.options.masks}: found no mask ({', '.join(MASKS)}) for {count}, "
                f"such as {bare[0]}{suffix}{_near(bare[0], suffix, masks)}; add them, remove the images, "
                "or set prepare.mask_suffix"
            )
        return [Pair(images[name], masks[name + suffix]) for name in names]

    def _divided(self, pairs: Sequence[Pair], share: float) -> dict[str, list[Pair]]:
        """Split by shares; copies of one original stay in one split."""
        table = label_table(self.labels)
        with ThreadPoolExecutor() as pool:
            present = np.array(list(pool.map(lambda pair: self._present(table, pair), pairs)))
        numbers: dict[Path, int] = {}
        groups = np.array([numbers.setdefault(original(pair.image), len(numbers)) for pair in pairs])
        splits = np.full(len(pairs), "train", dtype=object)
        splits[stratify(present, share, self.options.seed, groups)] = "val"
        if self.options.test is not None:
            rest = np.flatnonzero(splits == "train")
            of_the_rest = self.options.test / (1 - share)
            tests = stratify(present[rest], of_the_rest, self.options.seed, _numbered(groups[rest]))
            splits[rest[tests]] = "test"
        found: dict[str, list[Pair]] = {"train": [], "val": [], **({"test": []} if self.options.test else {})}
        for pair, split in zip(pairs, splits, strict=True):
            found[split].append(pair)
        return found

    def _present(self, table: NDArray[np.uint8], pair: Pair) -> NDArray[np.bool_]:
        """Which classes occur in a mask; none if it cannot be read, since `prepare` reports that later."""
        assert pair.mask is not None
        try:
            classes = read_classes(self.root / pair.mask, table)
        except UNREADABLE:
            classes = np.empty(0, dtype=np.uint8)
        return np.bincount(classes.ravel(), minlength=VOID)[: len(self.classes)] > 0


def _numbered(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same groups, numbered from 0 without gaps."""
    return np.unique(groups, return_inverse=True)[1]


def labels_of(classes: Mapping[str, Any], void: Sequence[Any] | str = ()) -> dict[int, int]:
    """Label → class index or void. The values are all numbers 0 to 255, or all [red, green, blue].

    A class may have several: a list of values, or a list of colours. A list of three numbers is a colour,
    unless other classes have plain numbers or other lists of numbers.

    Raises:
        ValueError: a value is not allowed, two values are the same, or the name of a class is not allowed.

    Example:
        >>> labels_of({"ground": 0, "animal": [7, 8, 9]})
        {0: 0, 7: 1, 8: 1, 9: 1, 255: 255}
    """
    if not 2 <= len(classes) < VOID:
        raise ValueError(f"classes: found {len(classes)} of them; allowed: 2 to {VOID - 1}")
    listed = [(f"classes.{name}", value, index) for index, (name, value) in enumerate(classes.items())]
    listed += [(f"void.{place}", value, VOID) for place, value in enumerate([] if void == REST else void)]
    colours = all(_is_colour(value) or _are_colours(value) for _, value, _ in listed)
    labels: dict[int, int] = {}
    for key, values, index in listed:
        if key.removeprefix("classes.") in COLUMNS:
            raise ValueError(
                f"{key}: has the name of an index column; allowed: any name except {', '.join(COLUMNS)}"
            )
        for value in _several(key, values, colours):
            label = _label(key, value)
            if label in labels:
                raise ValueError(f"{key}: found {value}, which is used already; allowed: a value of its own")
            labels[label] = index
    if min(labels) < COLOUR <= max(labels):
        raise ValueError("classes: found numbers and colours; allowed: only one kind, also for void")
    if min(labels) < COLOUR:
        labels.setdefault(VOID, VOID)
    return labels


def _several(key: str, values: Any, colours: bool) -> list[Any]:
    """The values of a class, one or several. `colours`: a list of three numbers is a colour."""
    if not isinstance(values, list) or (_is_colour(values) and (colours or len(set(map(str, values))) < 3)):
        return [values]
    if len(set(map(str, values))) < max(1, len(values)):
        raise ValueError(f"{key}: found {values!r}; {ALLOWED}")
    return values


def _is_colour(value: Any) -> bool:
    """Whether a value is a list of three numbers."""
    return isinstance(value, list) and len(value) == 3 and not any(isinstance(part, list) for part in value)


def _are_colours(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_colour, value))


def _label(key: str, value: Any) -> int:
    colour = _is_colour(value)
    numbers = value if colour else [value]
    if any(type(number) is not int or not 0 <= number <= 255 for number in numbers):
        raise ValueError(f"{key}: found {value!r}; {ALLOWED}")
    return COLOUR + int.from_bytes(bytes(value), "big") if colour else value


def _rgb(label: int) -> tuple[int, int, int]:
    red, green, blue = (label - COLOUR).to_bytes(3, "big")
    return red, green, blue


def _shade(index: int) -> tuple[int, int, int]:
    """A colour for a class without one: hues are a golden ratio apart, so that neighbours differ."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.7, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def _none_of(suffixes: Iterable[str], home: Path, kind: str, others: Sequence[Path]) -> UserError:
    """The error for a folder without images or masks; it says what the folder contains instead."""
    if not home.is_dir():
        return UserError(f"{home}: no such folder; name it in prepare.{kind}, or {ROOT_HINT}")
    there = Counter(path.suffix.lower() or path.name for path in others if path.is_file())
    if not there:
        return UserError(f"{home}: contains no file; name another folder in prepare.{kind}, or {ROOT_HINT}")
    most = [f"{count} × {suffix}" for suffix, count in there.most_common(3)]
    hint = TO_MASKS.get(there.most_common(1)[0][0], "convert them to PNG")
    return UserError(
        f"{home}: contains {', '.join(most)}; allowed: {kind} of {', '.join(suffixes)}; "
        f"{hint if kind == 'masks' else 'convert them to PNG'}, or name another folder in prepare.{kind}; "
        "docs/your-data.md shows how"
    )


def _meant(line: str, images: Mapping[str, Path]) -> str:
    """The name of the image that an invalid line probably means, else the name of the first image."""
    first = Path((line.split() or [""])[0].replace("\\", "/"))
    first = first.with_suffix("") if first.suffix.lower() in IMAGES else first
    tails = (Path(*first.parts[start:]).as_posix() for start in range(len(first.parts)))
    return next((tail for tail in tails if tail in images), next(iter(images)))


def _near(name: str, suffix: str, masks: Iterable[str]) -> str:
    """A hint if there is a mask with almost the expected name."""
    for mask in masks:
        rest = mask.removeprefix(name)
        if mask.startswith(name) and not rest[:1].isalnum():
            return f" (there is {mask}: set prepare.mask_suffix to {rest!r}?)"
        if _folded(mask) == _folded(name + suffix):
            return f" (there is {mask}, which differs in capitals or in its Unicode form: rename it?)"
    return ""


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
