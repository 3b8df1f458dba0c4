"""Images and masks as arrays."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from attnfd.data.depth import LARGEST, Depth, Pixels, scale
from attnfd.data.labels import COLOUR, VOID

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP", "JPEG2000")
"""The formats that are read. Pillow knows more, but for EPS it starts another program on the file."""

IMAGES = (
    ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff",
    ".webp",
)  # fmt: skip
MASKS = (".bmp", ".png", ".tif", ".tiff")
"""Suffixes that a folder is searched for, in any case; for masks, only formats that keep every value.

JPEG changes pixels, and a program that writes a GIF may renumber its indices.
"""

UNREADABLE = (OSError, ValueError)
"""The exceptions for a file that cannot be decoded."""

MATLAB = b"MATLAB 5.0"
"""The first bytes of a .mat file."""

ORIENTATION, NEW_SUBFILE_TYPE, BITS_PER_SAMPLE, SAMPLES_PER_PIXEL = 0x0112, 0x00FE, 0x0102, 0x0115
"""Tags of EXIF and TIFF."""

REDUCED_OR_MASK = 0b101
"""Set in the type of a TIFF page that is a smaller copy or the transparency of another page."""

INTEGERS = ("I", "I;16", "I;16B", "I;16L", "I;16N")
"""Modes of images with one channel of more than 8 bits."""

GREY_ALPHA = "LA;16B"
DEEP = {
    **{
        f"{layout};16{order}": f"{layout};16{other}"
        for layout in ("RGB", "RGBA", "RGBX")
        for order, other in (("L", "B"), ("B", "L"), ("N", "B" if sys.byteorder == "little" else "L"))
    },
    GREY_ALPHA: "RGBA",
}
"""Layouts of 16 bits, of which Pillow reads the upper bytes, and the layouts that give the lower bytes."""


class Mask(NamedTuple):
    """Values (H, W) of a mask, the palette of an index mask, and whether pixels have one bit.

    Values of uint8 are grey values or palette indices; values of uint32 are colours: `COLOUR` + 0xRRGGBB. A
    palette is a list of numbers: red, green and blue of index 0, of index 1, and so on. `turned`: the mask
    has an EXIF orientation of its own.
    """

    values: NDArray[np.uint8] | NDArray[np.uint32]
    palette: Sequence[int] = ()
    bilevel: bool = False
    turned: bool = False


@contextmanager
def _decoding() -> Iterator[None]:
    """Pillow raises exceptions of many types for a broken file; turn them into one of `UNREADABLE`."""
    try:
        yield
    except UnidentifiedImageError:
        allowed = ", ".join(FORMATS)
        raise ValueError(
            f"its format is unknown, or its channels are not supported; allowed: {allowed}"
        ) from None
    except UNREADABLE:
        raise
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def decode_image(file: str | Path | BytesIO, depth: Depth | None = None) -> NDArray[np.uint8]:
    """An image as RGB (H, W, 3), uint8, turned upright by its EXIF orientation.

    Grey, palette and CMYK images become RGB, and transparency is dropped.

    Args:
        depth: how values of more than 8 bits are scaled; unset: the upper 8 of 16 bits are used.

    Raises:
        OSError, ValueError: the file is broken, has too many pixels, has several pages or frames, has values
            that are floats or have more than 16 bits, or has values outside of `depth`.
    """
    return scale(read_pixels(file), depth)


@_decoding()
def read_pixels(file: str | Path | BytesIO) -> Pixels:
    """An image before it is scaled to 8 bits, see `decode_image`."""
    with _open(file) as image:
        deep = _rawmode(image)
        turned = ImageOps.exif_transpose(image)
        if turned.mode == "F" or turned.mode.startswith("I"):
            return _integers(turned)
        if not deep:
            return np.array(turned.convert("RGB"))
    return _sixteen_bits(file, np.array(turned), deep)


@_decoding()
def orientation(file: str | Path | BytesIO) -> int:
    """The EXIF orientation of an image: 1 if it is stored upright, else 2 to 8."""
    with _open(file) as image:
        return _orientation(image)


@_decoding()
def drops_a_band(file: str | Path | BytesIO) -> bool:
    """Whether an image has a band that is not read: a fourth one, or transparency that varies."""
    with _open(file) as image:
        if image.format == "TIFF" and image.tag_v2.get(SAMPLES_PER_PIXEL, 1) > len(image.getbands()):  # type: ignore[attr-defined]
            return True
        if "A" not in image.getbands():
            return False
        lowest, highest = image.getchannel("A").getextrema()
        return lowest != highest


def decode_mask(file: str | Path | BytesIO, *, colours: bool = False) -> np.ndarray:
    """The values of a mask (H, W), see `read_mask`."""
    return read_mask(file, colours=colours).values


@_decoding()
def read_mask(file: str | Path | BytesIO, *, colours: bool = False, white: int = 1) -> Mask:
    """A mask, turned upright by its EXIF orientation. From a .mat file of SBD, `GTcls.Segmentation` is read.

    Args:
        colours: read colours rather than grey values and indices.
        white: value of white in a mask of one bit.

    Raises:
        OSError, ValueError: the file is broken, has too many pixels, or has several pages or frames; the mask
            has more than one channel (unless `colours`), values above 255, or labels in its alpha channel.
    """
    if _head(file) == MATLAB:
        return Mask(_decode_sbd(file))
    with _open(file) as mask:
        allowed = ("1", "L", "P", "LA", "PA", "RGB", "RGBA") if colours else ("1", "L", "P", *INTEGERS)
        if mask.mode not in allowed:
            wanted = "RGB, RGBA, grey or palette of 8 bits" if colours else "one channel of whole numbers"
            raise ValueError(f"mask of mode {mask.mode}; allowed: {wanted}")
        turned = _orientation(mask) != 1
        upright = ImageOps.exif_transpose(mask)
        if upright.mode in INTEGERS:
            return Mask(_fitting(np.array(upright)), turned=turned)
        if colours:
            return Mask(_colours(upright), turned=turned)
        values = np.array(upright).astype(np.uint8)
        if upright.mode == "1":
            return Mask(values * np.uint8(white), bilevel=True, turned=turned)
        return Mask(values, (upright.getpalette() if upright.mode == "P" else None) or (), turned=turned)


def read_labels(file: str | Path | BytesIO, table: np.ndarray) -> Mask:
    """A mask of the dataset with this `label_table`.

    White in a mask of one bit is 1, or 255 if 255 is a class and 1 is not.
    """
    white = 255 if table[1] == VOID != table[255] else 1
    return read_mask(file, colours=len(table) > COLOUR, white=white)


def read_classes(file: str | Path | BytesIO, table: np.ndarray) -> np.ndarray:
    """The class of every pixel of a mask (H, W), uint8, through the `label_table` of its dataset."""
    return table[read_labels(file, table).values]


@contextmanager
def _open(file: str | Path | BytesIO) -> Iterator[Image.Image]:
    """Open a file that has one image, and go to the page of that image."""
    with Image.open(file, formats=FORMATS) as image:
        # In an MPO the photo comes first; copies of it for other devices follow.
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            _seek_only_page(image)
        yield image


def _seek_only_page(image: Image.Image) -> None:
    pages = [page for page in range(image.n_frames) if _is_own(image, page)]  # type: ignore[attr-defined]
    if len(pages) != 1:
        raise ValueError(
            f"found {len(pages)} pages or frames; allowed: one; save the one that you want as its own file"
        )
    image.seek(pages[0])


def _is_own(image: Image.Image, page: int) -> bool:
    """Whether a page is an image of its own."""
    if image.format != "TIFF":
        return True
    image.seek(page)
    return not image.tag_v2.get(NEW_SUBFILE_TYPE, 0) & REDUCED_OR_MASK  # type: ignore[attr-defined]


def _orientation(image: Image.Image) -> int:
    found = image.getexif().get(ORIENTATION, 1)
    return found if found in range(2, 9) else 1


def _fitting(values: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """The values of a mask of more than 8 bits, as uint8."""
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > VOID:
        raise ValueError(f"mask with values from {lowest} to {highest}; allowed: 0 to {VOID}")
    return values.astype(np.uint8)


def _integers(image: Image.Image) -> NDArray[np.uint16]:
    pixels = np.array(image)
    if image.mode == "F" or pixels.min() < 0 or pixels.max() > LARGEST:
        found = f"image of mode {image.mode} with values from {pixels.min():g} to {pixels.max():g}"
        raise ValueError(f"{found}; allowed: whole numbers of at most 16 bits per channel")
    return pixels.astype(np.uint16)


def _rawmode(image: Image.Image) -> str:
    """The layout of an image of several channels of 16 bits, of which Pillow reads the upper 8; else ""."""
    tiles = getattr(image, "tile", None)
    rawmode = _arguments(tiles[0])[0] if tiles and image.format in ("PNG", "TIFF") else ""
    if rawmode in DEEP:
        return rawmode
    bits = image.tag_v2.get(BITS_PER_SAMPLE, (8,)) if image.format == "TIFF" else (8,)  # type: ignore[attr-defined]
    if len(bits) > 1 and max(bits) > 8:
        raise ValueError(
            f"TIFF of {len(bits)} channels of {max(bits)} bits; allowed: RGB or RGBA, interleaved by pixel"
        )
    return ""


def _arguments(tile: Any) -> tuple[Any, ...]:
    return (tile[3],) if isinstance(tile[3], str) else tuple(tile[3])


def _sixteen_bits(file: str | Path | BytesIO, upper: NDArray[np.uint8], rawmode: str) -> NDArray[np.uint16]:
    """All 16 bits of an image: Pillow reads the file again for the lower byte of every value."""
    with _open(file) as image:
        image.tile = [  # type: ignore[attr-defined]
            (*tile[:3], (DEEP[rawmode], *_arguments(tile)[1:]))
            for tile in image.tile  # type: ignore[attr-defined]
        ]
        lower = np.array(ImageOps.exif_transpose(image))
    if rawmode == GREY_ALPHA:  # the first two of a pixel's four bytes are its grey value
        return lower[..., 0].astype(np.uint16) << 8 | lower[..., 1]
    return upper[..., :3].astype(np.uint16) << 8 | lower[..., :3]


def _colours(mask: Image.Image) -> NDArray[np.uint32]:
    """Colours as `COLOUR` + 0xRRGGBB; an error if only the alpha channel separates some labels."""
    red, green, blue = np.moveaxis(np.array(mask.convert("RGB")).astype(np.uint32), 2, 0)
    colours = red << 16 | green << 8 | blue
    if mask.has_transparency_data:
        alpha = np.array(mask.convert("RGBA"))[..., 3]
        both = colours.astype(np.uint64) << 8 | alpha
        if alpha.min() < alpha.max() and len(np.unique(both)) > len(np.unique(colours)):
            raise ValueError("pixels of one colour differ in the alpha channel; allowed: labels as colours")
    return COLOUR + colours


def _head(file: str | Path | BytesIO) -> bytes:
    if isinstance(file, BytesIO):
        return file.getvalue()[: len(MATLAB)]
    with open(file, "rb") as opened:
        return opened.read(len(MATLAB))


def _decode_sbd(file: str | Path | BytesIO) -> np.ndarray:
    from scipy.io import loadmat

    try:
        return loadmat(file, variable_names=["GTcls"])["GTcls"][0]["Segmentation"][0].astype(np.uint8)
    except Exception as error:  # scipy raises exceptions of many types for a broken file
        raise ValueError(f"not a mask of SBD: {error}") from None
