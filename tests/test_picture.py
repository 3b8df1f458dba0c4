"""The picture of the method: one file that is readable on light and dark pages."""

import re
from xml.etree import ElementTree

import pytest

from tests.miniature import PROJECT

TEXT = (PROJECT / "docs/images/method.svg").read_text(encoding="utf-8")
LIGHT, DARK = re.search(
    r"<style>(.*?)@media \(prefers-color-scheme: dark\) \{(.*?)</style>", TEXT, re.DOTALL
).groups()  # type: ignore[union-attr]
BOXES = (".page", ".lane", ".frozen", ".student", ".helper", ".loss")


def fills(style: str) -> dict[str, str]:
    """The fill colour of each selector."""
    rules = re.findall(r"([.#\w ]+?) \{([^}]*)\}", style)
    return {name.strip(): found[1] for name, body in rules if (found := re.search(r"fill: (#\w{6})", body))}


def brightness(colour: str) -> float:
    """Relative luminance as defined in WCAG 2."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("style", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("words", ["text", ".note"])
@pytest.mark.parametrize("box", BOXES)
def test_words_differ_from_their_ground(box: str, words: str, style: str) -> None:
    found = fills(style)
    dark, bright = sorted(brightness(found[name]) for name in (box, words))
    assert (bright + 0.05) / (dark + 0.05) >= 4.5


def test_what_is_drawn_has_a_colour_and_stays_inside() -> None:
    root = ElementTree.fromstring(TEXT)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    drawn = [element for element in root.iter() if element.tag.endswith("}rect")]
    assert {f".{element.attrib['class']}" for element in drawn} == set(BOXES)
    for element in drawn:
        x, y, wide, high = (float(element.get(key, 0)) for key in ("x", "y", "width", "height"))
        assert x + wide <= width
        assert y + high <= height


def test_it_says_what_it_shows_and_loads_nothing() -> None:
    assert re.search(r"<title>.+</title>\s*<desc>.+</desc>", TEXT, re.DOTALL)
    shown = set(re.findall(r"<text[^>]*>(?:<tspan[^>]*>)?([\w-]+)", TEXT))
    assert {"Teacher", "Student", "CBAM", "connector", "loss", "cross-entropy"} <= shown
    assert not re.search(r"href|url\((?!#)|@import|<script|<image", TEXT)
