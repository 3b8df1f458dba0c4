"""The cases in which `prepare` warns, and those in which it does not."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.scan.trees import folder, mask, prepared, scene

TWO = {"ground": 0, "cat": 1}
NAMES = [str(number) for number in range(10)]


def test_nothing_is_said_of_what_is_well(tmp_path: Path) -> None:
    root = folder(tmp_path / "well", {name: mask(0, 1, 1, 255) for name in NAMES})
    assert prepared(root, classes=TWO, val=0.2)[1] == []


def test_classes_that_a_split_lacks(tmp_path: Path) -> None:
    masks = {name: mask(0, 1, 2) for name in NAMES} | {"8": mask(0, 1, 3), "9": mask(0, 1, 4)}
    root = folder(tmp_path / "lacking", masks, val=["8", "9"])
    classes = {"ground": 0, "cat": 1, "dog": 2, "chair": 3, "sofa": 4}
    assert prepared(root, classes=classes)[1] == [
        "Only the split val has pixels of 2 classes: chair, sofa. No network is trained on them.",
        "The split val has no pixel of class dog.",
    ]


def test_more_void_than_not(tmp_path: Path) -> None:
    masks = {name: mask(0, 1, 255, 255, 255) for name in NAMES}
    masks |= {name: mask(0, 1, 255, 255) for name in ("8", "9")}  # a half is not more than a half
    root = folder(tmp_path / "void", masks, val=["8", "9"])
    assert prepared(root, classes=TWO)[1] == [
        "Of the pixels of the split train, 60.00 % are void: they are ignored."
    ]


def dark(name: str) -> Image.Image:
    """Images of 12 bits in a file of 16 bits: levels from 0 to 15."""
    return Image.fromarray(np.asarray(scene(name)) >> 4)


def test_dark_images_are_named_if_all_are(tmp_path: Path) -> None:
    masks = {name: mask(0, 1) for name in NAMES}
    root = folder(
        tmp_path / "dark", masks, lambda name: dark(name) if name < "8" else scene(name), ["8", "9"]
    )
    dull = (
        "{} of 10 images use fewer than 32 of the 256 grey levels, such as images/{}.png with values 0 to 15"
    )
    assert prepared(root, classes=TWO)[1] == [
        "Every image of the split train (8) is dark: no value is above 15 of 255.",
        dull.format(8, 0),
    ]
    scene("0").save(root / "images/0.png")
    assert prepared(root, classes=TWO)[1] == [dull.format(7, 1)]


def test_copies_of_one_original_on_both_sides_of_a_list(tmp_path: Path) -> None:
    names = [f"frame{number // 3}_jpg.rf.{number:032x}" for number in range(12)]
    root = folder(tmp_path / "copies", {name: mask(0, 1) for name in names}, val=names[8:])
    (warning,) = prepared(root, classes=TWO)[1]
    assert warning == (
        "Copies of the same original as a training image, by name: 1 of the 4 images in the split val, such "
        f"as images/{names[8]}.png (and images/{names[7]}.png). The scores will be too high."
    )


def as_jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=60)
    return Image.open(file).convert("RGB")


def test_names_that_differ_only_in_capitals_or_in_the_form_of_an_accent(tmp_path: Path) -> None:
    names = [*NAMES, "Street", "street", "caf\u00e9", "cafe\u0301"]
    root = folder(tmp_path / "names", {name: mask(0, 1) for name in names})
    (line,) = prepared(root, classes=TWO, val=0.2)[1]
    assert line == (
        "Names that differ only in capitals, or in how an accent is stored: 4 images, such as "
        "images/Street.png and images/street.png. On a disk that ignores this, they are one file."
    )


@pytest.mark.parametrize(
    "change",
    [
        as_jpeg,
        lambda image: image.resize((80, 60)),
        lambda image: image.point(lambda value: value * 0.8),
        lambda image: image.point(lambda value: min(255, value * 1.2)),
    ],
    ids=["saved as JPEG", "scaled", "darker", "brighter"],
)
def test_lookalikes_across_the_splits(tmp_path: Path, change: Callable[[Image.Image], Image.Image]) -> None:
    def images(name: str) -> Image.Image:
        # 7, 8 and 9 are copies of 0, 1 and 2.
        return change(scene(str(int(name) - 7))) if name in "789" else scene(name)

    root = folder(tmp_path / "alike", {name: mask(0, 1) for name in NAMES}, images, ["6", "7", "8", "9"])
    (warning,) = prepared(root, classes=TWO)[1]
    assert warning.startswith(
        "Almost equal to a training image: 3 of the 4 images in the split val, such as images/"
    )
    pairs = [f"images/{number + 7}.png (like images/{number}.png)" for number in range(3)]
    assert sum(pair in warning for pair in pairs) == 2
    assert prepared(root, classes=TWO)[1] == [warning]
