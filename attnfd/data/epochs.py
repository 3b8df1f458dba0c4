"""Which images are in each batch of an epoch."""

from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Sampler

from attnfd.data.batches import batches_of, halves
from attnfd.runtime import processes


class Draw(NamedTuple):
    """An image in an epoch; with the seed, this determines its augmentation.

    `turn`: how many times the epoch had this image before.
    """

    epoch: int
    row: int
    turn: int = 0


class EpochBatches(Sampler[list[Draw]]):
    """Shuffled batches of an epoch, see `batches_of`. The smaller part is repeated, in a new order each time.

    Each of several processes gets an equal part of every batch. The last batch is cut if it must be.

    Args:
        labelled: for each row of the dataset, whether it has labels.
        least: images of a batch, at least 2: batch norm needs two.
    """

    def __init__(self, labelled: Sequence[bool], batch_size: int, seed: int, least: int = 2) -> None:
        self.labelled = [row for row, has in enumerate(labelled) if has]
        self.unlabelled = [row for row, has in enumerate(labelled) if not has]
        self.batch_size = batch_size
        self.seed = seed
        self.least = least
        self.epoch = 0
        self.skipped = 0

    def __len__(self) -> int:
        return batches_of(len(self.labelled), len(self.unlabelled), self.batch_size, self.least)

    def __iter__(self) -> Iterator[list[Draw]]:
        generator = torch.Generator().manual_seed(mix(self.seed, self.epoch))
        sizes = halves(self.batch_size) if self.unlabelled else (self.batch_size, 0)
        parts = [
            self._shuffled(rows, size * len(self), generator)
            for rows, size in zip((self.labelled, self.unlabelled), sizes, strict=True)
        ]
        for number in range(self.skipped, len(self)):
            chosen = (
                part[number * size : (number + 1) * size] for part, size in zip(parts, sizes, strict=True)
            )
            batch = [draw for draw in chain(*zip_longest(*chosen)) if draw is not None]
            share = len(batch) // processes.count()
            start = share * processes.rank()
            yield batch[start : start + share]

    def _shuffled(self, rows: list[int], least: int, generator: torch.Generator) -> list[Draw]:
        """The rows in a random order, and again in another one until there are enough."""
        turns = -(-least // len(rows)) if rows and self.unlabelled else 1
        return [
            Draw(self.epoch, rows[place], turn)
            for turn in range(turns)
            for place in torch.randperm(len(rows), generator=generator).tolist()
        ]


def mix(*numbers: int) -> int:
    """A seed that follows from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
