"""Loaders: batches of images (B, 3, H, W) and masks (B, H, W), both uint8, 255 = void.

What a loader yields depends on seed and epoch alone: not on the number of worker processes, nor on the
random state of the caller, which it leaves as it was.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from attnfd.config.schema import Training
from attnfd.data.images import decode_image, read_classes
from attnfd.data.labels import label_table
from attnfd.data.prepared import Prepared
from attnfd.data.transforms import augment
from attnfd.errors import UserError
from attnfd.runtime import machine, processes

KEEP_BYTES = 512 * 2**20
"""A split that is smaller than this when decoded stays in memory."""

SMALL_PIXELS = 128 * 128
"""Images of this size cost less to augment than to send from one process to another."""


class Segmentation(Dataset[tuple[Tensor, Tensor]]):
    """The images and masks of some splits at their original size, in the order of the index."""

    def __init__(self, prepared: Prepared, *splits: str) -> None:
        rows = prepared.split(*splits)
        self.prepared = prepared
        self.files = list(rows[["image", "image_sha256", "mask", "mask_sha256"]].itertuples(index=False))
        self.sizes = list(zip(rows["height"], rows["width"], strict=True))
        self.table = label_table(prepared.card.labels)
        self.kept: list[tuple[np.ndarray, np.ndarray]] | None = None
        pixels = int((rows["height"] * rows["width"]).sum())
        self.small = pixels <= SMALL_PIXELS * len(rows)
        if 4 * pixels <= KEEP_BYTES:
            with ThreadPoolExecutor(_cores()) as pool:
                self.kept = list(pool.map(self._decode, range(len(rows))))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self.kept[index] if self.kept is not None else self._decode(index)
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask)

    def _decode(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image, image_sha256, mask, mask_sha256 = self.files[index]
        return (
            decode_image(self.prepared.read(image, image_sha256), self.prepared.card.depth),
            read_classes(self.prepared.read(mask, mask_sha256), self.table),
        )


class Draw(NamedTuple):
    """An image in an epoch: the key under which its augmentation is drawn."""

    epoch: int
    row: int


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Training crops of a split; the random numbers of a crop follow from seed, epoch and row."""

    def __init__(self, images: Segmentation, training: Training, seed: int) -> None:
        self.images = images
        self.training = training
        self.seed = seed

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor]:
        image, mask = self.images[draw.row]
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed: it would seed the GPU as well, and with it every dropout that follows.
            torch.default_generator.manual_seed(_mix(self.seed, *draw))
            image, mask = augment(image, mask, self.training)
        return image.contiguous(), mask.contiguous()


class EpochBatches(Sampler[list[Draw]]):
    """Batches of a shuffled epoch. A last batch of one image is left out: batch norm needs two.

    Of several processes each gets an equal part of every batch; the last one is cut so that it can.
    """

    def __init__(self, images: int, batch_size: int, seed: int) -> None:
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.skipped = 0

    def __len__(self) -> int:
        full, rest = divmod(self.images, self.batch_size)
        return full + (rest >= max(2, processes.count()))

    def __iter__(self) -> Iterator[list[Draw]]:
        generator = torch.Generator().manual_seed(_mix(self.seed, self.epoch))
        order = torch.randperm(self.images, generator=generator).tolist()
        for number in range(self.skipped, len(self)):
            batch = order[number * self.batch_size :][: self.batch_size]
            part = len(batch) // processes.count()
            start = part * processes.rank()
            yield [Draw(self.epoch, row) for row in batch[start : start + part]]


class TrainLoader(DataLoader[tuple[Tensor, Tensor]]):
    """A loader whose order and augmentation follow from the epoch that is set before it is iterated."""

    batch_sampler: EpochBatches

    def set_epoch(self, epoch: int, skip: int = 0) -> None:
        """Choose the epoch, and how many batches of it have been taken already."""
        self.batch_sampler.epoch = epoch
        self.batch_sampler.skipped = skip


def train_loader(
    prepared: Prepared, training: Training, seed: int, *, device: torch.device, workers: int | None = None
) -> TrainLoader:
    """Augmented batches (images, masks) of `training.splits`.

    `workers`: loader processes; unset: ATTNFD_WORKERS, or else chosen from cores and image size.

    Raises:
        UserError: the dataset lacks such a split, or there is no batch of at least two images.
    """
    images = Segmentation(prepared, *training.splits)
    if len(images) < 2 or training.batch_size < 2:
        raise UserError(
            f"{prepared.card.name}: found {len(images)} training images in batches of {training.batch_size}; "
            "allowed: at least 2 of both, since batch norm needs them"
        )
    if training.batch_size % processes.count():
        raise UserError(
            f"training.batch_size: found {training.batch_size} for {processes.count()} processes; "
            "allowed: a multiple of their number, which torchrun --nproc-per-node sets"
        )
    return TrainLoader(
        Augmented(images, training, seed),
        batch_sampler=EpochBatches(len(images), training.batch_size, seed),
        **_processes(images, device, workers),
    )


class Numbered(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Images and masks with their place in the split."""

    def __init__(self, images: Segmentation) -> None:
        self.images = images

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        return *self.images[index], torch.tensor(index)


def eval_loader(
    prepared: Prepared,
    split: str,
    batch_size: int,
    *,
    device: torch.device,
    workers: int | None = None,
    share: tuple[int, int] = (0, 1),
) -> DataLoader[tuple[Tensor, Tensor, Tensor]]:
    """Batches (images, masks, indices) at original size, each of images of one size.

    `indices` (B,) are rows of `prepared.split(split)`. `share` (i, n) is every n-th batch from the i-th on.
    """
    first, step = share
    images = Segmentation(prepared, split)
    return DataLoader(
        Numbered(images),
        batch_sampler=_batches_of_one_size(images.sizes, batch_size)[first::step],
        **_processes(images, device, workers),
    )


def _batches_of_one_size(sizes: list[tuple[int, int]], batch_size: int) -> list[list[int]]:
    of_size: dict[tuple[int, int], list[int]] = {}
    for index, size in enumerate(sizes):
        of_size.setdefault(size, []).append(index)
    return [
        same[start : start + batch_size]
        for same in of_size.values()
        for start in range(0, len(same), batch_size)
    ]


def _processes(images: Segmentation, device: torch.device, workers: int | None) -> dict:
    if workers is None:
        workers = machine.settings().workers
    if workers is None:
        workers = 0 if images.kept is not None and images.small else min(8, max(1, _cores() // 2))
    return {
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": device.type == "cuda",
        # Without its own, a loader takes a number from the global generator whenever it starts its processes.
        "generator": torch.Generator(),
    }


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _cores() -> int:
    """Cores for this process: a sweep says by OMP_NUM_THREADS how many a cell has."""
    affinity = getattr(os, "sched_getaffinity", None)
    there = len(affinity(0)) if affinity else os.cpu_count() or 1
    given = os.environ.get("OMP_NUM_THREADS", "")
    return min(there, int(given)) if given.isdecimal() and int(given) else there
