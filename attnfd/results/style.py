"""One look for every figure, and PNG files whose bytes follow from what they show."""

import io
import itertools
from collections.abc import Sequence
from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure
from PIL import Image

INK = "#222222"
QUIET = "#8a8f98"
PALE = "#d9dce1"
EDGE = "#c4c8ce"
GRID = "#e7e9ec"
DARK = "#14181d"
"""Of text on a light cell of a heat map, which stays light where a page turns dark."""
BASELINE = "#6b7280"
OURS = "#d55e00"
OTHERS = (
    "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00",
    "#8b62c7", "#8c6d31", "#4d9221", "#1597a5", "#c51b7d",
)  # fmt: skip
"""`OURS` and the first five are Okabe and Ito's, for the colour-blind; markers tell apart as well."""

_MARKERS = "^vDPX<>*pd"

_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": EDGE,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": GRID,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    # PDF with fonts that a printer takes, SVG with text that a reader can search.
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "text.color": INK,
    # The name of a class may have dollar signs.
    "text.parse_math": False,
    "xtick.color": INK,
    "xtick.labelsize": 8.5,
    "xtick.major.size": 0,
    "ytick.color": INK,
    "ytick.labelsize": 8.5,
    "ytick.major.size": 0,
}

WIDTH = 6.0
"""Of a figure, in inches: panels lie below each other, so that its text is still to be read on a phone."""

DPI = 150
LARGEST = 10_000
"""Pixels along a side of a picture, about; a larger figure has fewer to the inch."""

MANY = 24
"""Classes that a picture has room for; of more it names a part, or draws them smaller."""

LONGEST = 24
"""Characters of a label."""

styled = matplotlib.style.context(["default", _STYLE])
"""Decorator of the functions that draw; settings of the machine do not reach their figures."""


def colours(methods: Sequence[str]) -> dict[str, str]:
    """A colour per method: grey for `none`, one that stands out for `attnfd`, the others in order."""
    others = itertools.cycle(OTHERS)
    fixed = {"none": BASELINE, "attnfd": OURS}
    return {method: fixed.get(method) or next(others) for method in methods}


def markers(methods: Sequence[str]) -> dict[str, str]:
    """A marker per method, as `colours`."""
    others = itertools.cycle(_MARKERS)
    fixed = {"none": "s", "attnfd": "o"}
    return {method: fixed.get(method) or next(others) for method in methods}


def plain(name: str) -> str:
    """A name on one line, with spaces in place of underscores.

    Example:
        >>> plain("striped_disc")
        'striped disc'
    """
    return " ".join(name.replace("_", " ").split())


def short(name: str) -> str:
    """A plain name, cut to what a label has room for."""
    line = plain(name)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


@styled
def save(figure: Figure, path: Path) -> None:
    """Write a PNG of at most 256 colours, a third of the size of one in true colour, and without metadata."""
    drawn = io.BytesIO()
    dpi = min(DPI, LARGEST / max(figure.get_size_inches()))
    figure.savefig(drawn, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.08)
    Image.open(drawn, formats=("PNG",)).convert("RGB").quantize(256).save(path, format="PNG", optimize=True)
