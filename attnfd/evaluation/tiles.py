"""Large images in overlapping tiles: the memory for a network depends on the tile, not on the image."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from attnfd.config.section import Count, Section, Side
from attnfd.data.transforms import normalize

WORKING = 2
"""About how many copies of its features a layer needs at most while it computes."""


class Tiles(Section):
    """The side of a tile and the overlap of two neighbours, in pixels."""

    size: Side = Field(ge=32, description="side of a tile")
    overlap: Count = Field(description="pixels that two neighbours share")

    @model_validator(mode="after")
    def _move_on(self) -> "Tiles":
        if self.overlap > self.size // 2:
            raise ValueError(f"overlap: found {self.overlap}; allowed: up to half of the size {self.size}")
        return self

    def starts(self, side: int) -> list[int]:
        """Where tiles begin along a side: the fewest tiles that overlap by at least `overlap`, evenly.

        Example:
            >>> Tiles(size=100, overlap=20).starts(250)
            [0, 75, 150]
        """
        if side <= self.size:
            return [0]
        count = math.ceil((side - self.overlap) / (self.size - self.overlap))
        return [round(place * (side - self.size) / (count - 1)) for place in range(count)]

    def ramp(self, length: int) -> Tensor:
        """Weights along a side of a tile: 1 inside, decreasing towards both ends over the overlap."""
        place = torch.arange(1, length + 1, dtype=torch.float32)
        return torch.minimum(place, place.flip(0)).div(self.overlap + 1).clamp(max=1)

    def weights(self, side: int) -> Tensor:
        """The sum of the ramps of all tiles along a side."""
        length = min(side, self.size)
        summed = torch.zeros(side)
        for start in self.starts(side):
            summed[start : start + length] += self.ramp(length)
        return summed

    def fits(self, height: int, width: int) -> bool:
        """Whether an image fits into a single tile."""
        return max(height, width) <= self.size


def classify_tiled(model: nn.Module, image: Tensor, tiles: Tiles) -> Tensor:
    """Most likely classes (H, W), uint8, of a uint8 image (3, H, W), K ≤ 255."""
    classes = torch.empty(image.shape[1:], dtype=torch.uint8, device=image.device)
    for rows, logits in blended(model, image, tiles):
        classes[rows] = logits.argmax(0)
    return classes


def blended(model: nn.Module, image: Tensor, tiles: Tiles) -> Iterator[tuple[slice, Tensor]]:
    """Yield logits (K, rows, W) of a uint8 image (3, H, W) with the slice of their rows, from top to bottom.

    Where tiles overlap, the result is the mean of their logits, weighted by both ramps. Only the logits of
    one row of tiles are in memory at a time: rows are yielded as soon as no later tile reaches them. They
    are valid until you ask for the next rows, which use the same memory.
    """
    _, height, width = image.shape
    tops, lefts = tiles.starts(height), tiles.starts(width)
    rows, columns = min(height, tiles.size), min(width, tiles.size)
    weight = (tiles.ramp(rows)[:, None] * tiles.ramp(columns)).to(image.device)
    down = tiles.weights(height).to(image.device)
    across = tiles.weights(width).to(image.device)
    band: Tensor | None = None  # logits of the rows from `top` on
    for top, next_top in zip(tops, [*tops[1:], height], strict=True):
        for left in lefts:
            tile = image[None, :, top : top + rows, left : left + columns]
            logits = model(normalize(tile)).logits[0].float()
            if band is None:
                band = logits.new_zeros(len(logits), rows, width)
            band[:, :, left : left + columns] += weight * logits
        assert band is not None
        done = next_top - top
        yield slice(top, next_top), band[:, :done].div_(down[top:next_top, None] * across)
        shared = band[:, done:].clone()
        band.zero_()[:, : shared.shape[1]] = shared


def memory(
    model: nn.Module, classes: int, tiles: Tiles, height: int, width: int, *, probabilities: bool = False
) -> int:
    """About how many bytes an image of this size needs at most: weights, features of a tile, logits of a row.

    With `probabilities`, the image's probabilities in float16 are in memory, too.
    """
    rows, columns = min(height, tiles.size), min(width, tiles.size)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    logits = 4 * classes * ((rows + tiles.overlap) * width + 3 * rows * columns)
    answer = height * width + (2 * classes * (height + 2 * rows) * width if probabilities else 0)
    return weights + WORKING * max(_features(model, rows, columns)) + logits + 3 * height * width + answer


def _features(model: nn.Module, height: int, width: int) -> Iterator[int]:
    """Bytes that each layer reads and writes for an image; nothing is computed."""
    sizes: list[int] = []

    def note(_: nn.Module, inputs: Any, output: Any) -> None:
        tensors = [part for part in (*inputs, output) if isinstance(part, Tensor)]
        sizes.append(sum(tensor.numel() * tensor.element_size() for tensor in tensors))

    hooks = [module.register_forward_hook(note) for module in model.modules() if not list(module.children())]
    try:
        with torch.no_grad(), torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True):
            model(torch.zeros(1, 3, height, width, device=next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return iter(sizes)


def describe(
    model: nn.Module,
    classes: int,
    tiles: Tiles,
    sizes: list[tuple[int, int]],
    *,
    probabilities: bool = False,
) -> str:
    """One line about the tiles and the memory that a set of images will need."""
    height, width = max(sizes, key=lambda size: size[0] * size[1])
    count = len(tiles.starts(height)) * len(tiles.starts(width))
    needed = max(
        memory(model, classes, tiles, *size, probabilities=probabilities)
        for size in {(height, width), max(sizes, key=lambda s: s[1])}
    )
    return (
        f"The largest image, {height} × {width} pixels, becomes {count} tiles of {tiles.size} × {tiles.size} "
        f"that overlap by {tiles.overlap} or more; it needs about {needed / 2**30:.1f} GiB of memory"
    )
