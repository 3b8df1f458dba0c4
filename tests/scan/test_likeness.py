"""Finding images that look alike."""

import numpy as np
import pytest

from attnfd.readers.shapes import Options, Shapes, draw
from attnfd.scan.likeness import ALIKE, differences, lookalikes
from tests.scan.trees import scene


def described(images: list[np.ndarray]) -> np.ndarray:
    return np.stack([differences(image) for image in images])


def test_the_most_alike_pair_comes_first() -> None:
    scenes = [np.asarray(scene(str(number))) for number in range(6)]
    noise = np.random.default_rng(0).normal(0, 12, scenes[0].shape)
    near = (scenes[4] + noise).clip(0, 255).astype(np.uint8)
    assert lookalikes(described([scenes[5], near, scenes[2]]), described(scenes[:5])) == [(2, 2), (1, 4)]


def test_drawn_images_are_not_alike_although_they_show_the_same_things() -> None:
    options = Options(
        train=1, extra=0, val=1, size=(64, 64), seed=0, objects=(2, 5), clutter=(0, 1), radius=(0.2, 0.4),
        warp=0.05, contrast=0.5, hint=0.85, noise=0.03,
    )  # fmt: skip
    images = [draw(options, np.random.default_rng([0, number]))[0] for number in range(120)]
    assert Shapes.classes
    assert lookalikes(described(images[:60]), described(images[60:])) == []


def test_spots_on_black_are_not_alike_unless_they_are_the_same() -> None:
    rng = np.random.default_rng(0)

    def spots() -> np.ndarray:
        y, x = np.mgrid[:96, :96]
        image = rng.normal(3, 2, (96, 96))
        for _ in range(2):
            image += 200 * (np.hypot(y - rng.integers(96), x - rng.integers(96)) < rng.integers(4, 12))
        return image.clip(0, 255).astype(np.uint8)[..., None].repeat(3, 2)

    images = [spots() for _ in range(60)]
    assert lookalikes(described(images[:30]), described(images[30:])) == []
    again = [(image * 0.9).astype(np.uint8) for image in images[:3]]
    assert sorted(lookalikes(described(again), described(images))) == [(0, 0), (1, 1), (2, 2)]


def test_an_image_of_one_value_is_like_no_other() -> None:
    flat = np.full((8, 8, 3), 7, dtype=np.uint8)
    assert lookalikes(described([flat]), described([flat])) == []


def test_many_images_are_compared_in_blocks() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(-255, 256, (600, 544)).astype(np.int16)
    found = lookalikes(rows, rows[::-1])
    assert sorted(found) == [(number, 599 - number) for number in range(600)]


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (16, 17)])
def test_small_images_have_a_description(size: tuple[int, int]) -> None:
    assert differences(np.zeros((*size, 3), dtype=np.uint8)).shape == (544,)
    assert 0 < ALIKE < 1
