"""The split lists of CamVid."""

from pathlib import Path

import pytest

from attnfd.errors import UserError
from attnfd.readers.base import Pair
from attnfd.readers.camvid import CamVid


def reader_of(root: Path, train: str) -> CamVid:
    (root / "train.txt").write_text(train)
    (root / "val.txt").write_text("val/b.png valannot/b.png\n")
    return CamVid(CamVid.Options(root=str(root)), root)


def test_lists_are_read_with_and_without_the_authors_folder(tmp_path: Path) -> None:
    lines = "train/a.png trainannot/a.png\n/SegNet/CamVid/train/c.png /SegNet/CamVid/trainannot/c.png\n\n"
    assert reader_of(tmp_path, lines).pairs() == {
        "train": [
            Pair(Path("train/a.png"), Path("trainannot/a.png")),
            Pair(Path("train/c.png"), Path("trainannot/c.png")),
        ],
        "val": [Pair(Path("val/b.png"), Path("valannot/b.png"))],
    }


def test_a_test_list_is_read_if_it_is_there(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, "train/a.png trainannot/a.png\n")
    assert list(reader.pairs()) == ["train", "val"]
    (tmp_path / "test.txt").write_text("/SegNet/CamVid/test/c.png /SegNet/CamVid/testannot/c.png\n")
    assert reader.pairs()["test"] == [Pair(Path("test/c.png"), Path("testannot/c.png"))]


def test_a_line_that_is_no_pair_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train.txt, line 2: found 'train/c.png'"):
        reader_of(tmp_path, "train/a.png trainannot/a.png\ntrain/c.png\n").pairs()
