"""Image files of 16 bits per channel, which Pillow reads but does not write."""

import struct
import zlib

import numpy as np

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""Of PNG, by the number of channels."""


def png16(pixels: np.ndarray) -> bytes:
    """A PNG with pixels (H, W) or (H, W, 1 to 4): grey, grey and alpha, RGB, RGBA."""
    height, width = pixels.shape[:2]
    channels = pixels.size // (height * width)
    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiff16(pixels: np.ndarray, *, planes: bool = False, order: str = "<") -> bytes:
    """A TIFF with pixels (H, W, C) in one strip; with `planes`, one strip per channel."""
    height, width, channels = pixels.shape
    strips = list(np.moveaxis(pixels, 2, 0)) if planes else [pixels]
    data = [strip.astype(f"{order}u2").tobytes() for strip in strips]
    tags: list[tuple[int, str, list[int]]] = [
        (256, "H", [width]), (257, "H", [height]), (258, "H", [16] * channels), (259, "H", [1]),
        (262, "H", [2]), (273, "I", [0] * len(data)), (277, "H", [channels]), (278, "H", [height]),
        (279, "I", [len(strip) for strip in data]), (284, "H", [2 if planes else 1]),
    ]  # fmt: skip
    behind = 8 + 2 + 12 * len(tags) + 4
    start = behind + sum(struct.calcsize(f"{len(values)}{kind}") for _, kind, values in tags)
    offsets = np.cumsum([start, *(len(strip) for strip in data)]).tolist()[: len(data)]
    entries, more = b"", b""
    for tag, kind, given in tags:
        values = offsets if tag == 273 else given
        packed = struct.pack(f"{order}{len(values)}{kind}", *values)
        place = packed.ljust(4, b"\0")
        if len(packed) > 4:
            place = struct.pack(f"{order}I", behind + len(more))
            more += packed
        entries += struct.pack(f"{order}HHI", tag, 3 if kind == "H" else 4, len(values)) + place
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(tags))
    body = head + entries + struct.pack(f"{order}I", 0) + more
    return body.ljust(start, b"\0") + b"".join(data)
