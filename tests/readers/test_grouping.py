"""Published classes merged or left out, and several values of a mask in one class."""
# ruff: noqa: E501

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnfd import paths
from attnfd.config.section import validate
from attnfd.data.loaders import Segmentation
from attnfd.data.prepared import Prepared
from attnfd.discovery import component, names
from attnfd.errors import UserError
from attnfd.readers.base import Grouped, Reader
from attnfd.readers.folder import labels_of
from attnfd.readers.voc import Voc
from stages.prepare import prepare
from tests import tasks
from tests.data.trees import params_of
from tests.readers.test_folder import COLOURS, coloured, paint
from tests.readers.trees import TREES, folder_tree, lined

SEVEN: dict[str, Any] = {
    "flat": ["road", "sidewalk"], "construction": ["building", "wall", "fence"],
    "object": ["pole", "traffic light", "traffic sign"], "nature": ["vegetation", "terrain"], "sky": "sky",
    "human": ["person", "rider"],
    "vehicle": ["car", "truck", "bus", "train", "motorcycle", "bicycle"],
}  # fmt: skip
"""The categories of Cityscapes."""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for key in ("DVC_ROOT", "ATTNFD_FOLDER_ROOT", "ATTNFD_VOC_ROOT", "ATTNFD_CITYSCAPES_ROOT"):
        monkeypatch.delenv(key, raising=False)


def prepared(reader: str, **options: Any) -> Prepared:
    prepare(tasks.of(params_of(reader, root="tree", **options), "mine"))
    return Prepared.load(paths.prepared("mine"), Path("tree"))


def reader_of(name: str, **options: Any) -> Reader:
    kind = component("readers", name)
    made: Reader = kind(validate(kind.Options, {"root": "tree", **options}, "prepare"), Path("tree"))
    return made


def test_every_reader_of_published_classes_takes_groups() -> None:
    readers = [component("readers", name) for name in names("readers")]
    published = [reader for reader in readers if not reader.own_classes]
    assert published
    for reader in published:
        assert issubclass(reader.Options, Grouped), reader


def test_voc_as_two_classes_to_the_pixel() -> None:
    TREES["voc"](Path("tree"))  # the masks contain classes 1, 2 and 3
    found = prepared("voc", classes={"other": "rest", "bird_or_bicycle": ["bird", "bicycle"]})
    assert found.card.classes == ("other", "bird_or_bicycle")
    assert found.card.palette == (Voc.palette[0], Voc.palette[3])
    masks = [Segmentation(found, split)[0][1].numpy() for split in ("train", "val")]
    np.testing.assert_array_equal(masks[0], np.where(lined(1) == 255, 255, 0))
    np.testing.assert_array_equal(masks[1], np.where(lined(3) == 3, 1, lined(3)))


def test_what_no_group_has_is_void_if_it_is_said() -> None:
    labels = reader_of("voc", classes={"person": "person", "animal": ["cat", "dog"]}, void="rest").labels
    assert {label: value for label, value in labels.items() if value != 255} == {15: 0, 8: 1, 12: 1}
    left_out = reader_of("camvid", void=["bicyclist"])
    assert left_out.classes == component("readers", "camvid").classes[:-1]
    assert left_out.labels[10] == left_out.labels[11] == 255


def test_cityscapes_in_its_seven_categories() -> None:
    TREES["cityscapes"](Path("tree"))
    found = prepared("cityscapes", classes=SEVEN)
    assert found.card.classes == tuple(SEVEN)
    assert found.card.splits["val"].pixels == {
        # Ids 0 to 33 once, and 0 to 13 once more; 9, 10, 14 to 16, 18, 29 and 30 are not classes.
        "flat": 4, "construction": 6, "object": 3, "nature": 2, "sky": 1, "human": 2, "vehicle": 6,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": {"a": "cat", "b": "dog"}}, "prepare.classes: leaves out background, aeroplane, .*`void: rest`"),
        ({"classes": {"a": "catt", "b": "rest"}}, "prepare.classes.a: unknown name 'catt'; did you mean 'cat'"),
        ({"classes": {"a": "cat", "b": ["cat", "dog"]}, "void": "rest"}, "found cat twice"),
        ({"classes": {"a": "rest"}}, "found a; allowed: two classes or more"),
        ({"classes": {"void": "cat", "b": "rest"}}, "found void; allowed: two classes or more, none of which has the name"),
        ({"classes": {"a": "rest", "b": "cat"}, "void": "rest"}, "prepare.void: found rest, as in prepare.classes.a"),
        ({"classes": {"a": [], "b": "rest"}}, "prepare.classes.a: found no class"),
        ({"void": ["dogg"]}, "prepare.void: unknown name 'dogg'"),
        ({"classes": {"a": 3, "b": "rest"}}, r"prepare.classes.a: found 3; allowed: a list, such as \[3\]"),
    ],
)  # fmt: skip
def test_groups_that_are_not_valid(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        reader_of("voc", **options)


def test_several_values_are_one_class() -> None:
    folder_tree(Path("tree"))
    for name in ("train.txt", "val.txt"):
        Path("tree", name).unlink()
    found = prepared("folder", classes={"animal": [10, 20], "ground": 0}, val=0.5)
    assert found.card.labels == {10: 0, 20: 0, 0: 1, 255: 255}
    assert sum(split.pixels["animal"] for split in found.card.splits.values()) == 4 * 48


def test_several_colours_are_one_class() -> None:
    folder_tree(Path("tree"))
    paint(Path("tree"), [coloured([[0, 1, 2], [2, 2, 1]])] * 2)
    classes = {"ground": COLOURS["ground"], "other": [COLOURS["water"], COLOURS["tree"]]}
    found = prepared("folder", classes=classes)
    np.testing.assert_array_equal(Segmentation(found, "train")[0][1].numpy(), [[0, 1, 1], [1, 1, 1]])
    assert found.card.palette == ((0, 0, 0), (0, 0, 255))


@pytest.mark.parametrize("classes", [{"a": 0, "b": 10}, {"ground": COLOURS["ground"], "b": COLOURS["water"]}])
def test_the_rest_is_void_if_it_is_said(classes: dict[str, Any]) -> None:
    folder_tree(Path("tree"))
    Path("tree/train.txt").write_text("0\n1\n2\n5\n")
    Path("tree/val.txt").write_text("3\n4\n")
    if "ground" in classes:
        paint(Path("tree"), [coloured([[0, 1, 2], [2, 2, 1]])] * 2)
    with pytest.raises(UserError, match="found labels"):
        prepared("folder", classes=classes)
    found = prepared("folder", classes=classes, void="rest")
    assert sum(split.void for split in found.card.splits.values()) == (6 if "ground" in classes else 96)


def test_a_list_of_three_numbers_is_a_colour_unless_numbers_are_beside_it() -> None:
    assert labels_of({"road": 0, "vehicle": [13, 14, 15]}) == {0: 0, 13: 1, 14: 1, 15: 1, 255: 255}
    assert labels_of({"road": [1, 2], "vehicle": [13, 14, 15]})[15] == 1
    assert set(labels_of({"road": [0, 0, 0], "vehicle": [13, 14, 15]})) == {256, 256 + 0x0D0E0F}
    assert len(labels_of({"road": [0, 0, 0], "vehicle": [[0, 0, 142], [0, 0, 70]]})) == 3
    with pytest.raises(ValueError, match=r"classes.b: found \[13, 13\]; allowed: 0 to 255, or \[red"):
        labels_of({"a": 0, "b": [13, 13]})
    with pytest.raises(ValueError, match=r"classes.b: found \[\]"):
        labels_of({"a": 0, "b": []})
