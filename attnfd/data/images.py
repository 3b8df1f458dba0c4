"""Images and masks as arrays."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from attnfd.data.labels import COLOUR

UNREADABLE = (OSError, ValueError)
"""What is raised for a file that cannot be decoded."""

MATLAB = b"MATLAB 5.0"
"""How a .mat file begins."""


@contextmanager
def _decoding() -> Iterator[None]:
    """What Pillow raises for a broken file follows no rule; it leaves here as one of `UNREADABLE`."""
    try:
        yield
    except UnidentifiedImageError:
        raise ValueError("of no known format") from None
    except UNREADABLE:
        raise
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


@_decoding()
def decode_image(file: Path | BytesIO) -> np.ndarray:
    """An image as RGB (H, W, 3), uint8, turned as its EXIF orientation says.

    Grey, palette and CMYK images become RGB, transparency is dropped, and of 16 bits the upper 8 are used.

    Raises:
        OSError, ValueError: the file is broken, has far too many pixels, or pixels that are floats or
            integers of more than 16 bits.
    """
    with Image.open(file) as image:
        turned = ImageOps.exif_transpose(image)
        if turned.mode == "F" or turned.mode.startswith("I"):
            return np.repeat(_upper_bits(turned)[..., None], 3, axis=2)
        return np.array(turned.convert("RGB"))


def is_turned(file: Path | BytesIO) -> bool:
    """Whether an image's EXIF orientation turns or mirrors it."""
    with Image.open(file) as image:
        return image.getexif().get(0x0112, 1) != 1


@_decoding()
def decode_mask(file: Path | BytesIO, *, colours: bool = False) -> np.ndarray:
    """The values of a mask (H, W), turned as its EXIF orientation says.

    uint8: the grey values, of a palette image its indices, of a .mat file of SBD its `GTcls.Segmentation`.
    With `colours`, uint32: `COLOUR` + 0xRRGGBB.

    Raises:
        OSError, ValueError: the file is broken or has far too many pixels, or the mask has more than one
            channel (unless `colours`), or more than 8 bits.
    """
    if _head(file) == MATLAB:
        return _decode_sbd(file)
    with Image.open(file) as mask:
        allowed = ("1", "L", "P", "RGB", "RGBA") if colours else ("1", "L", "P")
        if mask.mode not in allowed:
            wanted = "8 bits per channel" if colours else "one channel of at most 8 bits"
            raise ValueError(f"mask of mode {mask.mode}; allowed: {wanted}")
        turned = ImageOps.exif_transpose(mask)
        if not colours:
            return np.array(turned).astype(np.uint8)
        red, green, blue = np.moveaxis(np.array(turned.convert("RGB")).astype(np.uint32), 2, 0)
        return COLOUR + (red << 16 | green << 8 | blue)


def read_classes(file: Path | BytesIO, table: np.ndarray) -> np.ndarray:
    """The class of every pixel of a mask (H, W), uint8, through the `label_table` of its dataset."""
    return table[decode_mask(file, colours=len(table) > COLOUR)]


def _upper_bits(image: Image.Image) -> np.ndarray:
    pixels = np.array(image)
    if image.mode == "F" or pixels.min() < 0 or pixels.max() > 0xFFFF:
        raise ValueError(f"image of mode {image.mode}; allowed: at most 16 bits per channel")
    return (pixels >> 8).astype(np.uint8)


def _head(file: Path | BytesIO) -> bytes:
    if isinstance(file, BytesIO):
        return file.getvalue()[: len(MATLAB)]
    with file.open("rb") as opened:
        return opened.read(len(MATLAB))


def _decode_sbd(file: Path | BytesIO) -> np.ndarray:
    from scipy.io import loadmat

    try:
        return loadmat(file, variable_names=["GTcls"])["GTcls"][0]["Segmentation"][0].astype(np.uint8)
    except Exception as error:  # what scipy raises for a broken file follows no rule
        raise ValueError(f"no mask of SBD: {error}") from None
