"""A prepared dataset: `card.json` says what it is, `index.csv` lists its images.

Training and evaluation read these two and the files that the index names. Only `prepare` uses the reader.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from attnfd import discovery, paths
from attnfd.config.params import Params
from attnfd.config.section import Section, validate
from attnfd.data.depth import Depth
from attnfd.data.strata import stratify
from attnfd.errors import UserError
from attnfd.runtime import machine

INDEX = "index.csv"
WARNINGS = "warnings.json"
SPLITS = ("train", "val")
"""Every dataset has these splits; `training.splits` can name more."""
SCORED = ("val", "test")
"""No network is trained on these: the best epoch is chosen on the first, results are from the second."""
TEXT_COLUMNS = ("split", "id", "image", "mask", "image_sha256", "mask_sha256")
COLUMNS = (
    "split", "id", "image", "mask", "height", "width",
    "image_bytes", "mask_bytes", "image_sha256", "mask_sha256", "void",
)  # fmt: skip
"""Columns of the index; each class has one more column, which counts its pixels."""


class Split(Section):
    """A split in numbers: images, smallest and largest sides in pixels, void pixels, pixels per class."""

    images: int
    height: tuple[int, int]
    width: tuple[int, int]
    void: int
    pixels: dict[str, int]

    @property
    def has_masks(self) -> bool:
        """Whether its images have labels."""
        return self.void + sum(self.pixels.values()) > 0

    def shares(self) -> dict[str, float]:
        """The share of every class in all pixels; the last entry is void."""
        counts = {**self.pixels, "void": self.void}
        total = max(1, sum(counts.values()))
        return {name: count / total for name, count in counts.items()}


class Card(Section):
    """Describes a dataset. `sha256` is the hash of the index, which covers the content of every file.

    `depth` says how images of more than 8 bits are scaled; null: the dataset has no such images.
    """

    name: str
    reader: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    void: int
    labels: dict[int, int]
    depth: Depth | None = None
    splits: dict[str, Split]
    sha256: str

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read the card that `prepare` wrote.

        Raises:
            UserError: the card is missing or damaged.
        """
        file = Path(folder, paths.CARD)
        written = _written(file)
        try:
            return validate(cls, json.loads(written), paths.CARD)
        except ValueError as error:
            raise UserError(
                f"{file}: damaged ({error}); run dvc repro -f prepare@{file.parent.name}"
            ) from None


@dataclass(frozen=True)
class Prepared:
    """Card and index of a dataset, and the folder that the paths of the index start from."""

    card: Card
    index: pd.DataFrame
    root: Path

    @classmethod
    def load(cls, folder: str | Path, root: str | Path) -> Self:
        """Read what `prepare` wrote, and check that the files below `root` still have their sizes.

        Raises:
            UserError: the dataset is not prepared, its card or index is damaged or edited, or a file is
                missing or has changed since `prepare`.
        """
        folder = Path(folder)
        card, listed = Card.load(folder), _written(folder / INDEX)
        if hashlib.sha256(listed).hexdigest() != card.sha256:
            raise UserError(
                f"{folder / INDEX}: damaged or edited since it was written; "
                f"run dvc repro -f prepare@{folder.name}"
            )
        text = dict.fromkeys(TEXT_COLUMNS, str)
        index = pd.read_csv(BytesIO(listed), dtype=text, keep_default_na=False)
        prepared = cls(card, index, Path(root))
        prepared._check_sizes()
        return prepared

    def write(self, folder: str | Path) -> None:
        """Write card and index; equal content gives equal bytes."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / paths.CARD).write_text(self.card.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (folder / INDEX).write_bytes(to_csv(self.index))

    def split(self, *names: str) -> pd.DataFrame:
        """The rows of one or several splits, numbered from 0.

        Raises:
            UserError: there is no such split.
        """
        for name in names:
            discovery.one_of(name, tuple(self.card.splits), f"splits of {self.card.name}")
        return self.index[self.index["split"].isin(names)].reset_index(drop=True)

    @property
    def reported(self) -> str:
        """The split on which results are reported: `test` if there is one, else `val`."""
        return "test" if "test" in self.card.splits else "val"

    def held_out(
        self, splits: Sequence[str], share: float, seed: int, unlabelled: Sequence[str] = ()
    ) -> "Prepared":
        """The dataset of a trial: some training images become `val`, the others stay; nothing else is kept.

        Images with the same content stay on the same side.

        Args:
            unlabelled: more splits that a trial trains on, without the images of `val`.

        Raises:
            UserError: there is no such split, or one side would have no image.
        """
        rows = self.split(*splits)
        present = rows[list(self.card.classes)].to_numpy() > 0
        groups = pd.factorize(rows["image_sha256"])[0]
        chosen = stratify(present, share, seed, groups)
        if chosen.all() or not chosen.any():
            raise UserError(
                f"tune.share: found {share}, which leaves {np.count_nonzero(~chosen)} of the {len(rows)} "
                f"training images of {self.card.name} to train on; allowed: a share that leaves some on both "
                "sides"
            )
        rows.loc[chosen, "split"] = "val"
        bare = self.split(*unlabelled)
        bare = bare[~bare["image_sha256"].isin(rows.loc[chosen, "image_sha256"])]
        return replace(self, index=pd.concat([rows, bare], ignore_index=True))

    def read(self, name: str, sha256: str) -> BytesIO:
        """The content of a file of the index.

        Raises:
            UserError: it is missing, or has changed since the dataset was prepared.
        """
        path = self.root / name
        try:
            data = path.read_bytes()
        except OSError:
            raise self._missing(path) from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise self._changed(path, "found other content")
        return BytesIO(data)

    def check_classes(self, classes: int, model: Path) -> None:
        """Check that a network has this dataset's number of classes.

        Raises:
            UserError: the numbers differ.
        """
        if classes != len(self.card.classes):
            raise UserError(
                f"{model}: has {classes} classes, {self.card.name} has {len(self.card.classes)}; "
                "train it on this dataset with `dvc repro`"
            )

    def _check_sizes(self) -> None:
        for kind in ("image", "mask"):
            there = self.index[self.index[kind] != ""]
            for name, size in zip(there[kind], there[f"{kind}_bytes"], strict=True):
                path = self.root / name
                try:
                    found = path.stat().st_size
                except OSError:
                    raise self._missing(path) from None
                if found != size:
                    raise self._changed(path, f"found {found} bytes, expected {size}")

    def _missing(self, path: Path) -> UserError:
        return UserError(
            f"{path}: not found; it existed when {self.card.name} was prepared: restore it, "
            f"or set {machine.root_key(self.card.name)} to the dataset's folder"
        )

    def _changed(self, path: Path, found: str) -> UserError:
        return UserError(f"{path}: {found}: changed since prepare; run dvc repro -f prepare@{self.card.name}")


def read_warnings(folder: str | Path) -> list[str]:
    """The warnings of `prepare`.

    Raises:
        UserError: their file is missing or damaged.
    """
    file = Path(folder, WARNINGS)
    written = _written(file)
    try:
        return [str(line) for line in json.loads(written)]
    except (ValueError, TypeError) as error:
        raise UserError(f"{file}: damaged ({error}); run dvc repro -f prepare@{file.parent.name}") from None


def write_warnings(folder: str | Path, warnings: Sequence[str]) -> None:
    """Write the warnings to their own file: the report depends on them, training does not."""
    text = json.dumps(list(warnings), indent=2, ensure_ascii=False)
    Path(folder, WARNINGS).write_text(text + "\n", encoding="utf-8")


def _written(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        raise UserError(
            f"{file}: not found; prepare the dataset: dvc repro prepare@{file.parent.name}"
        ) from None


def per_cent(share: float) -> str:
    """A share of pixels in per cent; a small share is never shown as 0.

    Example:
        >>> per_cent(0), per_cent(1.2e-6), per_cent(0.25)
        ('none', '0.0001', '25.00')
    """
    if share == 0:
        return "none"
    if share >= 1e-4:
        return f"{100 * share:.2f}"
    return np.format_float_positional(100 * share, precision=1, fractional=False, trim="-")


def dataset_root(params: Params, dataset: str, folder: Path) -> Path:
    """The folder that a dataset's paths start from.

    For a reader with the option `root`: the folder from the machine's settings, else from the option, both
    relative to the main root. A reader without this option draws into the prepared `folder`.

    Raises:
        UserError: a machine setting would apply to several recipes that read different folders.
    """
    settings = params.prepare(dataset)
    option = settings.options.get("root")
    if option is None:
        return folder
    recipes = {name: params.prepare(name) for name in params.raw["recipes"]}
    options = {
        name: str(other.options.get("root"))
        for name, other in recipes.items()
        if other.reader == settings.reader
    }
    return paths.main_root() / Path(machine.root(dataset, settings.reader, options) or option).expanduser()


def to_csv(index: pd.DataFrame) -> bytes:
    return index.to_csv(index=False, lineterminator="\n").encode()


def open_prepared(params: Params, dataset: str) -> Prepared:
    """The prepared dataset that a recipe names."""
    folder = paths.prepared(dataset)
    return Prepared.load(folder, dataset_root(params, dataset, folder))
