"""The dataset of a trial: only training images, some of them for the score."""

from pathlib import Path

import pytest

from attnfd.data.prepared import Prepared
from attnfd.errors import UserError
from tests.data import trees

SIZES = {"train": ((12, 16),) * 12, "val": ((12, 16),) * 3, "test": ((9, 7),) * 2}


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    monkeypatch.chdir(tmp_path)
    return trees.prepared_tree(tmp_path / "tree", SIZES)


def test_no_image_that_is_reported_or_that_chooses_an_epoch_is_in_it(prepared: Prepared) -> None:
    trial = prepared.held_out(["train"], 0.25, seed=0)
    train, val = (set(trial.split(name)["id"]) for name in ("train", "val"))
    assert (len(train), len(val)) == (9, 3)
    assert train | val == set(prepared.split("train")["id"])
    assert trial.split("test").empty
    assert len(prepared.split("val")) == 3  # The dataset itself does not change.


def test_unlabelled_images_are_in_it_but_for_those_that_validate(prepared: Prepared) -> None:
    plain = prepared.held_out(["train"], 0.25, seed=0)
    bare = prepared.index["split"] == "test"  # treated as if they had no masks
    twins = [plain.split(name)["image_sha256"].iloc[0] for name in ("val", "train")]
    prepared.index.loc[bare, "image_sha256"] = twins
    trial = prepared.held_out(["train"], 0.25, seed=0, unlabelled=["test"])
    assert list(trial.split("test")["image_sha256"]) == twins[1:]
    assert trial.split("train", "val").equals(plain.split("train", "val"))


def test_the_seed_alone_decides(prepared: Prepared) -> None:
    chosen = [set(prepared.held_out(["train"], 0.25, seed).split("val")["id"]) for seed in (0, 0, 1, 2)]
    assert chosen[0] == chosen[1]
    assert len({frozenset(ids) for ids in chosen}) > 1


def test_images_of_one_content_stay_together(prepared: Prepared) -> None:
    rows = prepared.index["split"] == "train"
    prepared.index.loc[rows, "image_sha256"] = ["a", "b", "c"] * 4
    trial = prepared.held_out(["train"], 0.34, seed=0)
    train, val = (set(trial.split(name)["image_sha256"]) for name in ("train", "val"))
    assert train
    assert val
    assert not train & val


def test_a_share_that_leaves_nothing_is_refused(prepared: Prepared) -> None:
    with pytest.raises(UserError, match=r"tune.share: found 0.01, which leaves 12 of the 12 training images"):
        prepared.held_out(["train"], 0.01, seed=0)


def test_results_are_of_the_test_split_where_there_is_one(prepared: Prepared, tmp_path: Path) -> None:
    assert prepared.reported == "test"
    without = trees.prepared_tree(tmp_path / "other", {key: SIZES[key] for key in ("train", "val")})
    assert without.reported == "val"
