"""prepare, from a tree on disk to index and card."""

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from attnfd import paths
from attnfd.config.schema import Prepare
from attnfd.data.prepared import Prepared, dataset_root
from attnfd.errors import UserError
from stages.prepare import prepare
from tests import tasks
from tests.data.trees import SIZES, camvid_tree, params_of, prepared_tree, save


def test_index_and_card_say_what_the_files_contain(tmp_path: Path) -> None:
    root = camvid_tree(tmp_path / "tree", {"train": ((2, 3),), "val": ((4, 4),)})
    save(root / "trainannot/0.png", np.array([[0, 0, 3], [11, 3, 3]]))
    prepare(tasks.of(params_of("camvid", root="tree"), "tiny"))
    prepared = Prepared.load(Path("data/tiny"), root)

    row = prepared.split("train").iloc[0]
    assert (row["id"], row["image"], row["mask"]) == ("train/0", "train/0.png", "trainannot/0.png")
    assert (row["height"], row["width"]) == (2, 3)
    assert (row["sky"], row["road"], row["void"], row["car"]) == (2, 3, 1, 0)
    for kind in ("image", "mask"):
        data = (root / row[kind]).read_bytes()
        assert row[f"{kind}_bytes"] == len(data)
        assert row[f"{kind}_sha256"] == hashlib.sha256(data).hexdigest()

    card = prepared.card
    assert (card.name, card.reader, card.void) == ("tiny", "camvid", 255)
    assert card.labels == {**{value: value for value in range(11)}, 11: 255}
    train, val = card.splits["train"], card.splits["val"]
    assert (train.images, train.height, train.width, train.void) == (1, (2, 2), (3, 3), 1)
    assert train.pixels["road"] == 3
    assert sum(val.pixels.values()) + val.void == 16


def test_equal_trees_give_equal_bytes_wherever_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"train": SIZES, "val": SIZES[:2]}
    written = []
    for home, root in (("here", "tree"), ("elsewhere", "another/tree")):
        (tmp_path / home).mkdir()
        monkeypatch.chdir(tmp_path / home)
        camvid_tree(Path(root), sizes)
        for _ in range(2):
            prepare(tasks.of(params_of("camvid", root=root), "tiny"))
            written.append({file.name: file.read_bytes() for file in Path("data/tiny").iterdir()})
    assert set(written[0]) == {"index.csv", "card.json", "warnings.json"}
    assert all(files == written[0] for files in written)


def test_content_hash_follows_the_content(tmp_path: Path) -> None:
    sizes = {"train": SIZES, "val": SIZES[:1]}
    before = prepared_tree(tmp_path / "tree", sizes).card.sha256
    save(tmp_path / "tree/trainannot/1.png", np.zeros((9, 7)))
    prepare(tasks.of(params_of("camvid", root="tree"), "tiny"))
    after = Prepared.load(Path("data/tiny"), tmp_path / "tree").card.sha256
    assert before != after


def test_every_fault_is_listed_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    root = camvid_tree(tmp_path / "tree", {"train": ((4, 4),) * 7, "val": ((4, 4),) * 3})
    (root / "train/0.png").write_bytes(b"no picture")
    (root / "train/1.png").unlink()
    whole = (root / "trainannot/2.png").read_bytes()
    (root / "trainannot/2.png").write_bytes(whole[: len(whole) // 2])
    save(root / "trainannot/3.png", np.full((4, 4), 12))
    save(root / "trainannot/4.png", np.zeros((4, 5)))
    save(root / "trainannot/5.png", np.zeros((4, 4, 3)))
    (root / "val/0.png").write_bytes((root / "train/6.png").read_bytes())
    with (root / "val.txt").open("a") as listed:
        listed.write("val/1.png valannot/1.png\n")

    with pytest.raises(UserError) as raised:
        prepare(tasks.of(params_of("camvid", root="tree"), "tiny"))
    first, *faults = str(raised.value).splitlines()
    assert first.startswith("tiny: ")
    assert "(8)" in first
    expected = [
        "train/0.png: no readable image",
        "train/1.png: cannot be read (No such file or directory)",
        "trainannot/2.png: no readable mask",
        "trainannot/3.png: found labels [12]; allowed: 0 to 11",
        "trainannot/4.png: height×width is 4×5, its image 4×4",
        "trainannot/5.png: no readable mask (mask of mode RGB",
        "val/1: listed 2 times (val, val)",
        "val/0.png: same content as train/6.png",
    ]
    assert len(faults) == len(expected)
    for fault, start in zip(faults, expected, strict=True):
        assert fault.strip().startswith(start)
    assert list(Path("data").iterdir()) == []


def test_a_mask_that_exif_left_behind_is_explained(tmp_path: Path) -> None:
    root = camvid_tree(tmp_path / "tree", {"train": ((4, 6),), "val": ((4, 4),)})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(root / "train/0.png").save(root / "train/0.png", exif=exif)
    with pytest.raises(UserError, match=r"4×6, its image 6×4 after its EXIF orientation; turn the mask"):
        prepare(tasks.of(params_of("camvid", root="tree"), "tiny"))
    Image.open(root / "trainannot/0.png").transpose(Image.Transpose.ROTATE_270).save(
        root / "trainannot/0.png"
    )
    prepare(tasks.of(params_of("camvid", root="tree"), "tiny"))


def test_a_long_list_of_faults_is_cut(tmp_path: Path) -> None:
    root = camvid_tree(tmp_path / "tree", {"train": ((2, 2),) * 23, "val": ((2, 2),)})
    for number in range(23):
        (root / f"train/{number}.png").unlink()
    with pytest.raises(UserError) as raised:
        prepare(tasks.of(params_of("camvid", root="tree"), "tiny"))
    lines = str(raised.value).splitlines()
    assert len(lines) == 1 + 20 + 1
    assert lines[-1].strip() == "and 3 more"


def test_an_empty_split_is_a_fault(tmp_path: Path) -> None:
    camvid_tree(tmp_path / "tree", {"train": ((2, 2),), "val": ()})
    with pytest.raises(UserError, match="split val: found no image"):
        prepare(tasks.of(params_of("camvid", root="tree"), "tiny"))


def test_a_failure_keeps_what_was_prepared_before(tmp_path: Path) -> None:
    prepared_tree(tmp_path / "tree", {"train": SIZES, "val": SIZES[:1]})
    before = Path("data/tiny/index.csv").read_bytes()
    (tmp_path / "tree/train/0.png").unlink()
    with pytest.raises(UserError):
        prepare(tasks.of(params_of("camvid", root="tree"), "tiny"))
    assert Path("data/tiny/index.csv").read_bytes() == before


def test_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"params.yaml: recipes.tiny.prepare.folder: unknown key.*root"):
        prepare(tasks.of(params_of("camvid", root="tree", folder="x"), "tiny"))


def test_loading_notices_changed_and_missing_files(tmp_path: Path) -> None:
    prepared = prepared_tree(tmp_path / "tree", {"train": SIZES, "val": SIZES[:1]})
    with (prepared.root / "train/3.png").open("ab") as image:
        image.write(b"more")
    with pytest.raises(
        UserError, match=r"train/3.png: .*changed since prepare; run dvc repro -f prepare@tiny"
    ):
        Prepared.load(paths.prepared("tiny"), prepared.root)
    (prepared.root / "train/3.png").unlink()
    with pytest.raises(UserError, match=r"train/3.png: not found; .*ATTNFD_ROOT_TINY"):
        Prepared.load(paths.prepared("tiny"), prepared.root)


def test_loading_what_is_not_prepared_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"card.json: not found; .*dvc repro prepare@tiny"):
        Prepared.load(paths.prepared("tiny"), tmp_path)


def test_names_that_look_like_numbers_stay_names(tmp_path: Path) -> None:
    prepared = prepared_tree(tmp_path / "tree", {"train": ((2, 2),), "val": ((2, 2),)})
    index = prepared.index.assign(id=["007", "NA"])
    content = index.to_csv(index=False, lineterminator="\n").encode()
    card = prepared.card.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
    Prepared(card, index, prepared.root).write(Path("data/tiny"))
    loaded = Prepared.load(Path("data/tiny"), prepared.root).index
    pd.testing.assert_frame_equal(loaded, index, check_dtype=False)
    assert loaded["id"].tolist() == ["007", "NA"]


def test_root_is_the_environments_then_the_options_then_the_prepared_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, main = Path("data/tiny"), tmp_path / "main"
    main.mkdir()
    monkeypatch.setenv("DVC_ROOT", str(main))
    camvid = params_of("camvid", root="datasets/camvid")
    assert dataset_root(camvid, "tiny", folder) == main / "datasets/camvid"
    (main / ".env").write_text("ATTNFD_CAMVID_ROOT=from_file\n")
    assert dataset_root(camvid, "tiny", folder) == main / "from_file"
    monkeypatch.setenv("ATTNFD_CAMVID_ROOT", "/else/where")
    assert dataset_root(camvid, "tiny", folder) == Path("/else/where")
    monkeypatch.setenv("ATTNFD_ROOT_TINY", "/its/own")
    assert dataset_root(camvid, "tiny", folder) == Path("/its/own")
    assert dataset_root(params_of("shapes"), "tiny", folder) == folder


def recipes(**folders: str) -> Any:
    """Params of several recipes of the reader `folder`."""
    options = {name: Prepare(reader="folder", root=root) for name, root in folders.items()}
    return SimpleNamespace(raw={"recipes": options}, prepare=options.__getitem__)


def test_a_reader_s_root_serves_recipes_of_one_folder_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNFD_FOLDER_ROOT", "/nas/mine")
    for alike in (recipes(a="mine", b="mine"), recipes(a="mine", b="./mine/")):
        assert {dataset_root(alike, name, Path("data") / name) for name in "ab"} == {Path("/nas/mine")}

    apart = recipes(a="mine", b="yours", c="theirs")
    wanted = "ATTNFD_FOLDER_ROOT: found '/nas/mine', but the recipes a, b, c read .*set ATTNFD_ROOT_B for b"
    with pytest.raises(UserError, match=wanted):
        dataset_root(apart, "b", Path("data/b"))
    monkeypatch.setenv("ATTNFD_ROOT_B", "/nas/yours")
    assert dataset_root(apart, "b", Path("data/b")) == Path("/nas/yours")
    with pytest.raises(UserError, match="the recipes a, c read different folders; set ATTNFD_ROOT_A for a"):
        dataset_root(apart, "a", Path("data/a"))
    monkeypatch.setenv("ATTNFD_ROOT_C", "/nas/theirs")  # The reader's own variable is now for a only.
    assert dataset_root(apart, "a", Path("data/a")) == Path("/nas/mine")


def test_camvid_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(__file__).parents[2]
    root = Path(os.environ.get("ATTNFD_CAMVID_ROOT") or here.parent / "shared/data/camvid")
    if not root.is_dir():
        pytest.skip("needs CamVid: set ATTNFD_CAMVID_ROOT")
    params = params_of("camvid", root=str(root))
    prepare(tasks.of(params, "camvid"))
    prepared = Prepared.load(paths.prepared("camvid"), root)
    assert {name: split.images for name, split in prepared.card.splits.items()} == {"train": 367, "val": 101}
    for split in prepared.card.splits.values():
        assert (split.height, split.width) == ((360, 360), (480, 480))
        assert sum(split.pixels.values()) + split.void == split.images * 360 * 480
        assert all(split.pixels.values())
    row = prepared.split("val").iloc[50]
    values = np.array(Image.open(root / row["mask"]))
    assert row["road"] == (values == 3).sum()
    assert row["void"] == (values == 11).sum()
