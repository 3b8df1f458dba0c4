"""Segment one image, as in a notebook: its classes, overlay and areas."""

import base64
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn

from attnfd.data.depth import LARGEST, Pixels, measure, one_level, scale
from attnfd.data.images import UNREADABLE, read_pixels
from attnfd.deploy.views import WHOLE, Views, segment
from attnfd.errors import UserError
from attnfd.evaluation.tiles import Tiles
from attnfd.models.checkpoint import Legend

ALLOWED = "a path, a PIL image, an array (H, W, 3) or (H, W), or a tensor (3, H, W)"


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """The result of a model on an image. A notebook shows the overlay and the areas of the classes.

    `classes`: the class of every pixel (H, W), uint8. `image`: RGB (H, W, 3), uint8. `legend`: names and
    colours of the classes. `probabilities`: of the classes (K, H, W), float16, if you asked for them.
    """

    classes: NDArray[np.uint8]
    image: NDArray[np.uint8]
    legend: Legend
    probabilities: NDArray[np.float16] | None = None

    def class_map(self) -> Image.Image:
        """The classes as an index image with the palette."""
        indexed = Image.fromarray(self.classes)
        indexed.putpalette([channel for colour in self.legend.palette for channel in colour])
        return indexed

    def overlay(self) -> Image.Image:
        """The image blended with the colours of its classes, half each."""
        return Image.blend(Image.fromarray(self.image), self.class_map().convert("RGB"), 0.5)

    def areas(self) -> pd.DataFrame:
        """A row per class: `class`, its `pixels`, and their `share` of the image."""
        pixels = np.bincount(self.classes.ravel(), minlength=len(self.legend.classes))
        return pd.DataFrame({"class": self.legend.classes, "pixels": pixels, "share": pixels / pixels.sum()})

    def found(self) -> list[tuple[str, float, tuple[int, int, int]]]:
        """Name, share and colour of the classes in the image, the largest first."""
        rows = zip(self.legend.classes, self.areas()["share"], self.legend.palette, strict=True)
        return sorted((row for row in rows if row[1] > 0), key=lambda row: -row[1])

    def __repr__(self) -> str:
        height, width = self.classes.shape
        found = ", ".join(f"{name} {share:.1%}" for name, share, _ in self.found())
        return f"Prediction({height}×{width} pixels: {found})"

    def _repr_html_(self) -> str:
        content = BytesIO()
        self.overlay().save(content, format="PNG")
        names = "".join(
            f'<div><span style="color: rgb{colour}">■</span> {escape(name)} {share:.1%}</div>'
            for name, share, colour in self.found()
        )
        return f'<img src="data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}">{names}'


def predict(
    network: nn.Module,
    legend: Legend,
    image: Any,
    *,
    tiles: Tiles | None = None,
    views: Views = WHOLE,
    probabilities: bool = False,
) -> Prediction:
    """Segment an image on the device of the network; see `Model.predict`."""
    name = image if isinstance(image, str | Path) else "image"
    try:
        pixels = read_pixels(image) if isinstance(image, str | Path) else _pixels(image)
        values = measure(pixels)
        if one_level(values, legend.depth) and not values.same:
            raise ValueError(f"values {values.lowest} to {values.highest} become one grey level")
        rgb = scale(pixels, legend.depth)
    except UNREADABLE as error:
        raise UserError(f"{name}: cannot be used: {error}") from None
    batch = torch.from_numpy(np.stack([rgb])).to(next(network.parameters()).device)
    classes, shares = segment(
        views.of(network), batch.permute(0, 3, 1, 2), tiles, probabilities=probabilities
    )
    return Prediction(classes[0], rgb, legend, None if shares is None else shares[0])


def _pixels(image: Any) -> Pixels:
    """An image in memory, converted to what `read_pixels` returns.

    Raises:
        TypeError: the object is not one of `ALLOWED`.
        ValueError: its values or its shape are not allowed.
    """
    if isinstance(image, Image.Image):
        turned = ImageOps.exif_transpose(image)
        deep = turned.mode == "F" or turned.mode.startswith("I")
        return _whole(np.array(turned if deep else turned.convert("RGB")), deep=deep)
    shape = tuple(getattr(image, "shape", ()))
    if isinstance(image, Tensor):
        fits = len(shape) == 3 and shape[0] == 3
        values = image.detach().cpu().movedim(0, -1).numpy() if fits else np.empty(0)
    elif isinstance(image, np.ndarray):
        fits, values = len(shape) == 2 or (len(shape) == 3 and shape[2] == 3), image
    else:
        raise TypeError(f"image: found {type(image).__name__}; pass {ALLOWED}, one at a time")
    if not fits or 0 in shape:
        raise ValueError(f"found the shape {shape}; allowed: {ALLOWED}")
    return _whole(values)


def _whole(values: NDArray[Any], *, deep: bool = False) -> Pixels:
    """Integers as uint8, or as uint16 if they are `deep`, have a type of 16 bits or are above 255."""
    if values.dtype.kind == "f":
        raise ValueError("found floats; allowed: whole numbers, such as (255 * image).round() as uint8")
    if values.dtype.kind not in "iu":
        raise ValueError(f"found values of type {values.dtype}; allowed: whole numbers")
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > LARGEST:
        raise ValueError(f"found values from {lowest} to {highest}; allowed: 0 to {LARGEST}")
    if deep or values.dtype == np.uint16 or highest > 255:
        return values.astype(np.uint16)
    grey = values[..., None] if values.ndim == 2 else values
    return np.broadcast_to(grey, (*grey.shape[:2], 3)).astype(np.uint8)
