"""The embedded dataset: textured shapes that overlap on a textured background, drawn from a seed.

Every object has its own colours, which only hint at its class, or do not hint at all. Five classes differ in
outline; two more are discs that differ in texture only. Other blobs (clutter) are background, in any colours.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from attnfd.config.section import Count, NonNegative, Positive, Seed, Side, within
from attnfd.data.labels import VOID
from attnfd.readers.base import Grouped, Pair, Reader

FINE = 2
"""A pixel of an image is the mean of FINE × FINE drawn ones."""


Few = Annotated[int, Field(ge=0), within(0, 1000, "more would hide each other")]
Radius = Annotated[float, Field(gt=0), within(0.001, 10, "an object must be visible, with its outline")]


class Options(Grouped):
    """How much is drawn, and how difficult it is."""

    train: Positive = Field(description="images of the split train")
    extra: Count = Field(description="images of the split extra; a recipe can use them for the teacher alone")
    val: Positive = Field(description="images of the split val")
    test: Count = Field(default=0, description="images of the split test")
    size: tuple[Side, Side] = Field(description="height, width of an image in pixels")
    seed: Seed = Field(description="an image depends on seed, split and number")
    objects: tuple[Annotated[Few, Field(gt=0)], Annotated[Few, Field(gt=0)]] = Field(
        description="fewest and most objects in an image"
    )
    clutter: tuple[Few, Few] = Field(description="fewest and most unlabelled blobs behind the objects")
    radius: tuple[Radius, Radius] = Field(
        description="range of an object's radius, relative to the shorter side of the image"
    )
    warp: NonNegative = Field(description="how far outlines are bent, relative to the radius")
    contrast: float = Field(
        gt=0, le=1, description="distance of the two colours of a texture; 1: black to white"
    )
    hint: float = Field(
        ge=0, le=1, description="how close an object's colour is to its class's; 0: independent of the class"
    )
    noise: NonNegative = Field(description="standard deviation of the pixel noise; 1: black to white")

    @model_validator(mode="after")
    def _ranges_in_order(self) -> "Options":
        for key in ("objects", "clutter", "radius"):
            low, high = getattr(self, key)
            if low > high:
                raise ValueError(f"{key}: found {[low, high]}; allowed: [low, high] with low ≤ high")
        return self


Pattern = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""A value for every point (x, y). Outlines are true inside, within radius 1; textures range from -1 to 1."""


def _disc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) < 0.9


def _ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(x, y) - 0.7) < 0.23


def _polygon(x: np.ndarray, y: np.ndarray, corners: int, inner: float) -> np.ndarray:
    """A regular polygon with corners at radius 1, and corners between them at radius `inner`."""
    half = np.pi / corners
    angle = np.abs((np.arctan2(y, x) + half) % (2 * half) - half)
    radius = np.hypot(x, y)
    along, across = radius * np.cos(angle), radius * np.sin(angle)
    # Whether a point is inside the edge from (1, 0) to the inner corner.
    inner_x, inner_y = inner * np.cos(half), inner * np.sin(half)
    return (along - 1) * inner_y < across * (inner_x - 1)


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _polygon(x, y, 3, np.cos(np.pi / 3))


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _polygon(x, y, 4, np.cos(np.pi / 4))


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _polygon(x, y, 5, 0.42)


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (np.minimum(np.abs(x), np.abs(y)) < 0.3) & (np.maximum(np.abs(x), np.abs(y)) < 0.9)


def _blob(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) < 0.75 + 0.2 * np.cos(2 * np.arctan2(y, x))


OUTLINES: dict[str, Pattern] = {
    "triangle": _triangle,
    "square": _square,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "striped_disc": _disc,
    "checkered_disc": _disc,
}


def _plain(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.zeros_like(x)


def _stripes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sign(np.sin(x))


def _checks(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sign(np.sin(x) * np.sin(y))


def _waves(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sin(x / 2 + 1.5 * np.sin(y / 3))


TEXTURES = (_plain, _stripes, _checks, _waves)
TEXTURE_OF = {"striped_disc": _stripes, "checkered_disc": _checks}


class Shapes(Reader):
    """Draws `images/` and `masks/`; pixels that several classes share are void."""

    Options = Options
    classes = ("background", *OUTLINES)
    palette = (
        (30, 30, 38), (240, 180, 40), (70, 130, 220), (220, 70, 80), (80, 180, 100),
        (160, 100, 210), (245, 130, 190), (60, 200, 210),
    )  # fmt: skip
    labels = {**{value: value for value in range(len(classes))}, VOID: VOID}  # noqa: RUF012

    def draw(self) -> None:
        for folder in ("images", "masks"):
            (self.root / folder).mkdir(parents=True)
        for split, pairs in enumerate(self.pairs().values()):
            for number, pair in enumerate(pairs):
                image, mask = draw(self.options, np.random.default_rng([self.options.seed, split, number]))
                Image.fromarray(image).save(self.root / pair.image, compress_level=1)
                assert pair.mask is not None
                Image.fromarray(mask).save(self.root / pair.mask)

    def pairs(self) -> dict[str, list[Pair]]:
        return {
            split: [
                Pair(Path("images", f"{split}_{number:05d}.png"), Path("masks", f"{split}_{number:05d}.png"))
                for number in range(images)
            ]
            for split, images in self._sizes().items()
        }

    def _sizes(self) -> dict[str, int]:
        # An image depends on its split's position: a new split must come last.
        sizes = {name: getattr(self.options, name) for name in ("train", "val", "extra", "test")}
        return {split: images for split, images in sizes.items() if images}


def draw(options: Options, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) and its mask (H, W), both uint8."""
    height, width = options.size
    fine = (FINE * height, FINE * width)
    y, x = np.indices(fine) / (min(fine) * options.radius[1])
    canvas = _coloured(x, y, 0, _any_texture(rng), options, rng)
    mask = np.zeros(fine, dtype=np.uint8)
    for _ in range(rng.integers(*options.clutter, endpoint=True)):
        _add(canvas, mask, 0, _blob, _any_texture(rng), options, rng)
    for _ in range(rng.integers(*options.objects, endpoint=True)):
        value = int(rng.integers(1, len(OUTLINES) + 1))
        name = tuple(OUTLINES)[value - 1]
        _add(canvas, mask, value, OUTLINES[name], TEXTURE_OF.get(name) or _any_texture(rng), options, rng)

    image = np.mean(_parts(canvas), axis=0)
    image += rng.normal(0, options.noise, image.shape)
    first, *others = _parts(mask)
    shared = np.any([first != other for other in others], axis=0)
    return (255 * image.clip(0, 1)).round().astype(np.uint8), np.where(shared, np.uint8(VOID), first)


def _parts(fine: np.ndarray) -> list[np.ndarray]:
    """The FINE × FINE images, each with one drawn point of every pixel."""
    return [fine[row::FINE, column::FINE] for row in range(FINE) for column in range(FINE)]


def _add(
    canvas: np.ndarray,
    mask: np.ndarray,
    value: int,
    outline: Pattern,
    texture: Pattern,
    options: Options,
    rng: np.random.Generator,
) -> None:
    """Paint one object or blob over the canvas, at a random position, size and angle."""
    low, high = np.log(options.radius)
    radius = np.exp(rng.uniform(low, high)) * min(mask.shape)
    centre = rng.uniform(0, mask.shape)
    reach = radius * (1 + 1.5 * options.warp)
    start = np.maximum(0, centre - reach).astype(int)
    stop = np.ceil(centre + reach).astype(int)
    box = tuple(slice(*ends) for ends in zip(start, stop, strict=True))
    down, right = (np.indices(mask[box].shape) + (start - centre)[:, None, None]) / radius
    x, y = _turned(right, down, rng)
    bend_x, bend_y = rng.uniform(0, 2 * np.pi, 2)
    inside = outline(x + options.warp * np.sin(3 * y + bend_x), y + options.warp * np.sin(3 * x + bend_y))
    canvas[box][inside] = _coloured(x[inside], y[inside], value, texture, options, rng)
    mask[box][inside] = value


def _coloured(
    x: np.ndarray, y: np.ndarray, value: int, texture: Pattern, options: Options, rng: np.random.Generator
) -> np.ndarray:
    """RGB of the points (x, y) of a class: a texture in two random colours under light from one side."""
    middle = rng.uniform(0.2, 0.8, 3)
    if value:
        middle += options.hint * (np.array(Shapes.palette[value]) / 255 - middle)
    step = rng.uniform(-1, 1, 3)
    step *= options.contrast / 2 / np.abs(step).max()
    frequency = np.pi * rng.uniform(2.5, 4.5)
    across, along = _turned(frequency * x, frequency * y, rng)
    light, _ = _turned(x, y, rng)
    return (middle + step * texture(across, along)[..., None]) * (1 + 0.2 * np.tanh(light))[..., None]


def _turned(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    angle = rng.uniform(0, 2 * np.pi)
    return np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y


def _any_texture(rng: np.random.Generator) -> Pattern:
    return TEXTURES[rng.integers(len(TEXTURES))]
