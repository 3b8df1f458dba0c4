"""One style for every figure, and PNG files: equal figures give equal bytes."""

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
"""Colour of text on a light cell of a heat map; the cell stays light on a dark page."""
BASELINE = "#6b7280"
OURS = "#d55e00"
OTHERS = (
    "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00",
    "#8b62c7", "#8c6d31", "#4d9221", "#1597a5", "#c51b7d",
)  # fmt: skip
"""`OURS` and the first five are by Okabe and Ito, for colour-blind readers. Markers differ as well."""

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
    # PDF with fonts that publishers accept, SVG with text that readers can search.
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "text.color": INK,
    # The name of a class may contain dollar signs.
    "text.parse_math": False,
    "xtick.color": INK,
    "xtick.labelsize": 8.5,
    "xtick.major.size": 0,
    "ytick.color": INK,
    "ytick.labelsize": 8.5,
    "ytick.major.size": 0,
}

WIDTH = 6.0
"""Width of a figure in inches. Panels are below each other, so that you can read the text on a phone."""

DPI = 150
LARGEST = 10_000
"""About the most pixels along a side of a picture; a larger figure gets fewer pixels per inch."""

MANY = 24
"""The most classes that a picture has room for. With more, it names some of them or draws them smaller."""

LONGEST = 24
"""The most characters of a label."""

styled = matplotlib.style.context(["default", _STYLE])
"""Decorator of the functions that draw. Settings of the machine do not change their figures."""


def colours(methods: Sequence[str]) -> dict[str, str]:
    """A colour per method: grey for `none`, a bright one for `attnfd`, and the others in order."""
    others = itertools.cycle(OTHERS)
    fixed = {"none": BASELINE, "attnfd": OURS}
    return {method: fixed.get(method) or next(others) for method in methods}


def markers(methods: Sequence[str]) -> dict[str, str]:
    """A marker per method, like `colours`."""
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
    """A plain name, cut to `LONGEST` characters."""
    line = plain(name)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


@styled
def save(figure: Figure, path: Path) -> None:
    """Write a PNG without metadata and with at most 256 colours, a third as large as in true colour."""
    drawn = io.BytesIO()
    dpi = min(DPI, LARGEST / max(figure.get_size_inches()))
    figure.savefig(drawn, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.08)
    Image.open(drawn, formats=("PNG",)).convert("RGB").quantize(256).save(path, format="PNG", optimize=True)
