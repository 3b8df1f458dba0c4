"""Decoding of images and masks."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from attnfd.data.images import decode_image, decode_mask, is_turned, read_classes
from attnfd.data.labels import label_table


def png(image: Image.Image, **options: object) -> BytesIO:
    file = BytesIO()
    image.save(file, "PNG", **options)
    return BytesIO(file.getvalue())


def test_grey_images_become_rgb() -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    decoded = decode_image(png(Image.fromarray(grey)))
    np.testing.assert_array_equal(decoded, np.stack([grey] * 3, axis=-1))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpegs_without_rgb_become_rgb(mode: str) -> None:
    file = BytesIO()
    Image.new("RGB", (8, 8), (90, 90, 90)).convert(mode).save(file, "JPEG", quality=95)
    decoded = decode_image(BytesIO(file.getvalue()))
    assert decoded.shape == (8, 8, 3)
    np.testing.assert_allclose(decoded, 90, atol=2)


def test_transparency_is_dropped() -> None:
    pixels = np.array([[[10, 20, 30, 255], [40, 50, 60, 0]]], dtype=np.uint8)
    np.testing.assert_array_equal(decode_image(png(Image.fromarray(pixels))), pixels[..., :3])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_of_16_bits_the_upper_8_are_used(kind: str) -> None:
    file = BytesIO()
    Image.fromarray(np.array([[0, 255, 256, 65535]], dtype=np.uint16)).save(file, kind)
    decoded = decode_image(BytesIO(file.getvalue()))
    np.testing.assert_array_equal(decoded, np.repeat([[[0], [0], [1], [255]]], 3, axis=2))


@pytest.mark.parametrize("pixels", [np.ones((2, 2), np.float32), np.full((2, 2), 70000, np.int32)])
def test_images_beyond_16_bits_are_refused(pixels: np.ndarray) -> None:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "TIFF")
    with pytest.raises(ValueError, match="at most 16 bits per channel"):
        decode_image(BytesIO(file.getvalue()))


def turned(degrees: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = {0: 1, 90: 6}[degrees]  # 6: "rotate 90° clockwise to view"
    return exif


def test_exif_orientation_is_applied() -> None:
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    decoded = decode_image(png(Image.fromarray(pixels), exif=turned(90)))
    np.testing.assert_array_equal(decoded, np.rot90(pixels, k=-1))


def test_exif_orientation_is_applied_to_a_mask_that_has_one() -> None:
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    decoded = decode_mask(png(Image.fromarray(values), exif=turned(90)))
    np.testing.assert_array_equal(decoded, np.rot90(values, k=-1))


def test_an_image_knows_whether_it_is_turned() -> None:
    image = Image.new("RGB", (3, 2))
    assert [
        is_turned(png(image, **options)) for options in ({}, {"exif": turned(0)}, {"exif": turned(90)})
    ] == [
        False,
        False,
        True,
    ]


def test_a_colour_mask_gives_its_colours_as_numbers() -> None:
    colours = np.array([[[0, 0, 0], [1, 2, 3], [255, 255, 255]]], dtype=np.uint8)
    expected = [[256, 256 + 0x010203, 256 + 0xFFFFFF]]
    assert decode_mask(png(Image.fromarray(colours)), colours=True).tolist() == expected


def test_palette_masks_give_their_indices() -> None:
    indices = np.array([[0, 1], [20, 255]], dtype=np.uint8)
    mask = Image.fromarray(indices).convert("P")
    mask.putdata(indices.ravel().tolist())
    mask.putpalette([200 - value % 200 for value in range(768)])
    np.testing.assert_array_equal(decode_mask(png(mask)), indices)


def test_two_valued_masks_give_zero_and_one() -> None:
    mask = Image.fromarray(np.array([[True, False]]))
    np.testing.assert_array_equal(decode_mask(png(mask)), [[1, 0]])


@pytest.mark.parametrize("mode", ["RGB", "LA", "I;16"])
def test_masks_of_several_channels_or_more_bits_are_refused(mode: str) -> None:
    with pytest.raises(ValueError, match=mode):
        decode_mask(png(Image.new(mode, (2, 2))))


def test_label_table_maps_labels_and_voids_the_rest() -> None:
    table = label_table({0: 0, 7: 1, 254: 255})
    assert table[[0, 7, 254, 3]].tolist() == [0, 1, 255, 255]
    assert table.dtype == np.uint8


def test_classes_of_a_colour_mask() -> None:
    mask = np.array([[[9, 0, 1], [0, 0, 0], [7, 7, 7]]], dtype=np.uint8)
    table = label_table({256: 0, 256 + 0x090001: 1})
    assert read_classes(png(Image.fromarray(mask)), table).tolist() == [[1, 0, 255]]
