"""Draws the example of docs/tutorial.md: photos of a desk, annotated in LabelMe's format.

`python docs/desk.py exports/desk` writes 100 images and their JSON files. A number after
the folder is the seed: `python docs/desk.py exports/new 1` writes other images.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

IMAGES, WIDTH, HEIGHT = 100, 128, 96
COLOURS = {"coin": (178, 142, 70), "card": (196, 196, 206), "leaf": (84, 122, 62)}


def main(folder: Path, seed: int) -> None:
    """Write all images and annotations."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(IMAGES):
        shapes = [_shape(rng) for _ in range(rng.integers(2, 6))]
        name = f"{number:03d}.jpg"
        _photo(rng, shapes).save(folder / name, quality=90)
        content = {"imagePath": name, "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": shapes}
        (folder / name).with_suffix(".json").write_text(json.dumps(content, indent=1))


def _shape(rng: np.random.Generator) -> dict[str, Any]:
    """A polygon of one of the classes, at a random place and angle."""
    label = str(rng.choice(list(COLOURS)))
    radius = rng.uniform(10, 20)
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    outline = {
        "coin": np.stack([np.cos(angles), np.sin(angles)], axis=1),
        "card": np.array([[1.2, 0.75], [-1.2, 0.75], [-1.2, -0.75], [1.2, -0.75]]),
        "leaf": np.stack([1.4 * np.cos(angles), 0.6 * np.sin(angles) ** 3], axis=1),
    }[label]
    turn = rng.uniform(0, 2 * np.pi)
    turned = outline @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    centre = rng.uniform((radius, radius), (WIDTH - radius, HEIGHT - radius))
    points = (centre + radius * turned).round(1).tolist()
    return {"label": label, "shape_type": "polygon", "points": points}


def _photo(rng: np.random.Generator, shapes: list[dict[str, Any]]) -> Image.Image:
    """The shapes on wood: light from one side, blur and noise."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (134, 108, 78))
    draw = ImageDraw.Draw(image)
    for y in np.sort(rng.uniform(0, HEIGHT, 12)):
        draw.line([(0, y), (WIDTH, y + rng.uniform(-6, 6))], fill=(116, 90, 64), width=2)
    for shape in shapes:
        colour = np.add(COLOURS[shape["label"]], rng.normal(0, 22, 3)).clip(0, 255).astype(int)
        draw.polygon([tuple(point) for point in shape["points"]], fill=tuple(colour.tolist()))
    left, right = rng.uniform(0.6, 1.2, 2)
    light = np.linspace(left, right, WIDTH)[:, None]
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(0.7))) * light
    return Image.fromarray((pixels + rng.normal(0, 10, pixels.shape)).clip(0, 255).astype(np.uint8))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
