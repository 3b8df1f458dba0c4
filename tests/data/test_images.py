"""Decoding of images and masks."""

from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from attnfd.data.images import (
    FORMATS,
    decode_image,
    decode_mask,
    drops_a_band,
    orientation,
    read_classes,
    read_mask,
)
from attnfd.data.labels import label_table


def png(image: Image.Image, **options: object) -> BytesIO:
    file = BytesIO()
    image.save(file, "PNG", **options)
    return BytesIO(file.getvalue())


def saved(image: Image.Image, kind: str, **options: object) -> BytesIO:
    file = BytesIO()
    image.save(file, kind, **options)
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
    with pytest.raises(ValueError, match=r"values from [17].* at most 16 bits per channel"):
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
        orientation(png(image, **options)) for options in ({}, {"exif": turned(0)}, {"exif": turned(90)})
    ] == [1, 1, 6]


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


@pytest.mark.parametrize("mode", ["RGB", "LA"])
def test_masks_of_several_channels_are_refused(mode: str) -> None:
    with pytest.raises(ValueError, match=mode):
        decode_mask(png(Image.new(mode, (2, 2))))


@pytest.mark.parametrize(("kind", "mode"), [("PNG", np.uint16), ("TIFF", np.uint16), ("TIFF", np.int32)])
def test_masks_of_more_bits_are_taken_if_their_values_fit(kind: str, mode: type) -> None:
    values = np.array([[0, 1, 254], [255, 7, 0]], dtype=mode)
    mask = decode_mask(saved(Image.fromarray(values), kind))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, values)
    values[1, 2] = 256
    with pytest.raises(ValueError, match="mask with values from 0 to 256; allowed: 0 to 255"):
        decode_mask(saved(Image.fromarray(values), kind))
    with pytest.raises(ValueError, match=r"mask of mode I.*; allowed: RGB, RGBA, grey or palette of 8 bits"):
        decode_mask(saved(Image.fromarray(values), kind), colours=True)


def test_negative_values_of_a_mask_do_not_fit() -> None:
    with pytest.raises(ValueError, match="mask with values from -1 to 3"):
        decode_mask(saved(Image.fromarray(np.array([[-1, 3]], dtype=np.int32)), "TIFF"))


def bands(*alpha: int, mode: str = "RGBA") -> Image.Image:
    pixels = np.array([[(value, 2, 3, value) for value in alpha]], dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def four_bands() -> BytesIO:
    """A TIFF with red, green, blue and a fourth band that is not transparency."""
    file = BytesIO()
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[338] = 0
    Image.fromarray(np.arange(24, dtype=np.uint8).reshape(2, 3, 4)).save(file, "TIFF", tiffinfo=info)
    return BytesIO(file.getvalue())


@pytest.mark.parametrize(
    ("file", "drops"),
    [
        (saved(bands(255, 40), "PNG"), True),
        (saved(bands(255, 40, mode="LA"), "PNG"), True),
        (saved(bands(255, 40), "TIFF"), True),
        (four_bands(), True),
        (saved(bands(255, 255), "PNG"), False),
        (saved(bands(0, 0), "PNG"), False),
        (saved(bands(9, 40, mode="RGB"), "PNG"), False),
        (saved(bands(9, 40, mode="CMYK"), "TIFF"), False),
        (saved(bands(9, 40, mode="L"), "TIFF"), False),
    ],
)
def test_a_band_that_is_not_read_is_known(file: BytesIO, drops: bool) -> None:
    assert drops_a_band(file) == drops
    assert decode_image(file).shape[2] == 3


def test_label_table_maps_labels_and_voids_the_rest() -> None:
    table = label_table({0: 0, 7: 1, 254: 255})
    assert table[[0, 7, 254, 3]].tolist() == [0, 1, 255, 255]
    assert table.dtype == np.uint8


def test_classes_of_a_colour_mask() -> None:
    mask = np.array([[[9, 0, 1], [0, 0, 0], [7, 7, 7]]], dtype=np.uint8)
    table = label_table({256: 0, 256 + 0x090001: 1})
    assert read_classes(png(Image.fromarray(mask)), table).tolist() == [[1, 0, 255]]


def noise(seed: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("decode", [decode_image, decode_mask, partial(decode_mask, colours=True)])
def test_a_file_of_another_format_is_refused_whatever_its_name(
    decode: Callable[[Path], np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tmp_path / "started"
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {started}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # Pillow's value for "not yet looked for".
    for name in ("eps.png", "eps.eps"):
        eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n%%EOF\n"
        (tmp_path / name).write_bytes(eps)
        with pytest.raises(ValueError, match=r"its format is unknown.* allowed: BMP, GIF, JPEG, PNG"):
            decode(tmp_path / name)
    assert not started.exists()


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_that_is_named_is_read(kind: str) -> None:
    assert decode_image(saved(noise(0), kind)).shape == (6, 8, 3)


@pytest.mark.parametrize(
    ("kind", "mode"), [("TIFF", "RGB"), ("TIFF", "L"), ("GIF", "P"), ("WEBP", "RGB"), ("PNG", "L")]
)
@pytest.mark.parametrize("decode", [decode_image, decode_mask])
def test_several_pages_or_frames_are_refused(
    decode: Callable[[BytesIO], np.ndarray], kind: str, mode: str
) -> None:
    file = saved(noise(0, mode), kind, save_all=True, append_images=[noise(1, mode), noise(2, mode)])
    with pytest.raises(ValueError, match="found 3 pages or frames; allowed: one"):
        decode(file)


def test_a_smaller_copy_of_a_page_is_no_second_page() -> None:
    pages = [noise(0), noise(0).resize((4, 3)), noise(0).resize((2, 2))]
    for full in range(3):
        file = BytesIO()
        with TiffImagePlugin.AppendingTiffWriter(file) as writer:
            for number in range(3):
                page = pages[0] if number == full else pages[number or 1]
                page.save(writer, "TIFF", tiffinfo={254: int(number != full)})
                writer.newFrame()
        np.testing.assert_array_equal(decode_image(BytesIO(file.getvalue())), np.array(pages[0]))


def test_a_photo_with_other_views_behind_it_is_one_image() -> None:
    file = saved(noise(0), "MPO", save_all=True, append_images=[noise(1)], quality=95)
    with Image.open(file) as image:
        assert (image.format, image.n_frames) == ("MPO", 2)  # type: ignore[attr-defined]
        first = np.array(image)
    np.testing.assert_array_equal(decode_image(file), first)


def transparent(alpha: list[int], colours: list[int]) -> Image.Image:
    pixels = np.array([[[*[grey] * 3, opaque] for grey, opaque in zip(colours, alpha, strict=True)]])
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_labels_in_the_alpha_channel_are_refused(mode: str) -> None:
    image = transparent([0, 255, 255], [255, 255, 255])
    file = png(image.convert(mode))
    if mode == "P":
        indexed = Image.fromarray(np.array([[0, 1, 1]], dtype=np.uint8))
        indexed.putpalette([255] * 6)
        file = png(indexed, transparency=b"\0\xff")
    with pytest.raises(ValueError, match="differ in the alpha channel; allowed: labels as colours"):
        decode_mask(file, colours=True)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("alpha", [[255, 255], [9, 9], [0, 255]])
def test_an_alpha_channel_that_adds_nothing_is_dropped(mode: str, alpha: list[int]) -> None:
    mask = transparent(alpha, [0, 255]).convert(mode)
    assert decode_mask(png(mask), colours=True).tolist() == [[256, 256 + 0xFFFFFF]]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({0: 0, 255: 1}, [[1, 0]]),
        ({0: 0, 1: 1, 255: 255}, [[1, 0]]),
        ({0: 0, 1: 1, 255: 2}, [[1, 0]]),
        ({256: 0, 256 + 0xFFFFFF: 1}, [[1, 0]]),
        ({0: 0, 7: 1, 255: 255}, [[255, 0]]),
    ],
)
def test_white_of_one_bit_is_the_class_that_there_is(
    labels: dict[int, int], expected: list[list[int]]
) -> None:
    mask = Image.fromarray(np.array([[True, False]]))
    assert mask.mode == "1"
    assert read_classes(png(mask), label_table(labels)).tolist() == expected


def test_a_mask_has_its_palette_and_its_orientation() -> None:
    mask = Image.fromarray(np.array([[0, 2]], dtype=np.uint8))
    mask.putpalette([1, 2, 3, 4, 5, 6, 7, 8, 9])
    found = read_mask(png(mask, exif=turned(90)))
    assert (list(found.palette)[:9], found.bilevel, found.turned) == (
        [1, 2, 3, 4, 5, 6, 7, 8, 9],
        False,
        True,
    )
    assert not read_mask(png(mask)).turned
    assert read_mask(png(mask.convert("L"))).palette == ()
