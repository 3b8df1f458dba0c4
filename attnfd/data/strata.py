"""Splits in which every class occurs as often as in the rest."""

import numpy as np
from numpy.typing import NDArray


def stratify(
    present: NDArray[np.bool_], share: float, seed: int, groups: NDArray[np.int64] | None = None
) -> NDArray[np.bool_]:
    """Choose a `share` of the images in which every class occurs as often as in the rest.

    Iterative stratification (Sechidis et al. 2011): the images of the rarest class are assigned first. Each
    goes to the side that needs most images of that class and is not full yet. Without the second condition,
    one side could get all images if every image had a class of its own.

    Args:
        present: which classes (N, K) occur in an image.
        share: share of the images to choose, 0 to 1.
        seed: seed of the order in which the images of a class are assigned.
        groups: group of every image (N,), from 0; the images of a group are assigned together. Unset: one
            by one.

    Returns:
        Whether an image is chosen (N,).
    """
    rng = np.random.default_rng(seed)
    groups = np.arange(len(present)) if groups is None else groups
    # Every image has one extra class, so that images without any other class are assigned too.
    images = np.column_stack([present, np.ones(len(present), dtype=bool)])
    counts = np.zeros((groups.max() + 1, images.shape[1]), dtype=int)
    np.add.at(counts, groups, images)
    lacking = np.outer([1 - share, share], counts.sum(0))
    chosen, dealt = np.zeros(len(counts), dtype=bool), np.zeros(len(counts), dtype=bool)
    while not dealt.all():
        left = counts[~dealt].sum(0)
        rarest = np.where(left > 0, left, len(present) + 1).argmin()
        for row in rng.permutation(np.flatnonzero((counts[:, rarest] > 0) & ~dealt)):
            room = [side for side in (0, 1) if lacking[side, -1] >= 0.5]
            side = max(room, key=lambda side: (lacking[side, rarest], lacking[side, -1]))
            lacking[side] -= counts[row]
            chosen[row], dealt[row] = side, True
    return chosen[groups]
