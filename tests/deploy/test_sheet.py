"""Legends and contact sheets for any images, any number of classes and any names."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnfd.deploy import sheet
from attnfd.deploy.predict import SHEET, predict
from attnfd.deploy.prediction import Prediction
from attnfd.deploy.sheet import ContactSheet, with_legend
from attnfd.deploy.source import Model
from attnfd.models.checkpoint import Legend
from tests.deploy.conftest import LEGEND

RED, GREEN, BLUE = LEGEND.palette


def prediction(height: int, width: int, legend: Legend = LEGEND, classes: int = 2) -> Prediction:
    """Stripes of the first classes over a grey image."""
    stripes = np.arange(height * width, dtype=np.int64).reshape(height, width) % classes
    return Prediction(stripes.astype(np.uint8), np.full((height, width, 3), 90, np.uint8), legend)


def many(count: int, name: str) -> Legend:
    return LEGEND.model_copy(
        update={
            "classes": tuple(f"{name}{index}" for index in range(count)),
            "palette": tuple((index, 255 - index, 7) for index in range(count)),
        }
    )


def colours(picture: Image.Image) -> set[tuple[int, ...]]:
    return set(map(tuple, np.array(picture).reshape(-1, 3)))


@pytest.mark.parametrize("size", [(1, 1), (4, 900), (900, 4), (300, 400), (2000, 3000)])
def test_the_legend_is_below_the_overlay_and_has_the_classes_in_it(size: tuple[int, int]) -> None:
    found = prediction(*size, classes=1 if size == (1, 1) else 2)
    picture = with_legend(found)
    height, width = size
    np.testing.assert_array_equal(np.array(picture)[:height, :width], np.array(found.overlay()))
    strip = picture.crop((0, height, picture.width, picture.height))
    shown = colours(strip) & set(LEGEND.palette)
    assert shown == ({RED} if size == (1, 1) else {RED, GREEN})
    # Names beside the squares: dark letters, and no name is cut off at the edge.
    assert (0, 0, 0) in colours(strip) or np.array(strip).min() < 60
    assert colours(strip.crop((strip.width - 1, 0, strip.width, strip.height))) == {(255, 255, 255)}


def test_letters_grow_with_the_image() -> None:
    heights = [with_legend(prediction(100, width)).height - 100 for width in (400, 4000)]
    assert heights[1] > 4 * heights[0]


@pytest.mark.parametrize(
    "name", ["road", "a very long name of a class that no line has room for " * 9, "Straße ü\n"]
)
def test_many_classes_and_long_names_fit(name: str) -> None:
    legend = many(150, name)
    picture = with_legend(prediction(200, 300, legend, classes=150))
    strip = picture.crop((0, 200, 300, picture.height))
    assert len(colours(strip) & set(legend.palette)) == sheet.NAMED
    assert colours(strip.crop((299, 0, 300, strip.height))) == {(255, 255, 255)}


def test_a_text_is_cut_at_the_end_that_says_less() -> None:
    font = sheet._font(12)
    path = f"{'folder/' * 20}image_7.png"
    assert sheet._cut("short", font, 100) == "short"
    for keep_end, found in (
        (False, sheet._cut(path, font, 100)),
        (True, sheet._cut(path, font, 100, keep_end=True)),
    ):
        assert font.getlength(found) <= 100
        assert found.endswith("image_7.png") == keep_end
        assert found.strip("…") in path


@pytest.mark.parametrize("count", [1, 5, 48, 49, 1000])
def test_a_sheet_shows_images_evenly_out_of_all(count: int) -> None:
    images = [Path(f"{number}.png") for number in range(count)]
    numbers = [int(path.stem) for path in ContactSheet(images)._paths]
    assert len(numbers) == min(count, sheet.SHOWN)
    assert numbers[0] == 0
    gaps = np.diff(numbers)
    assert count == 1 or gaps.max() - gaps.min() <= 1


def test_a_sheet_has_its_images_in_order_and_one_legend() -> None:
    paths = [Path(f"{number}.png") for number in range(7)]
    made = ContactSheet(paths)
    for number, path in reversed(list(enumerate(paths))):
        if number != 3:  # This image could not be read.
            made.add(
                path, Prediction(np.full((2, 4), number % 3, np.uint8), np.zeros((2, 4, 3), np.uint8), LEGEND)
            )
    page = made.draw()
    assert page.width == 6 * (sheet.TILE + sheet.GAP) + sheet.GAP
    top = 20 + sheet.GAP // 2
    row = [page.getpixel((sheet.GAP + column * (sheet.TILE + sheet.GAP) + 9, top + 9)) for column in range(6)]
    halves = [tuple(channel // 2 for channel in colour) for colour in LEGEND.palette]
    assert row == [halves[number % 3] for number in (0, 1, 2, 4, 5, 6)]
    below = page.crop((0, 20 + sheet.TILE // 2 + 24, page.width, page.height))
    assert colours(below) >= {RED, GREEN, BLUE}


def test_images_of_extreme_shapes_have_a_place() -> None:
    made = ContactSheet([Path("a.png"), Path("b.png")])
    made.add(Path("a.png"), prediction(1, 5000))
    made.add(Path("b.png"), prediction(5000, 1))
    page = made.draw()
    assert sheet.TILE < page.height < 2 * sheet.TILE


def test_without_an_image_that_could_be_read_a_sheet_says_so() -> None:
    assert ContactSheet([Path("a.png")]).draw().height > 0


def test_predict_writes_a_sheet(colours: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        Image.new("RGB", (30, 20), (250, 0, 0)).save(f"{name}.png")
    predict(colours, ["*.png"], Path("out"), batch_size=2, overlays=True, overwrite=False)
    with Image.open(Path("out", SHEET)) as page:
        assert page.width == 2 * (sheet.TILE + sheet.GAP) + sheet.GAP
        assert RED in set(map(tuple, np.array(page).reshape(-1, 3)))
