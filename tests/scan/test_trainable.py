"""`prepare` refuses data that cannot train, and names the cause that the masks suggest."""

import re
from pathlib import Path
from typing import Any

import pytest

from attnfd.errors import UserError
from tests import tasks
from tests.data.trees import camvid_tree, params_of, save
from tests.scan.trees import folder, mask, prepared


def refused(root: Path, **options: Any) -> str:
    with pytest.raises(UserError) as raised:
        prepared(root, **options)
    message = str(raised.value)
    assert "\n" not in message
    assert not list(Path("data").iterdir())
    return message


def test_objects_of_255_are_not_taken_for_void(tmp_path: Path) -> None:
    root = folder(tmp_path / "cells", {str(number): mask(0, 255, 255, 255) for number in range(10)})
    message = refused(root, classes={"membrane": 0, "cell": 1}, val=0.2)
    assert message.startswith("mine: no mask has a pixel of class cell (1). The masks contain 0, 255. ")
    assert "is it cell? Then write `cell: 255`." in message
    found, warnings = prepared(root, classes={"membrane": 0, "cell": 255}, val=0.2)
    assert found.card.splits["train"].pixels == {"membrane": 8 * 120 * 40, "cell": 8 * 120 * 120}
    assert warnings == []


def test_names_that_are_shifted_against_the_values(tmp_path: Path) -> None:
    # as if a list of names started with a name for void
    names = ["ignore", "ground", "cat", "dog"]
    root = folder(tmp_path / "shifted", {str(number): mask(0, 1, 2, 255) for number in range(10)})
    message = refused(root, classes={name: value for value, name in enumerate(names)}, val=0.2)
    assert "no mask has a pixel of class dog (3). The masks contain 0 to 2, 255." in message
    assert "Are the names shifted by one" in message


def test_numbers_of_objects_in_place_of_classes(tmp_path: Path) -> None:
    masks = {str(number): mask(*range(number % 5 + 2)) for number in range(10)}
    root = folder(tmp_path / "instances", masks)
    message = refused(root, classes={f"class{value}": value for value in range(21)}, val=0.2)
    assert "no mask has a pixel of 15 classes: class6 (6), class7 (7)" in message
    assert "(15 in all). The masks contain 0 to 5." in message
    assert "Are the values numbers of the objects in an image (instances)?" in message


def test_a_class_in_the_middle_is_the_users_to_take_out(tmp_path: Path) -> None:
    root = folder(tmp_path / "gap", {str(number): mask(0, 2) for number in range(10)})
    message = refused(root, classes={"ground": 0, "cat": 1, "dog": 2}, val=0.2)
    assert message.endswith("The masks contain 0, 2. Remove it from the classes, or add images with it")


def test_colours_have_no_neighbours(tmp_path: Path) -> None:
    save(tmp_path / "two/images/0.png", mask(*range(160))[..., None].repeat(3, 2))
    save(tmp_path / "two/images/1.png", mask(*range(160, 0, -1))[..., None].repeat(3, 2))
    for number in range(2):
        save(tmp_path / f"two/masks/{number}.png", mask(0, 7)[..., None].repeat(3, 2))
    for number, split in enumerate(("train", "val")):
        (tmp_path / f"two/{split}.txt").write_text(f"{number}\n")
    colours = {"ground": [0, 0, 0], "cat": [7, 7, 7], "dog": [9, 9, 9]}
    message = refused(tmp_path / "two", classes=colours)
    assert "class dog (#090909). The masks contain #000000, #070707. Remove it from" in message


@pytest.mark.parametrize(
    ("val", "split"), [(["0", "1"], "val"), ([str(number) for number in range(2, 10)], "train")]
)
def test_a_split_of_one_class(tmp_path: Path, val: list[str], split: str) -> None:
    masks = {str(number): mask(0) if number < 2 else mask(0, 1) for number in range(10)}
    message = refused(folder(tmp_path / "one", masks, val=val), classes={"ground": 0, "cat": 1})
    assert f"split {split}: its masks contain only ground; allowed: two classes or more" in message


def test_a_split_of_void(tmp_path: Path) -> None:
    masks = {str(number): mask(255) if number < 2 else mask(0, 1) for number in range(10)}
    message = refused(folder(tmp_path / "void", masks, val=["0", "1"]), classes={"ground": 0, "cat": 1})
    assert "split val: its masks contain only void; 255 is void unless a class has it" in message


def test_a_part_of_a_published_dataset_may_lack_classes(tmp_path: Path) -> None:
    from attnfd.data.prepared import read_warnings
    from stages.prepare import prepare

    root = camvid_tree(tmp_path / "tree", {"train": ((8, 8),) * 2, "val": ((8, 8),)})
    for path in root.glob("*annot/*.png"):
        save(path, mask(0, 3, size=(8, 8)))
    prepare(tasks.of(params_of("camvid", root="tree"), "tiny"))
    (warning,) = read_warnings(Path("data/tiny"))
    assert re.match(r"No mask has a pixel of 9 classes: building, pole, .*, … \(9 in all\)\.", warning)
