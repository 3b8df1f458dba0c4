"""Cityscapes in its published layout."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import Cityscapes as Published

from attnfd import paths
from attnfd.data.prepared import Prepared
from attnfd.errors import UserError
from attnfd.readers.cityscapes import Cityscapes
from stages.prepare import prepare
from tests import tasks
from tests.data.trees import params_of
from tests.readers.trees import cityscapes_tree, noise, write


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for key in ("DVC_ROOT", "ATTNFD_CITYSCAPES_ROOT"):
        monkeypatch.delenv(key, raising=False)
    return cityscapes_tree(tmp_path / "cityscapes")


def prepared(root: Path) -> Prepared:
    prepare(tasks.of(params_of("cityscapes", root=str(root)), "cityscapes"))
    return Prepared.load(paths.prepared("cityscapes"), root)


def test_ids_classes_and_colours_are_the_official_ones() -> None:
    for official in Published.classes:
        if official.id >= 0:
            assert Cityscapes.labels[official.id] == min(official.train_id, 255)
        if 0 <= official.train_id < 255:
            assert Cityscapes.classes[official.train_id] == official.name
            assert Cityscapes.palette[official.train_id] == official.color


def test_label_ids_are_read_and_all_else_is_left_alone(root: Path) -> None:
    found = prepared(root)
    assert found.split("train")["id"].tolist() == [
        "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit",
        "leftImg8bit/train/zurich/zurich_000001_000019_leftImg8bit",
    ]
    row = found.split("val").iloc[0]
    assert row["mask"] == "gtFine/val/munster/munster_000002_000019_gtFine_labelIds.png"
    # Values 0 to 33, then 0 to 13 again: ids 7, 8, 11, 12 and 13 occur twice, the other 14 classes once.
    assert [row[name] for name in ("road", "sidewalk", "building", "wall", "fence")] == [2] * 5
    assert [row[name] for name in Cityscapes.classes[5:]] == [1] * 14
    assert row["void"] == 48 - 10 - 14


def test_licence_plates_are_void(root: Path) -> None:
    values = np.array([[-1, 26], [7, 7]]).astype(np.int8).view(np.uint8)
    write(root / "leftImg8bit/val/munster/munster_000003_000019_leftImg8bit.png", noise("plate", (2, 2)))
    mask = root / "gtFine/val/munster/munster_000003_000019_gtFine_labelIds.png"
    write(mask, Image.fromarray(values))
    row = prepared(root).split("val").iloc[1]
    assert (row["void"], row["car"], row["road"]) == (1, 1, 2)


def test_what_a_mac_leaves_is_passed_over(root: Path) -> None:
    folder = root / "leftImg8bit/train/aachen"
    (folder / "._aachen_000000_000019_leftImg8bit.png").write_bytes(b"\0\5\26\7")
    (folder / ".DS_Store").write_bytes(b"\0")
    (folder.parent / ".DS_Store").write_bytes(b"\0")
    assert len(prepared(root).split("train")) == 2


def test_images_without_annotation_are_listed(root: Path) -> None:
    (root / "gtFine/val/munster/munster_000002_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(UserError, match=r"munster_000002_000019_gtFine_labelIds.png: cannot be read"):
        prepared(root)
