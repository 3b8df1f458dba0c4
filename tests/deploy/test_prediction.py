"""A model on one image, as you use it in a notebook."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from attnfd.data.depth import Depth
from attnfd.deploy.source import Model
from attnfd.errors import UserError
from tests.deploy.conftest import LEGEND, Colours

# Red, green, and green, blue: the class of a pixel is its strongest channel.
RGB = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 240, 9], [0, 0, 250]]], dtype=np.uint8)
CLASSES = [[0, 1], [1, 2]]


def png(image: Image.Image, **options: Any) -> BytesIO:
    content = BytesIO()
    image.save(content, format="PNG", **options)
    content.seek(0)
    return content


def test_every_kind_of_image_gives_the_same_classes(colours: Model, tmp_path: Path) -> None:
    image = Image.fromarray(RGB)
    image.save(tmp_path / "image.png")
    read_only = np.asarray(image)
    for given in (
        tmp_path / "image.png",
        str(tmp_path / "image.png"),
        image,
        image.convert("RGBA"),
        image.convert("P", palette=Image.Palette.ADAPTIVE),
        RGB,
        read_only,
        RGB.astype(np.int64),
        torch.from_numpy(RGB).movedim(2, 0),
    ):
        found = colours.predict(given)
        assert found.classes.dtype == np.uint8
        assert found.classes.tolist() == CLASSES, given
        assert found.image.dtype == np.uint8


def test_overlay_areas_and_what_a_notebook_shows(colours: Model) -> None:
    found = colours.predict(RGB)
    assert np.array(found.class_map()).tolist() == CLASSES
    overlay = np.array(found.overlay())
    assert overlay[0, 0].tolist() == [225, 0, 0]  # the middle between (250, 0, 0) and (200, 0, 0)
    areas = found.areas()
    assert areas["class"].tolist() == ["red", "green", "blue"]
    assert areas["pixels"].tolist() == [1, 2, 1]
    assert areas["share"].tolist() == [0.25, 0.5, 0.25]
    assert repr(found) == "Prediction(2×2 pixels: green 50.0%, red 25.0%, blue 25.0%)"
    html = found._repr_html_()
    assert html.startswith('<img src="data:image/png;base64,')
    assert '<span style="color: rgb(0, 150, 0)">■</span> green 50.0%' in html


def test_a_photo_is_turned_as_it_is_seen(colours: Model) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the image is shown rotated by 90° clockwise
    with Image.open(png(Image.fromarray(RGB), exif=exif)) as stored:
        assert colours.predict(stored).classes.tolist() == np.rot90(CLASSES, -1).tolist()


def test_more_than_8_bits_are_scaled_as_in_the_training() -> None:
    deep = np.array([[0, 4095], [2048, 1024]], dtype=np.uint16)
    legend = LEGEND.model_copy(update={"depth": Depth(low=0, high=4095, clip=False)})
    model = Model("deep", Colours(), legend, {}, None)  # type: ignore[arg-type]
    for given in (deep, Image.fromarray(deep), torch.from_numpy(deep.astype(np.int32)).expand(3, 2, 2)):
        assert model.predict(given).image[..., 0].tolist() == [[0, 255], [128, 64]]
    with pytest.raises(UserError, match=r"image: cannot be used: values up to 5000; allowed: 0 to 4095"):
        model.predict(deep + np.uint16(905))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "image: found NoneType; pass a path, a PIL image"),
        ([RGB], "image: found list; pass .*, one at a time"),
        ("none.png", r"none\.png: cannot be used: .*No such file"),
        (RGB[None], r"found the shape \(1, 2, 2, 3\); allowed: .*an array \(H, W, 3\)"),
        (RGB.transpose(2, 0, 1), r"found the shape \(3, 2, 2\)"),
        (torch.from_numpy(RGB), r"found the shape \(2, 2, 3\); allowed: .*a tensor \(3, H, W\)"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.uint8), r"found the shape \(1, 3, 2, 2\)"),
        (np.zeros((0, 2, 3), np.uint8), r"found the shape \(0, 2, 3\)"),
        (RGB / 255, r"found floats; allowed: whole numbers, such as \(255 \* image\)\.round\(\)"),
        (torch.rand(3, 2, 2), "found floats"),
        (Image.new("F", (2, 2)), "found floats"),
        (RGB > 0, "found values of type bool"),
        (RGB.astype(int) - 1, "found values from -1 to 249; allowed: 0 to 65535"),
    ],
)
def test_other_images_say_what_to_pass(image: Any, message: str, colours: Model) -> None:
    with pytest.raises((TypeError, UserError), match=message) as stopped:
        colours.predict(image)
    assert "\n" not in str(stopped.value)
