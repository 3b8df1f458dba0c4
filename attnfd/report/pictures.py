"""Pictures of predictions, confusions and attention; every function returns a figure and saves nothing."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from numpy.typing import NDArray

from attnfd.datasets.base import VOID
from attnfd.report.examples import Examples
from attnfd.report.style import QUIET, styled

VOID_COLOUR = (255, 255, 255)
RIGHT, WRONG = (205, 222, 235), (213, 94, 0)
WIDTH = 1.55
"""Of a small picture, in inches."""


@styled
def overlays(
    shown: Examples,
    preds: Mapping[str, NDArray[np.uint8]],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
) -> Figure:
    """A row per image: image, ground truth, a column per prediction; for a single one also its errors.

    Args:
        preds: class maps (B, H, W) by the title of their column.
        palette: an RGB colour per class.
    """
    columns = {"image": shown.images, "ground truth": paint(shown.targets, palette)}
    for title, pred in preds.items():
        columns[title] = paint(pred, palette)
    if len(preds) == 1:
        columns["errors"] = errors(pred, shown.targets)

    occurring = np.unique(np.stack([shown.targets, *preds.values()]))
    handles = [
        Patch(facecolor=_rgb(palette[index]), edgecolor=QUIET, linewidth=0.5, label=classes[index])
        for index in occurring[occurring != VOID]
    ]
    a_row = int(1.3 * len(columns))
    figure, axes = _grid(shown.images, len(columns), bottom=0.1 + 0.2 * math.ceil(len(handles) / a_row))
    for column, (title, images) in enumerate(columns.items()):
        axes[0, column].set_title(title)
        for row, image in enumerate(images):
            axes[row, column].imshow(image, interpolation="nearest")
    figure.legend(handles=handles, loc="outside lower center", ncols=a_row)
    return figure


def paint(maps: NDArray[np.uint8], palette: Sequence[Sequence[int]]) -> NDArray[np.uint8]:
    """Class maps (…) in colour (…, 3), void white."""
    table = np.full((256, 3), VOID_COLOUR, dtype=np.uint8)
    table[: len(palette)] = palette
    return table[maps]


def errors(preds: NDArray[np.uint8], targets: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Where class maps (…) are wrong (…, 3): wrong pixels stand out, void is white."""
    painted = np.where((preds == targets)[..., None], RIGHT, WRONG).astype(np.uint8)
    painted[targets == VOID] = VOID_COLOUR
    return painted


@styled
def confusion_matrix(matrix: NDArray[np.integer], classes: Sequence[str]) -> Figure:
    """A confusion matrix (K, K) in per cent of its rows: what the pixels of a class are taken for."""
    pixels = matrix.sum(1, keepdims=True)
    share = 100 * matrix / np.maximum(pixels, 1)
    side = 1.6 + 0.42 * len(classes)
    figure = Figure(figsize=(side + 0.6, side))
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="prediction", ylabel="ground truth", title="Confusion, % of the ground truth")
    for row, column in np.argwhere(share >= 0.5):
        colour = "white" if share[row, column] > 55 else "#222222"
        axes.text(column, row, f"{share[row, column]:.0f}", ha="center", va="center", color=colour, size=7.5)
    bar = figure.colorbar(image, shrink=0.6, aspect=30)
    bar.outline.set_visible(False)
    return figure


@styled
def attention(images: NDArray[np.uint8], maps: Mapping[str, Mapping[str, NDArray[np.floating]]]) -> Figure:
    """A row per image and network: the image, and its energy at each place, scaled to the map's own range.

    Args:
        images: RGB (B, H, W, 3).
        maps: of a network, then of a place in it such as `encoder/refined`: energies (B, h, w).
    """
    places = sorted({place for of_network in maps.values() for place in of_network}, key=_place_order)
    figure, axes = _grid(np.repeat(images, len(maps), axis=0), 1 + len(places), bottom=0)
    height, width = images.shape[1:3]
    for index, image in enumerate(images):
        for offset, (network, of_network) in enumerate(maps.items()):
            row = axes[index * len(maps) + offset]
            row[0].imshow(image)
            row[0].set_ylabel(network)
            for axis, place in zip(row[1:], places, strict=True):
                if place in of_network:
                    energy = of_network[place][index]
                    axis.imshow(energy, cmap="magma", interpolation="bilinear", extent=(0, width, height, 0))
                else:
                    axis.set_visible(False)
    axes[0, 0].set_title("image")
    for axis, place in zip(axes[0, 1:], places, strict=True):
        axis.set_title(place.replace("/", ", "))
    return figure


def _place_order(place: str) -> tuple[int, str]:
    layer, _, kind = place.partition("/")
    return ("backbone", "encoder", "decoder").index(layer), {"raw": "0"}.get(kind, kind)


def _rgb(colour: Sequence[int]) -> tuple[float, float, float]:
    red, green, blue = colour
    return red / 255, green / 255, blue / 255


def _grid(images: NDArray[np.uint8], columns: int, bottom: float) -> tuple[Figure, NDArray[np.object_]]:
    """Empty axes, a row per image, each in the images' shape; `bottom` leaves room in inches."""
    height = WIDTH * images.shape[1] / images.shape[2]
    size = (WIDTH * columns, (height + 0.04) * len(images) + 0.3 + bottom)
    figure = Figure(size, layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, hspace=0, wspace=0))
    axes = figure.subplots(len(images), columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(True)
    return figure, axes
