"""Pictures of single models: predictions, confusions, attention and learning curves.

Every function returns a figure and saves nothing.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from attnfd.data.labels import VOID
from attnfd.results.examples import Examples
from attnfd.results.style import DARK, INK, MANY, OTHERS, OURS, QUIET, WIDTH, short, styled

VOID_COLOUR = (255, 255, 255)
RIGHT, WRONG = (205, 222, 235), (213, 94, 0)
TILE = 1.15
"""Width of a small picture, in inches."""
NAMED = 40
"""The most classes that a legend names."""
CELL, SMALLEST_CELL = 0.34, 0.075
"""Sides of a cell of a confusion matrix, in inches."""


@styled
def overlays(
    shown: Examples,
    preds: Mapping[str, NDArray[np.uint8]],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
) -> Figure:
    """A row per image: image, ground truth, a column per prediction. A single prediction also has its errors.

    Args:
        preds: class maps (B, H, W) by column title.
        palette: an RGB colour per class.
    """
    columns = {"image": shown.images, "ground truth": paint(shown.targets, palette)}
    for title, pred in preds.items():
        columns[title] = paint(pred, palette)
    if len(preds) == 1:
        columns["errors"] = errors(pred, shown.targets)

    handles = class_handles(np.stack([shown.targets, *preds.values()]), classes, palette)
    widest = 0.6 + 0.07 * max((len(str(handle.get_label())) for handle in handles), default=0)
    a_row = max(1, min(len(columns), int(TILE * len(columns) / widest)))
    figure, axes = _grid(
        shown.images,
        len(columns),
        left=0,
        bottom=0.1 + 0.2 * math.ceil(len(handles) / a_row),
    )
    for column, (title, images) in enumerate(columns.items()):
        axes[0, column].set_title(title)
        for row, image in enumerate(images):
            axes[row, column].imshow(image, interpolation="nearest")
    figure.legend(handles=handles, loc="outside lower center", ncols=a_row)
    return figure


def class_handles(
    maps: NDArray[np.uint8], classes: Sequence[str], palette: Sequence[Sequence[int]]
) -> list[Patch]:
    """The classes that occur in class maps; if a legend cannot name all, those with the most pixels."""
    pixels = np.bincount(maps.ravel(), minlength=VOID + 1)[:VOID]
    largest = np.argsort(-pixels, kind="stable")[: min(NAMED, np.count_nonzero(pixels))]
    handles = [
        Patch(facecolor=_rgb(palette[index]), edgecolor=QUIET, linewidth=0.5, label=short(classes[index]))
        for index in sorted(largest)
    ]
    if left := np.count_nonzero(pixels) - len(handles):
        handles.append(Patch(facecolor="none", label=f"and {left} smaller ones"))
    return handles


def paint(maps: NDArray[np.uint8], palette: Sequence[Sequence[int]]) -> NDArray[np.uint8]:
    """Class maps (…) in colour (…, 3), void white."""
    table = np.full((256, 3), VOID_COLOUR, dtype=np.uint8)
    table[: len(palette)] = palette
    return table[maps]


def errors(preds: NDArray[np.uint8], targets: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The errors of class maps (…) in colour (…, 3): wrong pixels orange, right ones pale, void white."""
    painted = np.where((preds == targets)[..., None], RIGHT, WRONG).astype(np.uint8)
    painted[targets == VOID] = VOID_COLOUR
    return painted


@styled
def confusion(matrices: Mapping[str, NDArray[np.integer]], classes: Sequence[str]) -> Figure:
    """Confusion matrices (K, K) by title, in per cent of their rows: how each class is predicted."""
    many = len(classes) > MANY
    cell = max(CELL * MANY / len(classes), SMALLEST_CELL) if many else CELL
    look = {"size": min(8.5, 65 * cell)}
    turned = {"rotation": 90} if many else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    names = [short(name) for name in classes]
    side = 1.3 + cell * len(classes)
    figure = Figure(figsize=(side * len(matrices) + 0.6, side))
    all_axes = figure.subplots(1, len(matrices), sharey=True, squeeze=False)[0]
    for axes, (title, matrix) in zip(all_axes, matrices.items(), strict=True):
        share = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
        image = shade(axes, share, numbered=not many)
        axes.set_xticks(range(len(classes)), names, **look, **turned)
        axes.set(xlabel="prediction", title=title)
    all_axes[0].set_yticks(range(len(classes)), names, **look)
    all_axes[0].set_ylabel("ground truth")
    bar = figure.colorbar(image, ax=all_axes, label="% of the ground truth", shrink=0.6, aspect=30)
    bar.outline.set_visible(False)
    return figure


def shade(
    axes: Axes, values: NDArray[np.floating], *, numbered: bool, aspect: Literal["equal", "auto"] = "equal"
) -> AxesImage:
    """Draw percentages (rows, columns) in shades of a colour; `numbered`: also as numbers, except 0."""
    axes.grid(False)
    axes.spines[:].set_visible(False)
    for row, column in np.argwhere(values >= 0.5) if numbered else ():
        colour = "white" if values[row, column] > 50 else DARK
        axes.text(column, row, f"{values[row, column]:.0f}", ha="center", va="center", color=colour, size=7)
    return axes.imshow(values, cmap="Blues", vmin=0, vmax=100, aspect=aspect, interpolation="none")


@styled
def attention(images: NDArray[np.uint8], maps: Mapping[str, NDArray[np.uint8]]) -> Figure:
    """A row per image and layer: maps of each network's features, such as their energy or components.

    Args:
        images: RGB (B, H, W, 3).
        maps: by network and place, such as `student/encoder/refined`: levels (B, h, w), 0 to 255, or colours
            (B, h, w, 3).
    """
    parts = [name.split("/") for name in maps]
    layers = list(dict.fromkeys(layer for _, layer, _ in parts))
    columns = list(dict.fromkeys((network, kind) for network, _, kind in parts))
    figure, axes = _grid(np.repeat(images, len(layers), axis=0), 1 + len(columns), left=0.2, bottom=0)
    extent = (0, images.shape[2], images.shape[1], 0)
    for row, (index, layer) in zip(axes, itertools.product(range(len(images)), layers), strict=True):
        row[0].imshow(images[index])
        row[0].set_ylabel(layer)
        for axis, (network, kind) in zip(row[1:], columns, strict=True):
            levels = maps.get(f"{network}/{layer}/{kind}")
            axis.set_visible(levels is not None)
            if levels is not None:
                axis.imshow(
                    levels[index], cmap="magma", vmin=0, vmax=255, interpolation="bilinear", extent=extent
                )
    for axis, title in zip(axes[0], ("image", *map("\n".join, columns)), strict=True):
        axis.set_title(title)
    return figure


def brightness(energies: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Energies (B, h, w) as levels from 0 to 255; the scale is each map's 2nd to 98th percentile."""
    low, high = np.percentile(energies, (2, 98), axis=(1, 2), keepdims=True)
    return np.rint(255 * np.clip((energies - low) / np.maximum(high - low, 1e-30), 0, 1)).astype(np.uint8)


@styled
def curves(history: pd.DataFrame) -> Figure:
    """The terms of a training's loss over the epochs, and the validation's mIoU.

    Args:
        history: of `attnfd.training.fit`.
    """
    figure = Figure((WIDTH, 2.6))
    left, right = figure.subplots(1, 2, sharex=True)
    terms = [name for name in history if name not in ("epoch", "loss", "lr", "miou")]
    for term, colour in zip(terms, (INK, *OTHERS), strict=False):
        left.plot(history["epoch"], history[term], color=colour, label=term)
    left.legend()
    validated = history.dropna(subset="miou")
    right.plot(validated["epoch"], 100 * validated["miou"], marker=".", color=OURS)
    left.set_title("loss")
    for axes in (left, right):
        axes.set_xlabel("epoch")
    scale_curves(left, right)
    return figure


def scale_curves(loss: Axes, miou: Axes) -> None:
    """Scale two axes over whole epochs: a loss on a log scale with plain numbers, and a validation mIoU."""
    loss.set_yscale("log")
    loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    loss.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    loss.yaxis.set_minor_formatter(NullFormatter())
    miou.set_title("validation mIoU, %")
    miou.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _rgb(colour: Sequence[int]) -> tuple[float, float, float]:
    red, green, blue = colour
    return red / 255, green / 255, blue / 255


def _grid(
    images: NDArray[np.uint8], columns: int, *, left: float, bottom: float
) -> tuple[Figure, NDArray[np.object_]]:
    """Empty axes in the shape of the images, a row per image. `left` and `bottom` are margins in inches."""
    height = TILE * images.shape[1] / images.shape[2]
    size = (TILE * columns + left, (height + 0.04) * len(images) + 0.4 + bottom)
    figure = Figure(size, layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, hspace=0, wspace=0))
    axes = figure.subplots(len(images), columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(True)
    return figure, axes
