"""Segment images: class maps, overlays, a contact sheet and class areas."""

import glob
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import nn

from attnfd.data.depth import FEW, FULL, Depth, measure, one_level, scale, used
from attnfd.data.images import FORMATS, IMAGES, UNREADABLE, drops_a_band, read_pixels
from attnfd.deploy.prediction import Prediction
from attnfd.deploy.sheet import ContactSheet, with_legend
from attnfd.deploy.source import Model
from attnfd.deploy.views import WHOLE, Views, segment
from attnfd.errors import UserError
from attnfd.evaluation.tiles import Tiles, describe
from attnfd.models.checkpoint import Legend
from attnfd.readers.base import Found, leads_back, listing, sift, twins, walk
from attnfd.readers.cityscapes import Cityscapes
from attnfd.runtime.fabric import start_fabric

CLASSES = "classes"
OVERLAYS = "overlays"
AREAS = "areas.csv"
SHEET = "contact_sheet.png"
PROBABILITIES = "probabilities"
WAITING = 4
"""Batches of decoded images that may wait for other images of the same size."""

logger = logging.getLogger(__name__)


class Decoded(NamedTuple):
    """An image as RGB (H, W, 3), uint8; `path` is relative to the folder that all sources share.

    `dull`: it has more than 8 bits, and uses so few grey levels that the model may expect other values.
    `drops_a_band`: it has a fourth band, or transparency, which is not read.
    """

    path: Path
    pixels: NDArray[np.uint8]
    dull: bool = False
    drops_a_band: bool = False


def predict(
    model: Model,
    sources: Sequence[str],
    out: str | Path,
    *,
    batch_size: int,
    overlays: bool,
    overwrite: bool,
    tiles: Tiles | None = None,
    views: Views = WHOLE,
    probabilities: bool = False,
    cityscapes_ids: bool = False,
) -> int:
    """Segment images of any size, and write the results into a folder.

    The folder gets `classes/<path>.png` (class indices, with the palette), `overlays/<path>.png` with a
    legend, `contact_sheet.png`, and `areas.csv`: image, class, pixels, and their share of the image. With
    `probabilities` it also gets `probabilities/<path>.npz`: `probabilities` (K, H, W), float16, and the names
    of the `classes` (K,).

    Args:
        sources: images, folders (searched with their subfolders) and patterns.
        batch_size: images of one size per forward pass.
        overlays: whether to write the overlays and the contact sheet.
        overwrite: whether `out` may already contain files.
        tiles: how larger images are divided; None for whole images.
        views: the views whose probabilities are averaged.
        probabilities: whether to write the probabilities of all classes.
        cityscapes_ids: write the label ids of Cityscapes instead of class indices, without a palette.

    Returns:
        How many images were segmented.

    Raises:
        UserError: before anything is written: a source has no images, two images would be written to one
            file, `out` is in use, or the model has no label ids. After all other images are done: images
            cannot be read.
    """
    out = Path(out)
    if out.exists() and not (overwrite and out.is_dir()) and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out}: already exists; name another folder, or add --overwrite")
    ids = label_ids(model) if cityscapes_ids else None
    images = find(sources, without=out)
    device = start_fabric("32-true").device
    network = views.of(model.network.to(device).eval())
    if tiles is not None:
        _log_memory(network, len(model.legend.classes), tiles, images.values(), probabilities=probabilities)
        batch_size = 1  # Large images must not wait in memory for others of the same size.
    areas: dict[Path, NDArray[np.int64]] = {}
    dull: list[Path] = []
    banded: list[Path] = []
    sheet = ContactSheet(images) if overlays else None
    for batch in batches(_decode(images, model.legend.depth, batch_size), batch_size):
        dull += (image.path for image in batch if image.dull)
        banded += (image.path for image in batch if image.drops_a_band)
        pixels = torch.from_numpy(np.stack([image.pixels for image in batch])).to(device)
        maps, shares = segment(network, pixels.permute(0, 3, 1, 2), tiles, probabilities=probabilities)
        for number, (image, classes) in enumerate(zip(batch, maps, strict=True)):
            own = None if shares is None else shares[number]
            found = Prediction(classes, image.pixels, model.legend, own)
            _write(image.path, found, out, sheet, ids)
            areas[image.path] = np.bincount(classes.ravel(), minlength=len(model.legend.classes))
    if areas:
        in_order = {path: areas[path] for path in images if path in areas}
        _table(in_order, model.legend).to_csv(out / AREAS, index=False, lineterminator="\n")
        if sheet is not None:
            sheet.draw().save(out / SHEET)
    if dull:
        _warn_of_dull(dull, model.legend.depth)
    if banded:
        logger.warning("%d images have a band that is not read, such as %s", len(banded), banded[0])
    if unread := [str(file) for path, file in images.items() if path not in areas]:
        done = f"the others are in {out}" if areas else "nothing was written"
        raise UserError(
            f"{len(unread)} of {len(images)} images cannot be read, such as {unread[0]}; "
            f"fix them or leave them out; {done}"
        )
    return len(areas)


def label_ids(model: Model) -> NDArray[np.uint8]:
    """The Cityscapes label id of every class index, as the test server of Cityscapes needs them.

    Raises:
        UserError: the classes of the model are not those of Cityscapes.
    """
    ids, legend = dict(zip(Cityscapes.classes, Cityscapes.ids, strict=True)), model.legend
    if set(legend.classes) != ids.keys():
        raise UserError(
            f"--cityscapes-ids: found {model.name}, which has the {len(legend.classes)} classes of "
            f"{legend.dataset}; allowed: a model with the {len(ids)} classes of Cityscapes"
        )
    return np.array([ids[name] for name in legend.classes], np.uint8)


def _log_memory(
    network: nn.Module, classes: int, tiles: Tiles, files: Iterable[Path], *, probabilities: bool
) -> None:
    """Print the memory that the largest image will need, before anything is computed."""
    sizes = []
    for file in files:
        try:
            with Image.open(file, formats=FORMATS) as image:
                sizes.append((image.height, image.width))
        except UNREADABLE:
            continue  # `_decode` warns of images that cannot be read.
    if sizes:
        line = describe(network, classes, tiles, sizes, probabilities=probabilities)
        Console(soft_wrap=True, highlight=False).print(line)


def find(sources: Sequence[str], *, without: Path) -> dict[Path, Path]:
    """Every image once, by its path relative to the folder that all sources share.

    Args:
        without: a folder that is not searched.

    Raises:
        UserError: a source has no images, or two images would be written to one file.
    """
    listed = [_listed(source) for source in sources]
    shared = os.path.commonpath([root for root, _ in listed])
    own = Path(os.path.abspath(without))
    files = {Path(os.path.abspath(file)): file for _, found in listed for file in found.files}
    others = {Path(os.path.abspath(file)): file for _, found in listed for file in found.others}
    passed = [file for place, file in others.items() if own not in place.parents]
    if passed:
        logger.warning("files that are not read: %s", listing(passed))
    images: dict[Path, Path] = {}
    names: dict[Path, Path] = {}
    for place, file in files.items():
        if own in place.parents:
            continue
        path = place.relative_to(shared)
        other = names.setdefault(path.with_suffix(""), file)
        if other != file:
            raise UserError(
                f"{other}, {file}: their outputs would have one name; rename one, or predict it separately"
            )
        images[path] = file
    if same := twins(images):
        logger.warning(
            "names that differ only in capitals: %d images, such as %s and %s; "
            "on a disk that ignores this difference, one output overwrites the other",
            sum(map(len, same)),
            *same[0][:2],
        )
    if not images:
        raise UserError(f"{', '.join(sources)}: found no images; allowed: those outside of {without}")
    return images


def _listed(source: str) -> tuple[str, Found]:
    """The absolute folder that a source starts from, and the files in it."""
    path = Path(source)
    if path.is_file():
        return os.path.abspath(path.parent), Found([path], [])
    if path.is_dir():
        root, found = path, sift(walk(path), IMAGES)
    elif glob.has_magic(source):
        fixed = next(number for number, part in enumerate(path.parts) if glob.has_magic(part))
        root = Path(*path.parts[:fixed])
        found = sift(filter(_is_end, _matches(root, path.parts[fixed:])), IMAGES)
    else:
        raise UserError(f"{source}: not found; allowed: images, folders and patterns such as 'photos/*.jpg'")
    if not found.files:
        there = f" ({listing(found.others)})" if found.others else ""
        raise UserError(f"{source}: found no images{there}; allowed: files that end in {', '.join(IMAGES)}")
    return os.path.abspath(root), found


def _matches(root: Path, pattern: tuple[str, ...]) -> Iterator[Path]:
    """The paths below a folder that match a pattern; `**` is any number of folders."""
    if "**" not in pattern:
        return (root / name for name in glob.iglob(os.path.join(*pattern), root_dir=root))
    # Python's own search would follow links that lead back without end.
    return (path for path in walk(root) if _fits(path.relative_to(root).parts, pattern))


def _fits(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern or not parts:
        return parts == pattern or set(pattern) == {"**"}
    if pattern[0] == "**":
        return _fits(parts, pattern[1:]) or _fits(parts[1:], pattern)
    return fnmatch(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _is_end(path: Path) -> bool:
    """Whether a path is a file that is not hidden, and was not reached through a link that leads back."""
    return not (path.is_dir() or path.name.startswith(".") or any(map(leads_back, path.parents)))


def _decode(images: Mapping[Path, Path], depth: Depth | None, at_once: int) -> Iterator[Decoded]:
    """Decode images in parallel threads, in order; warn of images that cannot be read, and leave them out."""

    def decode(job: tuple[Path, Path]) -> Decoded | None:
        path, file = job
        try:
            pixels = read_pixels(file)
            values = measure(pixels)
            if one_level(values, depth) and not values.same:
                raise ValueError(f"values {values.lowest} to {values.highest} become one grey level")
            dull = values.deep and used(values, depth) < FEW
            return Decoded(path, scale(pixels, depth), dull, drops_a_band(file))
        except UNREADABLE as error:
            logger.warning("%s: cannot be read (%s); left out", file, error)
            return None

    jobs = list(images.items())
    with ThreadPoolExecutor() as pool:
        for start in track(range(0, len(jobs), at_once), "Predicting"):
            yield from filter(None, pool.map(decode, jobs[start : start + at_once]))


def _warn_of_dull(images: Sequence[Path], depth: Depth | None) -> None:
    low, high = (depth or FULL).low, (depth or FULL).high
    why = "as in its training" if depth else "since it was trained on images of 8 bits alone"
    logger.warning(
        "%d images use fewer than %d of the 256 grey levels, such as %s: the model reads values %d to %d, %s",
        len(images), FEW, images[0], low, high, why,
    )  # fmt: skip


def batches(images: Iterable[Decoded], batch_size: int) -> Iterator[list[Decoded]]:
    """Images in batches of one size each; when too many images wait, the largest group is yielded first."""
    waiting: dict[tuple[int, ...], list[Decoded]] = {}
    for image in images:
        same = waiting.setdefault(image.pixels.shape, [])
        same.append(image)
        if len(same) == batch_size:
            yield waiting.pop(image.pixels.shape)
        elif sum(map(len, waiting.values())) == WAITING * batch_size:
            yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
    yield from waiting.values()


def _write(
    path: Path, found: Prediction, out: Path, sheet: ContactSheet | None, ids: NDArray[np.uint8] | None
) -> None:
    pictures = {CLASSES: found.class_map() if ids is None else Image.fromarray(ids[found.classes])}
    if sheet is not None:
        pictures[OVERLAYS] = with_legend(found)
        sheet.add(path, found)
    for kind, picture in pictures.items():
        picture.save(_place(out / kind / path.with_suffix(".png")))
    if found.probabilities is not None:
        np.savez_compressed(
            _place(out / PROBABILITIES / path.with_suffix(".npz")),
            probabilities=found.probabilities,
            classes=np.array(found.legend.classes),
        )


def _place(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _table(areas: Mapping[Path, NDArray[np.int64]], legend: Legend) -> pd.DataFrame:
    rows = [
        {"image": path.as_posix(), "class": name, "pixels": count, "share": count / pixels.sum()}
        for path, pixels in areas.items()
        for name, count in zip(legend.classes, pixels, strict=True)
    ]
    return pd.DataFrame(rows)
