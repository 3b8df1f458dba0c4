"""Pictures with the names of their classes: an overlay with its legend, and a contact sheet of many."""

from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from attnfd.deploy.prediction import Prediction

SHOWN, COLUMNS = 48, 6
"""Most images on a contact sheet, and in one of its rows."""
TILE, GAP, NARROWEST = 240, 8, 160
"""In pixels: the longer side of a small picture, the gap between two, and the smallest width of a legend."""
NAMED = 40
"""Classes that a legend names."""

Colour = tuple[int, int, int]


def with_legend(prediction: Prediction) -> Image.Image:
    """The overlay, and below it the names of its classes, the largest first."""
    overlay = prediction.overlay()
    width = max(overlay.width, NARROWEST)
    entries = [(name, colour) for name, _, colour in prediction.found()]
    return _stack([overlay, _legend(entries, width, letters=max(12, width // 50))], width)


class ContactSheet:
    """Small overlays of many images on one page; if there are too many, an even selection of them."""

    def __init__(self, images: Collection[Path]) -> None:
        self._paths = [path for number, path in enumerate(images) if _is_shown(number, len(images))]
        self._images = len(images)
        self._tiles: dict[Path, Image.Image] = {}
        self._classes: dict[str, Colour] = {}

    def add(self, path: Path, prediction: Prediction) -> None:
        """Add an image if it is one of the selected ones."""
        if path in self._paths:
            self._tiles[path] = _resized(prediction.overlay())
            self._classes |= {name: colour for name, _, colour in prediction.found()}

    def draw(self) -> Image.Image:
        """The page: small overlays with their paths, and one legend."""
        shown = [path for path in self._paths if path in self._tiles]
        columns = max(1, min(COLUMNS, len(shown)))
        width = columns * (TILE + GAP) + GAP
        rows = [self._row(shown[start : start + columns], width) for start in range(0, len(shown), columns)]
        count = f"{len(shown)} of {self._images} images"
        return _stack([_words(count, width), *rows, _legend(self._classes.items(), width, letters=12)], width)

    def _row(self, paths: Collection[Path], width: int) -> Image.Image:
        height = max(self._tiles[path].height for path in paths)
        row = Image.new("RGB", (width, height + 24), "white")
        for column, path in enumerate(paths):
            left = GAP + column * (TILE + GAP)
            row.paste(self._tiles[path], (left, GAP // 2))
            row.paste(_words(path.as_posix(), TILE, keep_end=True), (left, height + GAP // 2))
        return row


def _is_shown(number: int, count: int) -> bool:
    """Whether an image is the first of its group, if `count` images are divided into `SHOWN` groups."""
    return count <= SHOWN or number * SHOWN % count < SHOWN


def _resized(picture: Image.Image) -> Image.Image:
    scale = TILE / max(picture.size)
    width, height = (max(1, round(scale * side)) for side in picture.size)
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return picture.resize((width, height), how)


def _legend(entries: Iterable[tuple[str, Colour]], width: int, letters: int) -> Image.Image:
    """Coloured squares with names, in as many lines as needed."""
    font = _font(letters)
    line, square = round(1.6 * letters), letters
    entries = list(entries)
    named: list[tuple[str, Colour | None]] = list(entries[:NAMED])
    if left := len(entries) - len(named):
        named.append((f"and {left} more", None))
    placed, x, y = [], line // 2, line // 4
    for name, colour in named:
        before = x + (0 if colour is None else square + line // 4)
        text = _cut(name, font, width - line - square)
        after = before + round(font.getlength(text)) + line // 2
        if after > width and x > line // 2:
            before, after, x, y = before - x + line // 2, after - x + line // 2, line // 2, y + line
        placed.append((x, y, before, text, colour))
        x = after
    strip = Image.new("RGB", (width, y + line + line // 4), "white")
    draw = ImageDraw.Draw(strip)
    for x, y, start, text, colour in placed:
        if colour is not None:
            draw.rectangle((x, y + 1, x + square - 1, y + square), fill=colour, outline="grey")
        draw.text((start, y), text, fill="black", font=font)
    return strip


def _words(text: str, width: int, *, keep_end: bool = False) -> Image.Image:
    """A line of text as a picture of this width."""
    font = _font(12)
    strip = Image.new("RGB", (width, 20), "white")
    ImageDraw.Draw(strip).text(
        (2, 2), _cut(text, font, width - 4, keep_end=keep_end), fill="black", font=font
    )
    return strip


def _cut(text: str, font: ImageFont.FreeTypeFont, width: int, *, keep_end: bool = False) -> str:
    """A text as one line that fits a width; an ellipsis replaces what is cut."""
    kept = " ".join(text.split())
    cut = kept
    while kept and font.getlength(cut) > width:
        kept = kept[1:] if keep_end else kept[:-1]
        cut = f"…{kept}" if keep_end else f"{kept}…"
    return cut


def _stack(pictures: Collection[Image.Image], width: int) -> Image.Image:
    page = Image.new("RGB", (width, sum(picture.height for picture in pictures)), "white")
    top = 0
    for picture in pictures:
        page.paste(picture, (0, top))
        top += picture.height
    return page


@cache
def _font(letters: int) -> ImageFont.FreeTypeFont:
    # Pillow's own font has only Latin letters.
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), letters)
