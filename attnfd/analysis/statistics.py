"""Whether one method is better than another: the paired difference of their mIoU with its interval."""

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attnfd.analysis.reading import need, reading
from attnfd.errors import UserError

Counts = NDArray[np.float64]


class Evaluation(NamedTuple):
    """Confusion matrices (N, K, K) of an evaluation, the ids (N) of its images, and its name in messages."""

    name: str
    ids: NDArray[np.str_]
    matrices: NDArray[np.integer]


class Difference(NamedTuple):
    """Mean mIoU of `b` minus mean mIoU of `a`, and the bounds of its 95 % confidence interval.

    Scores are between 0 and 1. `seeds` is the number of pairs of trainings, and `images` is the number of
    images on which all were evaluated.
    """

    mean: float
    low: float
    high: float
    seeds: int
    images: int

    @property
    def verdict(self) -> Literal["better", "worse", "not significant"]:
        """`b` compared with `a`: the difference is significant if the interval leaves out 0."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "not significant"


def paired(
    a: Sequence[NDArray[np.integer]],
    b: Sequence[NDArray[np.integer]],
    *,
    samples: int = 2000,
    seed: int = 0,
) -> Difference:
    r"""Difference between two methods that were trained from the same seeds and evaluated on the same images.

    .. math::
        \Delta^* = \frac{1}{S} \sum_s \bigl(\text{mIoU}(\textstyle\sum_n c_n B_{s,n})
                 - \text{mIoU}(\sum_n c_n A_{s,n})\bigr)
                 + \frac{\hat\sigma}{\sqrt S}\, t_{S-1}, \qquad c \sim \text{Multinomial}(N, 1/N)

    The bounds are the percentiles 2.5 and 97.5 of Δ*. Images are bootstrapped, with the same draw for every
    method and seed. The score of a draw is the mIoU of its summed matrix, never a mean of the images' scores.
    The seeds enter through Student's t, where σ̂ is the sample standard deviation of the differences of the
    seeds on all images. Resampling the seeds instead would give too narrow an interval, because three seeds
    can be drawn in only ten ways. If training varies more than the images do, such an interval of "95 %"
    covers the truth in 75 % of all cases (docs/compare.md). With one seed, the interval covers the choice of
    images, not the randomness of training.

    Args:
        a: for each seed, confusion matrices per image (N, K, K); rows are ground truth.
        b: those of the other method, on the same images; `b[i]` has the seed of `a[i]`.
        samples: number of draws.
        seed: seed of the draws. Equal arguments give equal numbers.
    """
    shape = a[0].shape
    assert len(a) == len(b), "a matrix per seed and method"
    assert all(matrices.shape == shape for matrices in (*a, *b)), "all of the same images and classes"
    seeds, images = len(a), len(a[0])
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(images, np.full(images, 1 / images), size=samples)
    # The first row is the evaluation itself: every image once.
    weights = np.vstack([np.ones(images), drawn])
    differences = np.stack([_miou(weights, y) - _miou(weights, x) for x, y in zip(a, b, strict=True)])
    observed, replicates = differences[:, 0], differences[:, 1:].mean(0)
    if seeds > 1:
        replicates += rng.standard_t(seeds - 1, samples) * observed.std(ddof=1) / np.sqrt(seeds)
    low, high = np.quantile(replicates, [0.025, 0.975])
    return Difference(float(observed.mean()), float(low), float(high), seeds, images)


def difference(a: Sequence[Path], b: Sequence[Path]) -> Difference:
    """`paired` of the evaluations in these files `confusion.npz`, one per seed.

    Raises:
        UserError: two evaluations have different images or classes.
    """
    return between([read(file, file.as_posix()) for file in a], [read(file, file.as_posix()) for file in b])


def between(a: Sequence[Evaluation], b: Sequence[Evaluation]) -> Difference:
    """`paired` of evaluations that are already read; see `difference`."""
    first, *others = *a, *b
    for other in others:
        if not np.array_equal(other.ids, first.ids) or other.matrices.shape != first.matrices.shape:
            raise UserError(
                f"{other.name}: found {_extent(other)}; allowed: the {_extent(first)} of {first.name}, image "
                "by image; compare evaluations on the same data"
            )
    return paired([one.matrices for one in a], [one.matrices for one in b])


def read(file: Path | IO[bytes], name: str) -> Evaluation:
    """The content of a `confusion.npz`; messages call it `name`.

    Raises:
        UserError: the file is damaged.
    """
    with reading(name), np.load(file) as content:
        need(("ids", "matrices"), content)
        found = Evaluation(name, content["ids"], content["matrices"])
        if found.matrices.shape[:1] != found.ids.shape or found.matrices.ndim != 3:
            raise ValueError(f"matrices {found.matrices.shape} of {found.ids.shape} images")
        return found


def sentence(found: Difference, a: str, b: str) -> str:
    """The difference in words.

    Example:
        >>> sentence(Difference(0.0481, 0.0207, 0.074, seeds=3, images=100), "none", "attnfd")
        'attnfd is better than none by +4.81 mIoU (95 % CI +2.07 … +7.40; 3 seeds, 100 images)'
    """
    by = f"{signed(found.mean)} mIoU"
    claim = f"{b} is {found.verdict} than {a} by {by}"
    if found.verdict == "not significant":
        claim = f"{b} does not differ significantly from {a}: {by}"
    extent = f"{found.seeds} seeds, {found.images} images"
    if found.seeds == 1:
        covers = "covers the choice of images, not the randomness of training"
        extent = f"one seed, {found.images} images: {covers}"
    return f"{claim} (95 % CI {interval(found)}; {extent})"


def interval(found: Difference) -> str:
    """`+2.07 … +7.40` in per cent."""
    return f"{signed(found.low)} … {signed(found.high)}"


def signed(value: float, digits: int = 2) -> str:
    """`0.0481` as `+4.81` in per cent, with a minus sign for a value below zero."""
    return f"{100 * value:+.{digits}f}".replace("-", "−")


def _miou(weights: Counts, matrices: NDArray[np.integer]) -> Counts:
    """mIoU, as in `metrics.scores`, of the matrices' sum under each row of weights (samples, N).

    The sums are whole numbers below 2⁵³, so float64 is exact in any order of addition.
    """
    parts = matrices.diagonal(axis1=1, axis2=2), matrices.sum(2), matrices.sum(1)
    hits, target, pred = (weights @ part.astype(np.float64) for part in parts)
    union = target + pred - hits
    occurs = target > 0
    iou = np.divide(hits, union, out=np.zeros_like(hits), where=occurs)
    return iou.sum(1) / np.maximum(occurs.sum(1), 1)


def _extent(evaluation: Evaluation) -> str:
    images, classes, _ = evaluation.matrices.shape
    return f"{images} images of {classes} classes"
