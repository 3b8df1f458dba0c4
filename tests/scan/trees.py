"""Folders of images and masks with the content that a test needs."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from attnfd import paths
from attnfd.data.prepared import Prepared, read_warnings
from stages.prepare import prepare
from tests import tasks
from tests.data.trees import params_of
from tests.readers.trees import write


def scene(name: str) -> Image.Image:
    """A picture of a few soft areas, different for each name."""
    rng = np.random.default_rng(list(name.encode()))
    rough = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return rough.resize((160, 120), Image.Resampling.BICUBIC)


def mask(*values: int, size: tuple[int, int] = (120, 160)) -> NDArray[np.uint8]:
    """Stripes of these values, with widths as equal as possible."""
    stripes = np.arange(size[1]) * len(values) // size[1]
    return np.array(values, dtype=np.uint8)[stripes][None].repeat(size[0], 0)


def folder(
    root: Path,
    masks: dict[str, NDArray[np.uint8]],
    images: Callable[[str], Image.Image] = scene,
    val: Iterable[str] = (),
) -> Path:
    """`images/<name>.png` and `masks/<name>.png`; with list files if `val` has names."""
    for name, values in masks.items():
        image = images(name)
        write(root / f"images/{name}.png", image)
        write(root / f"masks/{name}.png", Image.fromarray(values[: image.height, : image.width]))
    if val := list(val):
        (root / "val.txt").write_text("".join(f"{name}\n" for name in val))
        (root / "train.txt").write_text("".join(f"{name}\n" for name in masks if name not in val))
    return root


def prepared(root: Path, **options: Any) -> tuple[Prepared, list[str]]:
    """Prepare the folder as dataset `mine`; return it with the warnings of `prepare`."""
    prepare(tasks.of(params_of("folder", root=str(root), **options), "mine"))
    return Prepared.load(paths.prepared("mine"), root), read_warnings(paths.prepared("mine"))
