"""The drawn dataset."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnfd.data.images import decode_image, decode_mask
from attnfd.errors import UserError
from attnfd.readers.shapes import OUTLINES, Options, Shapes, draw


def small(**changes: Any) -> Options:
    options: dict[str, Any] = {
        "train": 4, "val": 2, "extra": 0, "size": (24, 32), "seed": 0, "objects": (2, 4), "clutter": (0, 2),
        "radius": (0.2, 0.4), "warp": 0.05, "contrast": 0.6, "hint": 0.5, "noise": 0.05,
    }  # fmt: skip
    return Options(**(options | changes))


def files_of(root: Path, options: Options) -> dict[str, bytes]:
    Shapes(options, root).draw()
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.png")}


def test_a_seed_always_draws_the_same_files(tmp_path: Path) -> None:
    first = files_of(tmp_path / "a", small())
    assert len(first) == 2 * 6
    assert first == files_of(tmp_path / "b", small())
    other = files_of(tmp_path / "c", small(seed=1))
    assert not set(first.values()) & set(other.values())


def test_more_images_leave_the_others_as_they_were(tmp_path: Path) -> None:
    few = files_of(tmp_path / "a", small())
    many = files_of(tmp_path / "b", small(train=6))
    assert few.items() < many.items()


def test_images_have_the_size_asked_for(tmp_path: Path) -> None:
    reader = Shapes(small(), tmp_path)
    reader.draw()
    for pair in reader.pairs()["train"]:
        assert decode_image(tmp_path / pair.image).shape == (24, 32, 3)
        assert decode_mask(tmp_path / pair.mask).shape == (24, 32)


def test_every_class_occurs() -> None:
    masks = [draw(small(), np.random.default_rng(seed))[1] for seed in range(40)]
    assert set(np.unique(masks).tolist()) == set(Shapes.labels)


def test_void_is_only_between_classes() -> None:
    for seed in range(10):
        _, mask = draw(small(), np.random.default_rng(seed))
        for row, column in np.argwhere(mask == 255):
            around = mask[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            assert len(set(around.ravel().tolist())) > 1


# Areas by hand: regular polygons with corners at radius 1, a star of 5 tips with inner radius 0.42.
AREAS = {
    "triangle": 3 * 3**0.5 / 4,
    "square": 2.0,
    "star": 5 * 0.42 * np.sin(np.pi / 5),
    "cross": 2 * 1.8 * 0.6 - 0.6**2,
    "ring": np.pi * (0.93**2 - 0.47**2),
    "striped_disc": np.pi * 0.9**2,
    "checkered_disc": np.pi * 0.9**2,
}


@pytest.mark.parametrize("name", OUTLINES)
def test_outlines_have_their_area(name: str) -> None:
    side = np.linspace(-1.2, 1.2, 1201)
    x, y = np.meshgrid(side, side)
    inside = OUTLINES[name](x, y)
    assert inside.mean() * 2.4**2 == pytest.approx(AREAS[name], rel=0.01)
    assert np.hypot(x, y)[inside].max() <= 1.01


@pytest.mark.parametrize(("hint", "shown"), [(0.0, False), (0.9, True)])
def test_colour_shows_the_class_as_far_as_the_hint_says(hint: float, shown: bool) -> None:
    options = small(size=(48, 48), objects=(4, 4), noise=0.0, hint=hint)
    colours: dict[int, list[np.ndarray]] = {value: [] for value in range(1, len(Shapes.classes))}
    for seed in range(150):
        image, mask = draw(options, np.random.default_rng(seed))
        for value, found in colours.items():
            if (mask == value).sum() > 20:
                found.append(image[mask == value].mean(axis=0))
    middles = np.array([np.mean(found, axis=0) for found in colours.values()])
    spread = np.mean([np.std(found, axis=0) for found in colours.values()])
    assert (np.ptp(middles, axis=0).max() > spread) == shown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objects": (4, 2)}, r"objects: found \[4, 2\]"),
        ({"radius": (0.4, 0.2)}, "radius"),
        ({"train": 0}, "train"),
        ({"contrast": 1.5}, "contrast"),
        ({"colour": 1}, "colour"),
    ],
)
def test_impossible_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small(**changes)
