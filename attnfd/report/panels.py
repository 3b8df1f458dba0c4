"""Pictures of images: what networks predict, and where their attention looks."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from attnfd.results.examples import Examples
from attnfd.results.pictures import class_handles, errors, paint
from attnfd.results.style import INK, QUIET, short, styled

Pixels = NDArray[np.uint8]

TILE, GAP = 1.2, 0.05
"""Width of a small picture, and the gap between two, in inches."""
LINE = 0.19
"""Height of a line of text, in inches."""
LARGEST, SMALLEST = 400, 128
"""Width of a small picture in pixels: the most of a photograph, and the least of a heat map."""
HEAT, OPAQUE = "inferno", 0.62
"""Colours of a heat map, and its opacity over the image."""


class Column(NamedTuple):
    """Class maps (B, H, W) of a network, and the mIoU of each."""

    preds: Pixels
    mious: Sequence[float]


@styled
def predictions(
    shown: Examples,
    columns: Mapping[str, Column],
    judged: str,
    reasons: Sequence[str],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
) -> Figure:
    """A row per image: image, ground truth, every network's prediction with its mIoU, and the errors of one.

    Args:
        columns: by the name of the network.
        judged: the network whose errors are shown.
        reasons: why each image was chosen; its id is written after the reason.
    """
    handles = class_handles(
        np.stack([shown.targets, *(column.preds for column in columns.values())]), classes, palette
    )
    a_row = max(
        1,
        int(
            TILE * (len(columns) + 3) / (0.6 + 0.07 * max(len(str(handle.get_label())) for handle in handles))
        ),
    )
    legend = 0.1 + 0.2 * -(-len(handles) // a_row)
    titles = ["image", "ground truth", *columns, f"errors of {judged}"]
    figure, axes = _grid(shown.images, titles, above=LINE, below=LINE, bottom=legend)
    for row, (id, reason) in enumerate(zip(shown.ids, reasons, strict=True)):
        _above(axes[row, 0], f"{reason}: {short(id)}")
        maps = [shown.targets[row], *(column.preds[row] for column in columns.values())]
        pictures = [shown.images[row], *(paint(labels, palette) for labels in maps)]
        pictures.append(errors(columns[judged].preds[row], shown.targets[row]))
        for axis, picture in zip(axes[row], pictures, strict=True):
            axis.imshow(_reduced(picture, smooth=axis is axes[row, 0]), interpolation="none")
        for axis, column in zip(axes[row, 2:], columns.values(), strict=False):
            axis.set_xlabel(f"mIoU {100 * column.mious[row]:.1f}", size=7.5, labelpad=2)
    figure.legend(handles=handles, loc="lower center", ncols=a_row)
    return figure


@styled
def attention(images: Pixels, maps: Mapping[str, Pixels], layers: Sequence[str], student: str) -> Figure:
    """A row per image and layer: heat maps of both networks' features over the image, then their components.

    Args:
        images: RGB (B, H, W, 3).
        maps: by network and place, such as `student/encoder/refined`: levels (B, h, w), 0 to 255, or colours
            (B, h, w, 3).
        layers: the layers to show.
        student: the name of the student.
    """
    kinds = list(dict.fromkeys((name.split("/")[0], name.split("/")[2]) for name in maps))
    called = {"student": student}
    titles = ["image", *(f"{called.get(network, network)}:\n{kind}" for network, kind in kinds)]
    figure, axes = _grid(np.repeat(images, len(layers), axis=0), titles, above=LINE, below=0, bottom=0.55)
    for row, (index, layer) in enumerate((index, layer) for index in range(len(images)) for layer in layers):
        _above(axes[row, 0], layer)
        axes[row, 0].imshow(_reduced(images[index], smooth=True), interpolation="none")
        for axis, (network, kind) in zip(axes[row, 1:], kinds, strict=True):
            levels = maps.get(f"{network}/{layer}/{kind}")
            axis.set_visible(levels is not None)
            if levels is not None:
                drawn = blend if levels.ndim == 3 else _enlarged
                axis.imshow(drawn(images[index], levels[index]), interpolation="none")
    height = figure.get_size_inches()[1]
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), HEAT),
        cax=figure.add_axes((0.3, 0.3 / height, 0.4, 0.09 / height)),
        orientation="horizontal",
    )
    bar.outline.set_visible(False)
    bar.set_ticks([0, 1], labels=["low energy, agreement 0", "high energy, agreement 1"])
    return figure


def blend(image: Pixels, levels: Pixels) -> Pixels:
    """A heat map (h, w) over a grey image (H, W, 3)."""
    size = _size(image, SMALLEST)
    grey = np.asarray(Image.fromarray(image).convert("L").resize(size, Image.Resampling.BILINEAR), np.float64)
    level = np.asarray(Image.fromarray(levels).resize(size, Image.Resampling.BILINEAR))
    heat = 255 * matplotlib.colormaps[HEAT](level)[..., :3]
    return np.rint(OPAQUE * heat + (1 - OPAQUE) * grey[..., None]).astype(np.uint8)


def _enlarged(image: Pixels, colours: Pixels) -> Pixels:
    """A map of colours (h, w, 3) as large as a heat map of the image."""
    return np.asarray(Image.fromarray(colours).resize(_size(image, SMALLEST), Image.Resampling.BILINEAR))


def _size(image: Pixels, smallest: int = 0) -> tuple[int, int]:
    """Width and height at which an image is drawn."""
    height, width = image.shape[:2]
    scale = max(min(width, LARGEST), smallest) / width
    return round(scale * width), max(1, round(scale * height))


def _reduced(image: Pixels, *, smooth: bool) -> Pixels:
    """An image at the size of its drawing. If not `smooth`, no colours are mixed, as for classes."""
    how = Image.Resampling.BOX if smooth else Image.Resampling.NEAREST
    size = _size(image)
    return image if size == image.shape[1::-1] else np.asarray(Image.fromarray(image).resize(size, how))


def _above(axes: Axes, text: str) -> None:
    """A line above the first picture of a row; it may be as long as the row."""
    axes.annotate(text, (0, 1), (0, 3), "axes fraction", "offset points", size=7.5, color=QUIET)


def _grid(
    images: Pixels, titles: Sequence[str], *, above: float, below: float, bottom: float
) -> tuple[Figure, NDArray[np.object_]]:
    """Empty axes in the shape of the images, a row per image; the other arguments are margins in inches."""
    lines = 1 + max(title.count("\n") for title in titles)
    top = LINE * lines + 0.05
    tile = TILE * images.shape[1] / images.shape[2]
    row = above + tile + below + GAP
    width, height = (TILE + GAP) * len(titles), top + row * len(images) + bottom
    figure = Figure((width, height))
    figure.set_layout_engine("none")
    axes = np.empty((len(images), len(titles)), dtype=object)
    for line, column in np.ndindex(axes.shape):
        left = (TILE + GAP) * column / width
        low = 1 - (top + row * line + above + tile) / height
        axis = figure.add_axes((left, low, TILE / width, tile / height))
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)
        axes[line, column] = axis
    for column, title in enumerate(titles):
        left = (TILE + GAP) * column / width
        figure.text(left, 1 - top / height, title, va="bottom", size=8.5, weight="bold", color=INK)
    return figure, axes
