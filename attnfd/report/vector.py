"""Figures as vector graphics: SVG for pages, PDF for LaTeX. Equal figures give equal bytes."""

import io
import re
from typing import Any
from xml.etree import ElementTree

from matplotlib import rc_context
from matplotlib.figure import Figure

from attnfd.results.style import EDGE, GRID, INK, PALE, QUIET, styled

THEMED = {INK: "--ink", QUIET: "--quiet", PALE: "--pale", EDGE: "--line", GRID: "--line"}
"""Colours that a page replaces by its own, with the names of the page's variables."""

_LOOK: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.08, "facecolor": "white"}
_SVG = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_PDF = dict.fromkeys(("CreationDate", "Creator", "Producer"))
_FONT = b"'DejaVu Sans'"
_BACKGROUND = "patch_1"
"""The id that matplotlib gives to the first object that it draws."""


@styled
def files(figure: Figure, name: str) -> tuple[bytes, bytes]:
    """The figure as SVG and as PDF. `name` makes the ids of its parts unique in a page of several figures."""
    svg, pdf = io.BytesIO(), io.BytesIO()
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(svg, format="svg", metadata=_SVG, **_LOOK)
    figure.set_layout_engine("none")  # The layout is final now.
    figure.savefig(pdf, format="pdf", metadata=_PDF, **_LOOK)
    return svg.getvalue().replace(_FONT, _FONT + b", sans-serif"), pdf.getvalue()


def inline(svg: bytes, label: str) -> str:
    """An SVG as an element of an HTML page: without background, with the page's colours and font.

    Args:
        label: what the figure shows, for readers who cannot see it.
    """
    root = ElementTree.fromstring(svg)
    used = set(re.findall(r"#([\w-]+)", svg.decode()))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.get("id") == _BACKGROUND or child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        attributes = {key.rpartition("}")[2]: _themed(value) for key, value in element.attrib.items()}
        if attributes.get("id") not in used:
            attributes.pop("id", None)
        element.attrib.clear()
        element.attrib.update(attributes)
    width = float(root.attrib.pop("width").removesuffix("pt")) / 72
    del root.attrib["height"]
    root.attrib |= {"role": "img", "aria-label": label, "style": f"--inches: {width:.2f}"}
    return ElementTree.tostring(root, encoding="unicode", method="html")


def _themed(value: str) -> str:
    value = value.replace(f"font-family: {_FONT.decode()}, sans-serif", "font-family: inherit")
    for colour, variable in THEMED.items():
        value = value.replace(colour, f"var({variable})")
    return value
