"""PASCAL VOC 2012 and SBD in their published layouts."""

from pathlib import Path

import numpy as np
import pytest

from attnfd import paths
from attnfd.data.images import decode_mask
from attnfd.data.prepared import Prepared
from attnfd.errors import UserError
from attnfd.readers.voc import Voc
from stages.prepare import prepare
from tests import tasks
from tests.data.trees import params_of
from tests.readers.trees import lined, noise, sbd_mask, sbd_tree, voc_tree, write


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for key in ("DVC_ROOT", "ATTNFD_VOC_ROOT"):
        monkeypatch.delenv(key, raising=False)
    return voc_tree(tmp_path / "voc")


def prepared(root: Path, **options: object) -> Prepared:
    prepare(tasks.of(params_of("voc", root=str(root), **options), "voc"))
    return Prepared.load(paths.prepared("voc"), root)


def test_palette_is_vocs_own() -> None:
    # VOC's development kit: bits 0, 1, 2 of the value are the top bits of red, green, blue; 3 to 5 the next.
    for value, colour in enumerate(Voc.palette):
        for channel, shade in enumerate(colour):
            bits = [(value >> (3 * place + channel)) & 1 for place in range(3)]
            assert shade == sum(bit << (7 - place) for place, bit in enumerate(bits))


def test_white_lines_are_void_and_palette_indices_are_classes(root: Path) -> None:
    found = prepared(root)
    assert {name: split.images for name, split in found.card.splits.items()} == {"train": 2, "val": 1}
    row = found.split("val").iloc[0]
    assert row["image"] == "VOCdevkit/VOC2012/JPEGImages/2007_000033.jpg"
    # A box of 4×5 pixels with a border of 1 pixel: the 2×3 pixels inside are the object.
    assert (row["void"], row["bird"], row["background"]) == (14, 6, 28)


def test_sbd_adds_what_voc_has_in_neither_split(root: Path) -> None:
    found = prepared(sbd_tree(root), sbd=True)
    assert found.split("sbd")["id"].str[-11:].tolist() == ["2008_000001", "2008_000002"]
    assert {name: split.images for name, split in found.card.splits.items()} == {
        "train": 2, "val": 1, "sbd": 2,
    }  # fmt: skip
    extra = found.card.splits["sbd"]
    assert (extra.pixels["person"], extra.pixels["background"], extra.void) == (2 * 6, 2 * 42, 0)


def test_an_image_of_sbd_that_equals_one_of_val_is_refused(root: Path) -> None:
    sbd_tree(root)
    write(root / "VOCdevkit/VOC2012/JPEGImages/2008_000002.jpg", noise("2007_000033"))
    with pytest.raises(UserError, match=r"2007_000033.jpg: same content as .*2008_000002.jpg"):
        prepared(root, sbd=True)


def test_sbd_without_its_folder_names_the_command(root: Path) -> None:
    with pytest.raises(UserError, match=r"benchmark_RELEASE/dataset/train.txt: not found; .*fetch sbd"):
        prepared(root, sbd=True)


def test_matlab_masks_of_sbd_are_read(tmp_path: Path) -> None:
    values = lined(20)
    sbd_mask(tmp_path / "mask.mat", values)
    decoded = decode_mask(tmp_path / "mask.mat")
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, values)


def test_a_broken_matlab_mask_is_a_fault_of_that_file(root: Path) -> None:
    path = sbd_tree(root) / "benchmark_RELEASE/dataset/cls/2008_000001.mat"
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(UserError, match=r"cls/2008_000001.mat: no readable mask \(not a mask of SBD"):
        prepared(root, sbd=True)


def test_masks_saved_in_colour_are_refused(root: Path) -> None:
    path = "VOCdevkit/VOC2012/SegmentationClass/2007_000032.png"
    write(root / path, noise("colours"))
    with pytest.raises(UserError, match=rf"{path}: no readable mask \(mask of mode RGB"):
        prepared(root)
