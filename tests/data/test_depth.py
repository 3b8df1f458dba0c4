"""Scaling of images with more than 8 bits to 8 bits."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from attnfd.data.depth import Depth, measure, one_level, scale, used
from attnfd.data.images import decode_image, read_pixels
from tests.data.deep import png16, tiff16

RNG = np.random.default_rng(0)


def bits(number: int) -> Depth:
    return Depth(low=0, high=2**number - 1, clip=False)


@settings(deadline=None, derandomize=True)
@given(st.sampled_from([8, 12, 16]), st.data())
def test_bits_keep_the_upper_eight_of_those_that_are_used(number: int, data: st.DataObject) -> None:
    grey = data.draw(
        arrays(np.uint16, array_shapes(min_dims=2, max_dims=2), elements=st.integers(0, 2**number - 1))
    )
    found = scale(grey, bits(number))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.repeat((grey >> (number - 8))[..., None], 3, axis=2))


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 65535), st.integers(0, 65535))
def test_a_range_becomes_0_to_255_in_equal_steps(low: int, high: int) -> None:
    low, high = sorted((low, high))
    depth = Depth(low=low, high=high, clip=True)
    levels = scale(np.arange(65536, dtype=np.uint16)[None], depth)[0, :, 0].astype(int)
    assert (np.diff(levels) >= 0).all()
    assert levels[low] == levels[0] == 0
    if high - low >= 255:
        assert levels[high] == levels[-1] == 255
        counts = np.bincount(levels[low : high + 1], minlength=256)
        assert counts.max() - counts.min() <= 1


def test_a_value_beyond_is_refused_unless_it_is_to_be_clipped() -> None:
    grey = np.array([[0, 4096]], dtype=np.uint16)
    with pytest.raises(ValueError, match="values up to 4096; allowed: 0 to 4095"):
        scale(grey, bits(12))
    assert scale(grey, Depth(low=0, high=4095, clip=True))[0, :, 0].tolist() == [0, 255]


def test_eight_bits_stay_as_they_are() -> None:
    pixels = RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    assert scale(pixels, bits(12)) is pixels


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_all_16_bits_of_a_png_in_several_channels_are_read(channels: int) -> None:
    pixels = RNG.integers(0, 65536, (5, 7, channels), dtype=np.uint16)
    expected = pixels[..., 0] if channels == 2 else pixels[..., :3]
    np.testing.assert_array_equal(read_pixels(BytesIO(png16(pixels))), expected)
    np.testing.assert_array_equal(decode_image(BytesIO(png16(pixels)))[..., 0], pixels[..., 0] >> 8)


@pytest.mark.parametrize("order", ["<", ">"])
def test_all_16_bits_of_a_tiff_in_colours_are_read(order: str) -> None:
    pixels = RNG.integers(0, 4096, (5, 7, 3), dtype=np.uint16)
    np.testing.assert_array_equal(read_pixels(BytesIO(tiff16(pixels, order=order))), pixels)
    found = decode_image(BytesIO(tiff16(pixels, order=order)), bits(12))
    np.testing.assert_array_equal(found, pixels >> 4)


def test_a_layout_that_would_lose_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="TIFF of 3 channels of 16 bits; allowed: RGB or RGBA"):
        read_pixels(BytesIO(tiff16(np.zeros((5, 7, 3), dtype=np.uint16), planes=True)))


def test_the_range_of_an_image_leaves_out_a_hot_pixel() -> None:
    grey = RNG.integers(0, 4096, (300, 400), dtype=np.uint16)
    grey[7, 9] = 65535
    values = measure(grey)
    assert (values.lowest, values.highest, values.deep, values.same) == (0, 65535, True, False)
    assert 4000 < values.high < 4096
    assert used(values, None) == 16
    assert used(values._replace(highest=4095), bits(12)) > 250


def test_an_image_of_8_bits_uses_the_values_between_its_ends() -> None:
    assert used(measure(np.array([[[3, 3, 3], [40, 8, 3]]], dtype=np.uint8)), bits(16)) == 38


@pytest.mark.parametrize(
    ("pixels", "alone", "in_12_bits"),
    [
        (np.full((2, 2, 3), 7, dtype=np.uint8), True, True),
        (np.array([[[7, 8, 9], [7, 8, 9]]], dtype=np.uint8), True, True),
        (np.array([[[7, 8, 9], [7, 8, 10]]], dtype=np.uint8), False, False),
        (np.array([[0, 255]], dtype=np.uint16), True, False),
        (np.array([[0, 15]], dtype=np.uint16), True, True),
    ],
)
def test_one_grey_level(pixels: np.ndarray, alone: bool, in_12_bits: bool) -> None:
    assert one_level(measure(pixels), None) == alone
    assert one_level(measure(pixels), bits(12)) == in_12_bits
