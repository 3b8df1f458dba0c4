"""Loaders: their batches, the order, and that the order depends only on seed and epoch."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attnfd.data import loaders
from attnfd.data.epochs import Draw, EpochBatches
from attnfd.data.loaders import Augmented, Segmentation, eval_loader, train_loader
from attnfd.data.prepared import Prepared
from attnfd.errors import UserError
from attnfd.runtime import processes
from tests.data.trees import SIZES, prepared_tree, training

CPU = torch.device("cpu")


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    monkeypatch.chdir(tmp_path)
    for key in ("ATTNFD_CAMVID_ROOT", "ATTNFD_WORKERS"):
        monkeypatch.delenv(key, raising=False)
    return prepared_tree(tmp_path / "tree", {"train": SIZES, "val": SIZES})


def epoch_of(loader: loaders.TrainLoader, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    loader.set_epoch(epoch)
    return list(loader)


def same(one: list, other: list) -> bool:
    return all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


def test_split_is_read_through_the_label_table(prepared: Prepared) -> None:
    data = Segmentation(prepared, "train")
    assert len(data) == len(SIZES)
    for index, size in enumerate(SIZES):
        image, mask = data[index]
        pixels = np.array(Image.open(prepared.root / f"train/{index}.png"))
        values = np.array(Image.open(prepared.root / f"trainannot/{index}.png"))
        assert (image.dtype, mask.dtype) == (torch.uint8, torch.uint8)
        assert (tuple(image.shape), tuple(mask.shape)) == ((3, *size), size)
        np.testing.assert_array_equal(image.numpy(), pixels.transpose(2, 0, 1))
        np.testing.assert_array_equal(mask.numpy(), np.where(values == 11, 255, values))


def test_a_split_too_large_to_keep_is_read_alike(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Segmentation(prepared, "train")
    monkeypatch.setattr(loaders, "KEEP_BYTES", 0)
    read = Segmentation(prepared, "train")
    assert kept.kept is not None
    assert read.kept is None
    assert same([kept[index] for index in range(5)], [read[index] for index in range(5)])


def test_images_are_the_same_in_a_process_that_gets_them_by_pickle(prepared: Prepared) -> None:
    here = Augmented(Segmentation(prepared, "train"), training(), 3)
    there = pickle.loads(pickle.dumps(here))
    draws = [Draw(epoch, row) for epoch in range(2) for row in range(len(SIZES))]
    assert same([here[draw] for draw in draws], [there[draw] for draw in draws])


def test_batches_do_not_depend_on_the_number_of_workers(prepared: Prepared) -> None:
    alone = train_loader(prepared, training(), 3, device=CPU, workers=0)
    helped = train_loader(prepared, training(), 3, device=CPU, workers=2)
    for epoch in (0, 1):
        assert same(epoch_of(alone, epoch), epoch_of(helped, epoch))


def test_batches_follow_from_seed_and_epoch(prepared: Prepared) -> None:
    loader = train_loader(prepared, training(), 3, device=CPU, workers=0)
    first, second = epoch_of(loader, 0), epoch_of(loader, 1)
    assert not same(first, second)
    assert same(first, epoch_of(loader, 0))
    assert same(second, epoch_of(train_loader(prepared, training(), 3, device=CPU, workers=0), 1))
    assert not same(first, epoch_of(train_loader(prepared, training(), 4, device=CPU, workers=0), 0))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_callers_random_state_is_left_alone(prepared: Prepared, workers: int) -> None:
    loader = train_loader(prepared, training(), 3, device=CPU, workers=workers)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    epoch_of(loader, 0)
    list(eval_loader(prepared, "val", 2, device=CPU, workers=workers))
    assert torch.equal(before, torch.get_rng_state())


def test_training_batches_are_crops(prepared: Prepared) -> None:
    batches = epoch_of(train_loader(prepared, training(), 0, device=CPU), 0)
    assert [len(images) for images, _ in batches] == [2, 2]
    for images, masks in batches:
        assert (images.dtype, masks.dtype) == (torch.uint8, torch.uint8)
        assert (images.shape[1:], masks.shape[1:]) == ((3, 8, 10), (8, 10))


@pytest.mark.parametrize(
    ("images", "batch_size", "sizes"),
    [(6, 2, [2, 2, 2]), (5, 2, [2, 2]), (6, 4, [4, 2]), (3, 8, [3]), (1, 4, [])],
)
def test_only_a_last_batch_of_one_is_left_out(images: int, batch_size: int, sizes: list[int]) -> None:
    batches = EpochBatches([True] * images, batch_size, seed=0)
    assert [len(batch) for batch in batches] == sizes
    assert len(batches) == len(sizes)
    drawn = [draw.row for batch in batches for draw in batch]
    assert len(set(drawn)) == len(drawn) == sum(sizes)


@pytest.mark.parametrize(
    ("labelled", "unlabelled", "batch_size"), [(3, 20, 4), (20, 3, 4), (2, 9, 5), (4, 4, 8)]
)
def test_half_of_a_batch_is_labelled(labelled: int, unlabelled: int, batch_size: int) -> None:
    batches = EpochBatches([True] * labelled + [False] * unlabelled, batch_size, seed=0)
    drawn = list(batches)
    theirs = batch_size // 2
    assert len(drawn) == len(batches) == max(labelled // (batch_size - theirs), unlabelled // theirs)
    for batch in drawn:
        assert len(batch) == batch_size
        assert sum(draw.row >= labelled for draw in batch) == theirs
    everything = [draw for batch in drawn for draw in batch]
    assert len(set(everything)) == len(everything)  # A repeated image has a new augmentation.
    counts = [sum(draw.row == row for draw in everything) for row in range(labelled + unlabelled)]
    for part in (counts[:labelled], counts[labelled:]):
        assert max(part) - min(part) <= 1


def test_a_repeated_image_is_augmented_anew_and_the_first_time_as_ever(prepared: Prepared) -> None:
    data = Augmented(Segmentation(prepared, "train"), training(scale=(0.5, 2.0)), seed=0)
    crops = [data[Draw(0, 1, turn)][0] for turn in range(4)]
    assert torch.equal(crops[0], data[Draw(0, 1)][0])
    assert len({crop.numpy().tobytes() for crop in crops}) > 1


def test_batches_after_a_resume_are_the_ones_that_were_left() -> None:
    batches = EpochBatches([True] * 3 + [False] * 20, 4, seed=0)
    whole = list(batches)
    batches.skipped = 3
    assert list(batches) == whole[3:]


def test_every_image_is_left_out_in_some_epoch() -> None:
    batches = EpochBatches([True] * 5, 2, seed=0)
    left_out = set()
    for epoch in range(60):
        batches.epoch = epoch
        left_out |= set(range(5)) - {draw.row for batch in batches for draw in batch}
    assert left_out == set(range(5))


def test_evaluation_covers_the_split_in_batches_of_one_size(prepared: Prepared) -> None:
    rows = prepared.split("val")
    seen = []
    for images, masks, indices in eval_loader(prepared, "val", 2, device=CPU):
        assert len(images) == len(masks) == len(indices) <= 2
        for image, mask, index in zip(images, masks, indices.tolist(), strict=True):
            pixels = np.array(Image.open(prepared.root / rows["image"][index]))
            np.testing.assert_array_equal(image.numpy(), pixels.transpose(2, 0, 1))
            assert mask.shape == image.shape[1:]
            seen.append(index)
    assert sorted(seen) == list(range(len(SIZES)))


def test_workers_are_the_machines_setting(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train_loader(prepared, training(), 0, device=CPU).num_workers == 0
    monkeypatch.setenv("ATTNFD_WORKERS", "1")
    assert train_loader(prepared, training(), 0, device=CPU).num_workers == 1
    monkeypatch.delenv("ATTNFD_WORKERS")
    monkeypatch.setattr(loaders, "KEEP_BYTES", 0)
    assert train_loader(prepared, training(), 0, device=CPU).num_workers > 0


@pytest.mark.parametrize(("images", "batch_size"), [(1, 4), (3, 1)])
def test_a_training_without_a_batch_of_two_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: int, batch_size: int
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = prepared_tree(tmp_path / "tiny", {"train": SIZES[:images], "val": SIZES[:1]})
    with pytest.raises(UserError, match="at least 2 of each"):
        train_loader(tiny, training(batch_size=batch_size), 0, device=CPU)


def test_an_unknown_split_is_named(prepared: Prepared) -> None:
    with pytest.raises(UserError, match=r"splits of .*: unknown name 'extra'"):
        train_loader(prepared, training(splits=("extra",)), 0, device=CPU)


def test_several_splits_are_read_together(prepared: Prepared) -> None:
    assert len(Segmentation(prepared, "train", "val")) == 2 * len(SIZES)


@pytest.mark.parametrize(("sync_bn", "sizes"), [(True, [2, 2, 1]), (False, [2, 2])])
def test_a_last_batch_without_statistics_in_each_process_is_left_out(
    sync_bn: bool, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 10 images in batches of 4, two processes get 2, 2 and 1 images each."""
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "rank", lambda: 1)
    least = loaders._least(training(batch_size=4, sync_bn=sync_bn), 10, "tiny")
    batches = EpochBatches([True] * 10, 4, seed=0, least=least)
    assert len(batches) == len(sizes)
    assert [len(batch) for batch in batches] == sizes


def test_one_image_a_process_needs_synchronised_bn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "count", lambda: 2)
    assert loaders._least(training(batch_size=2, sync_bn=True), 10, "tiny") == 2
    with pytest.raises(
        UserError,
        match=r"^training.batch_size: found 2 for 2 processes .*sync_bn: false; allowed: 4 or more",
    ):
        loaders._least(training(batch_size=2, sync_bn=False), 10, "tiny")
