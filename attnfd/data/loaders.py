"""Loaders: batches of images (B, 3, H, W) and masks (B, H, W), both uint8, 255 = void.

The batches of a loader depend on seed and epoch alone. They do not depend on the number of worker processes
or on the random state of the caller, which a loader does not change.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from attnfd.config.schema import Distill, Training
from attnfd.data.epochs import Draw, EpochBatches, mix
from attnfd.data.images import decode_image, read_classes
from attnfd.data.labels import UNLABELLED, label_table
from attnfd.data.prepared import Prepared
from attnfd.data.transforms import augment
from attnfd.errors import UserError
from attnfd.runtime import machine, processes

KEEP_BYTES = 512 * 2**20
"""A split that is smaller than this when decoded stays in memory."""

SMALL_PIXELS = 128 * 128
"""Images of this size or smaller are faster to augment than to send from one process to another."""


class Segmentation(Dataset[tuple[Tensor, Tensor]]):
    """The images and masks of some splits at their original size, in the order of the index.

    Args:
        unlabelled: more splits; their masks are 254 everywhere.
    """

    def __init__(self, prepared: Prepared, *splits: str, unlabelled: Sequence[str] = ()) -> None:
        rows = prepared.split(*splits, *unlabelled)
        self.prepared = prepared
        columns = rows[["image", "image_sha256", "mask", "mask_sha256"]]
        # Plain tuples: macOS and Windows send the dataset to loader processes by pickle.
        self.files = list(columns.itertuples(index=False, name=None))
        self.labelled = (~rows["split"].isin(unlabelled)).tolist()
        bare = rows[np.array(self.labelled) & (rows["mask"] == "")]
        if len(bare):
            name = bare["split"].iloc[0]
            raise UserError(
                f"{prepared.card.name}: images of the split {name} have no masks; allowed: "
                f"distill.unlabelled: [{name}], so that students learn on them from the teacher alone"
            )
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
        pixels = decode_image(self.prepared.read(image, image_sha256), self.prepared.card.depth)
        if not self.labelled[index]:
            return pixels, np.full(pixels.shape[:2], UNLABELLED, np.uint8)
        return pixels, read_classes(self.prepared.read(mask, mask_sha256), self.table)


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Training crops of a split; the random numbers of a crop depend on seed and draw alone."""

    def __init__(self, images: Segmentation, training: Training, seed: int) -> None:
        self.images = images
        self.training = training
        self.seed = seed

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor]:
        image, mask = self.images[draw.row]
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also seed the GPU, and so change every dropout that follows.
            torch.default_generator.manual_seed(
                mix(self.seed, draw.epoch, draw.row + draw.turn * len(self.images))
            )
            image, mask = augment(image, mask, self.training)
        return image.contiguous(), mask.contiguous()


class TrainLoader(DataLoader[tuple[Tensor, Tensor]]):
    """A loader whose order and augmentation depend on the epoch; set the epoch before you iterate."""

    batch_sampler: EpochBatches

    def set_epoch(self, epoch: int, skip: int = 0) -> None:
        """Set the epoch, and how many of its batches to skip."""
        self.batch_sampler.epoch = epoch
        self.batch_sampler.skipped = skip


def train_loader(
    prepared: Prepared, training: Training, seed: int, *, device: torch.device, workers: int | None = None
) -> TrainLoader:
    """Augmented batches (images, masks) of `training.splits`, and of `unlabelled` if there are students.

    `workers`: loader processes; unset: ATTNFD_WORKERS, or else a number that depends on cores and image size.

    Raises:
        UserError: the dataset lacks such a split, or batches would have too few images for batch norm.
    """
    unlabelled = training.unlabelled if isinstance(training, Distill) else ()
    images = Segmentation(prepared, *training.splits, unlabelled=unlabelled)
    least = _least(training, len(images), prepared.card.name)
    return TrainLoader(
        Augmented(images, training, seed),
        batch_sampler=EpochBatches(images.labelled, training.batch_size, seed, least),
        **_processes(images, device, workers),
    )


def _least(training: Training, images: int, dataset: str) -> int:
    """The fewest images of a batch that give every process enough images for batch norm.

    Raises:
        UserError: full batches have fewer images, or cannot be divided equally among the processes.
    """
    if images < 2 or training.batch_size < 2:
        raise UserError(
            f"{dataset}: found {images} training images in batches of {training.batch_size}; "
            "allowed: at least 2 of each, since batch norm needs them"
        )
    count = processes.count()
    if training.batch_size % count:
        raise UserError(
            f"training.batch_size: found {training.batch_size} for {count} processes; "
            "allowed: a multiple of the number of processes, which torchrun --nproc-per-node sets"
        )
    # Without synchronised BN, a process has only its own part of a batch.
    least = max(2, count) if training.sync_bn else 2 * count
    if training.batch_size < least:
        raise UserError(
            f"training.batch_size: found {training.batch_size} for {count} processes with training.sync_bn: "
            f"false; allowed: {least} or more, since batch norm needs two images in each process; or set "
            "sync_bn: true"
        )
    return least


class Numbered(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Images and masks with their position in the split."""

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
    """Batches (images, masks, indices) at original size; the images of a batch have the same size.

    `indices` (B,) are rows of `prepared.split(split)`. `share` (i, n): every n-th batch from the i-th on.
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
        # Without this, a loader takes a number from the global generator whenever it starts its processes.
        "generator": torch.Generator(),
    }


def _cores() -> int:
    """Cores for this process; a sweep sets OMP_NUM_THREADS to the number that a cell may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    there = len(affinity(0)) if affinity else os.cpu_count() or 1
    given = os.environ.get("OMP_NUM_THREADS", "")
    return min(there, int(given)) if given.isdecimal() and int(given) else there
