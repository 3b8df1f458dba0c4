"""Turns an export of an annotation tool into images, masks, classes and lists for the reader `folder`."""

import hashlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rich.progress import track
from ruamel.yaml import YAML

from attnfd import discovery
from attnfd.config.section import validate
from attnfd.data.images import FORMATS, IMAGES, ORIENTATION, UNREADABLE, orientation
from attnfd.data.labels import VOID
from attnfd.data.strata import stratify
from attnfd.errors import UserError
from attnfd.imports.base import Export, Importer, Sample
from attnfd.imports.parts.canvas import Canvas, Size
from attnfd.readers.base import original
from attnfd.readers.folder import Classes

PACKAGE = "imports"
SHARE = 0.2
"""Share of the images that validate, if an export does not say which."""
SHOWN = 20
"""How many faults a message lists."""
CROP, STEP = 512, 16
"""A proposed recipe has a crop of at most this side, a multiple of `STEP`."""
REPORT = "import.txt"
ON_ITS_SIDE = range(5, 9)
"""EXIF orientations that swap height and width."""
SUFFIX = {"JPEG": ".jpg", "JPEG2000": ".jp2", "TIFF": ".tif"}
"""Suffix of an image without a file name, by its format; other formats have their own name as suffix."""


class Made(NamedTuple):
    """The result for a sample.

    Attributes:
        size: size of the upright image.
        counts: pixels of every class index (256,).
        linked: whether the image is a hard link rather than a copy.
        turned: the mask was drawn for the image as it is stored, and was turned upright with it.
    """

    size: Size
    counts: NDArray[np.int64]
    canvas: Canvas
    linked: bool
    turned: bool


def formats() -> list[str]:
    """A line for every format."""
    names = discovery.names(PACKAGE)
    width = max(map(len, names))
    return [f"{name.ljust(width)}  {_importer(name).about}" for name in names]


def import_export(name: str, source: Path, to: Path) -> str:
    """Turn an export into a new folder, or write nothing.

    Args:
        name: a file of `attnfd/imports/`.
        source: the folder of the export, or its file.
        to: the new folder.

    Returns:
        What was found and left out, and a recipe; `import.txt` in the new folder contains the same text.

    Raises:
        UserError: there is no such format, the export has another format, `to` is in use, or files have
            faults. Then the message lists the faults, and nothing is written.
    """
    source, to = source.expanduser(), to.expanduser()
    _check_places(name, source, to)
    try:
        export = _importer(name).read(source)
    except UserError as error:
        raise UserError(f"{error}{_other(name, source)}") from None
    if not export.samples and not export.faults:
        raise UserError(f"{source}: found no image with a mask{_other(name, source)}")
    repeated = Counter(sample.name.lower() for sample in export.samples)
    faults = [*export.faults, *_same_names(repeated)]
    export.samples = [sample for sample in export.samples if repeated[sample.name.lower()] == 1]
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}-") as scratch:
        folder = Path(scratch, to.name)
        made = _make(export, folder, faults)
        if faults:
            more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
            lines = "".join(f"\n  {line}" for line in [*faults[:SHOWN], *more])
            raise UserError(f"{source}: faults ({len(faults)}); nothing was written:{lines}")
        report = _finish(export, made, folder, name, source, to)
        if to.exists():
            to.rmdir()
        folder.rename(to)
    return report


def _importer(name: str) -> Importer:
    made: Importer = discovery.component(PACKAGE, name)()
    return made


def _check_places(name: str, source: Path, to: Path) -> None:
    """Refuse an unknown format, a missing source, and a target that is in use."""
    if not source.exists():
        raise UserError(f"{source}: not found; name the folder of the export")
    if source.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"):
        raise UserError(f"{source}: is an archive; unpack it, and name its folder")
    try:
        discovery.one_of(name, discovery.names(PACKAGE), "FORMAT")
    except UserError as error:
        raise UserError(f"{error}{_other(name, source)}") from None
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise UserError(f"{to}: already exists; name a new folder by --to, or remove this one")
    if to.resolve().is_relative_to(source.resolve()):
        raise UserError(f"--to: found {to}, which is inside the export; name a folder outside of it")


def _other(name: str, source: Path) -> str:
    """A hint at the formats that the export looks like, if it does not look like this one."""
    fitting = [other for other in discovery.names(PACKAGE) if _importer(other).fits(source)]
    if not fitting or name in fitting:
        return ""
    return f"; {source} looks like {' or '.join(fitting)}"


def _same_names(repeated: Mapping[str, int]) -> list[str]:
    """Faults for samples that would be written to one file."""
    return [
        f"{name}: {count} images have this name, apart from suffix and capitals; keep or list one of them"
        for name, count in repeated.items()
        if count > 1
    ]


def _make(export: Export, folder: Path, faults: list[str]) -> list[Made]:
    """Write every mask and image in parallel threads; add failures to the faults."""
    palette = _palette(export)
    made = []
    with ThreadPoolExecutor() as pool:
        jobs = pool.map(partial(_make_one, folder=folder, palette=palette), export.samples)
        for sample, done in zip(
            export.samples, track(jobs, "Importing", total=len(export.samples)), strict=True
        ):
            if isinstance(done, str):
                faults.append(done)
                continue
            faults += [f"{sample.source}: {fault}" for fault in done.canvas.faults]
            made.append(done)
    return made


def _make_one(sample: Sample, folder: Path, palette: bytes) -> Made | str:
    """Write the image and the mask of a sample; returns a fault if that is impossible."""
    try:
        image = sample.image if isinstance(sample.image, Path) else sample.image()
        kind, stored, turn = _looked_at(image if isinstance(image, Path) else BytesIO(image))
    except UNREADABLE as error:
        where = sample.image if isinstance(sample.image, Path) else sample.source
        return f"{where}: no readable image ({' '.join(str(error).split())})"
    seen = stored if turn not in ON_ITS_SIDE else stored[::-1]
    try:
        canvas = sample.draw(sample.size or seen)
    except UserError as error:
        if "pip install" in str(error):
            raise
        return str(error)
    except UNREADABLE as error:
        return f"{sample.source}: {' '.join(str(error).split())}"
    turned = canvas.size != seen and canvas.size == stored
    if turned:
        canvas.mask = _upright(canvas.mask, turn)
    if canvas.size != seen:
        (height, width), (own_height, own_width) = canvas.size, seen
        return f"{sample.source}: has {width}×{height} pixels, its image {own_width}×{own_height}"
    linked = _put(image, folder / "images" / f"{sample.name}{_suffix(image, kind)}")
    mask = Image.fromarray(canvas.mask)
    mask.putpalette(palette)
    file = folder / "masks" / f"{sample.name}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    mask.save(file)
    counts = np.bincount(canvas.mask.ravel(), minlength=256)
    canvas.clear()
    return Made(seen, counts, canvas, linked, turned)


def _looked_at(file: Path | BytesIO) -> tuple[str, Size, int]:
    """Format, stored size and EXIF orientation of an image; only its header is read."""
    with Image.open(file, formats=FORMATS) as image:
        return str(image.format), image.size[::-1], orientation(file)


def _upright(mask: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """A mask, turned upright by an EXIF orientation."""
    picture = Image.fromarray(mask)
    picture.getexif()[ORIENTATION] = orientation
    return np.array(ImageOps.exif_transpose(picture))


def _suffix(image: object, kind: str) -> str:
    if isinstance(image, Path) and image.suffix.lower() in IMAGES:
        return image.suffix
    return SUFFIX.get(kind, f".{kind.lower()}")


def _put(image: Path | bytes, file: Path) -> bool:
    """Hard-link an image if the disk supports it, else copy it; returns whether it is a link."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        file.write_bytes(image)
        return False
    try:
        os.link(image.resolve(), file)
    except OSError:
        shutil.copyfile(image, file)
        return False
    return True


def _palette(export: Export) -> bytes:
    """Colours of the masks: those of the export, or others that differ from class to class."""
    colours = {value: tuple(rgb) for value, rgb in export.palette.items()}
    shades = (hashlib.sha256(bytes([value])).digest()[:3] for value in range(256))
    return b"".join(
        bytes(colours.get(value, (0, 0, 0) if value == 0 else shade)) for value, shade in enumerate(shades)
    )


def _finish(export: Export, made: Sequence[Made], folder: Path, name: str, source: Path, to: Path) -> str:
    """Write classes, lists and the report beside images and masks; returns the report."""
    counts = np.array([done.counts for done in made])
    present = {value: text for value, text in export.classes.items() if counts[:, value].any()}
    if len(present) < 2:
        only = ", ".join(present.values()) or "void"
        raise UserError(f"{source}: its masks contain only {only}; allowed: two classes or more")
    card = {"classes": {text: value for value, text in present.items()}}
    validate(Classes, card, f"{source}")
    with (folder / "classes.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(card, file)
    splits, drawn = _splits(export.samples, counts[:, list(present)] > 0)
    for split, names in splits.items():
        (folder / f"{split}.txt").write_text("".join(f"{one}\n" for one in names), encoding="utf-8")
    absent = [text for value, text in export.classes.items() if value not in present]
    lines = [
        f"{to}: {name} of {source}",
        "",
        *_described(export, made, present, {split: len(names) for split, names in splits.items()}, drawn),
        *(f"Note: {remark}." for remark in export.remarks),
        *([f"Left out: classes without a pixel: {', '.join(absent)}."] if absent else []),
        "",
        "Paste this below `recipes:` in params.yaml, then run attnfd prepare:",
        "",
        _recipe(to, made),
    ]
    report = "\n".join(lines)
    (folder / REPORT).write_text(report + "\n", encoding="utf-8")
    return report


def _splits(samples: Sequence[Sample], present: NDArray[np.bool_]) -> tuple[dict[str, list[str]], bool]:
    """Names of the images by split; and whether the images that validate were chosen at random."""
    splits = [sample.split or "train" for sample in samples]
    drawn = "val" not in splits or "train" not in splits
    if drawn:
        rows = [row for row, split in enumerate(splits) if split != "test"]
        if not rows:
            return {"train": [], "val": [], "test": [sample.name for sample in samples]}, True
        numbers: dict[Path, int] = {}
        names = [original(Path(samples[row].name)) for row in rows]
        groups = np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=int)
        for row, validates in zip(rows, stratify(present[rows], SHARE, 0, groups), strict=True):
            splits[row] = "val" if validates else "train"
    found: dict[str, list[str]] = {"train": [], "val": []}
    for sample, split in zip(samples, splits, strict=True):
        found.setdefault(split, []).append(sample.name)
    return {split: sorted(names) for split, names in found.items()}, drawn


def _described(
    export: Export, made: Sequence[Made], present: dict[int, str], splits: dict[str, int], drawn: bool
) -> Iterator[str]:
    """What was found, a line each."""
    linked = sum(done.linked for done in made)
    counted = ", ".join(f"{count} in {split}" for split, count in splits.items())
    why = " (val is chosen at random: the export has no such split)" if drawn else ""
    yield f"Images: {len(made)}, {counted}{why}."
    kinds = {
        linked: "linked (a second name of the same file, which takes no space)",
        len(made) - linked: "copied",
    }
    yield f"Images are {' and '.join(f'{count} {kind}' for count, kind in kinds.items() if count)}."
    total = sum(done.counts.sum() for done in made)
    shares = {text: 100 * sum(done.counts[value] for done in made) / total for value, text in present.items()}
    yield f"Classes: {', '.join(f'{text} {share:.2g} %' for text, share in shares.items())}."
    void = sum(done.counts[VOID] for done in made) if VOID not in present else 0
    if void:
        yield f"Void: {100 * void / total:.2g} % of the pixels, which are ignored."
    pairs = list(zip(export.samples, made, strict=True))
    overlaps = [(sample, done.canvas.overlap) for sample, done in pairs if done.canvas.overlap]
    if export.overlaps:
        yield f"Where objects overlap, {export.overlaps} gets the pixel: {_many(overlaps, 'pixels')}."
    for text, found in (
        ("Cut at the border of their image", [(sample, done.canvas.cut) for sample, done in pairs]),
        ("Left out, smaller than a pixel", [(sample, done.canvas.lost) for sample, done in pairs]),
    ):
        some = [(sample, count) for sample, count in found if count]
        if some:
            yield f"{text}: {_many(some, 'objects')}."
    turned = [sample for sample, done in pairs if done.turned]
    if turned:
        yield (
            f"Turned by the EXIF orientation of their image: {len(turned)} masks, such as {turned[0].name}; "
            "check one of them."
        )


def _many(found: Sequence[tuple[Sample, int]], what: str) -> str:
    if not found:
        return "no pixel here"
    return f"{sum(count for _, count in found)} {what} in {len(found)} images, such as {found[0][0].name}"


def _recipe(to: Path, made: Sequence[Made]) -> str:
    """A recipe for the new folder; crops have the median size of the images, up to a limit."""
    name = (
        "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in to.name)[:64] or "mine"
    )
    middle = np.median([done.size for done in made], axis=0)
    crop = [max(STEP, int(min(side, CROP)) // STEP * STEP) for side in middle]
    return f"""  {name}:
    prepare: {{reader: folder, root: {to.as_posix()}}}
    training: {{epochs: 60, batch_size: 8, crop: {crop}, weights: imagenet, validate_every: 5}}
    train_teacher: {{}}
    distill: {{}}
    evaluate: {{}}"""
