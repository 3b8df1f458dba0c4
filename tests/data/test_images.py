"""Decoding of images and masks."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from attnfd.data.images import decode_image, decode_mask, label_table


def png(image: Image.Image, **options: object) -> BytesIO:
    file = BytesIO()
    image.save(file, "PNG", **options)
    return BytesIO(file.getvalue())


def test_grey_images_become_rgb() -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    decoded = decode_image(png(Image.fromarray(grey)))
    np.testing.assert_array_equal(decoded, np.stack([grey] * 3, axis=-1))


def test_exif_orientation_is_applied() -> None:
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate 90° clockwise to view"
    decoded = decode_image(png(Image.fromarray(pixels), exif=exif))
    np.testing.assert_array_equal(decoded, np.rot90(pixels, k=-1))


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
