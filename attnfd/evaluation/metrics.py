"""All scores that are computed from a confusion matrix.

To add a score, compute it in `scores` and give it a title in `SCORES`: then it is in `metrics.json`, MLflow,
the report's `comparison.csv`, and `attnfd compare`.
"""

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

SCORES = {
    "miou": "mIoU",
    "mean_accuracy": "mean class accuracy",
    "pixel_accuracy": "pixel accuracy",
    "fw_iou": "frequency-weighted IoU",
    "miou_predicted": "mIoU with predicted classes",
}
"""The scores of a whole split, and their titles; the first one is the headline."""


class Scores(TypedDict):
    """Scores of a confusion matrix, all between 0 and 1; None for a class that does not occur."""

    miou: float
    mean_accuracy: float
    pixel_accuracy: float
    fw_iou: float
    miou_predicted: float
    iou: list[float | None]
    accuracy: list[float | None]


def scores(matrix: NDArray[np.integer]) -> Scores:
    r"""Scores of a confusion matrix (K, K) with rows of ground truth.

    .. math::
        \text{IoU}_i = \frac{M_{ii}}{\sum_j M_{ij} + \sum_j M_{ji} - M_{ii}}, \qquad
        \text{accuracy}_i = \frac{M_{ii}}{\sum_j M_{ij}}

    * `miou`: mean IoU of the classes that occur in the ground truth; they are the same for every network.
    * `mean_accuracy`: mean accuracy of the classes that occur in the ground truth; the column "Accuracy" of
      the AttnFD paper (Tables 2 and 3).
    * `pixel_accuracy`: share of the pixels whose class is correct.
    * `fw_iou`: mean IoU, weighted by the number of ground truth pixels.
    * `miou_predicted`: mean IoU of the classes that occur in the ground truth or in the prediction. A single
      wrong pixel of another class adds a 0 to this mean, but not to the mean of another network.

    No score is NaN: an absent class is None and is not in any mean, and an empty matrix scores 0.

    Example:
        >>> scores(np.array([[3, 1], [0, 4]]))["iou"]
        [0.75, 0.8]
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    hits, target, pred = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    union = target + pred - hits
    iou = np.divide(hits, union, out=np.zeros_like(hits), where=union > 0)
    accuracy = np.divide(hits, target, out=np.zeros_like(hits), where=target > 0)
    pixels = max(target.sum(), 1.0)
    return Scores(
        miou=_mean(iou, target > 0),
        mean_accuracy=_mean(accuracy, target > 0),
        pixel_accuracy=float(hits.sum() / pixels),
        fw_iou=float((iou * target).sum() / pixels),
        miou_predicted=_mean(iou, union > 0),
        iou=_present(iou, union > 0),
        accuracy=_present(accuracy, target > 0),
    )


def averages(found: Scores) -> dict[str, float]:
    """The scores that are listed in `SCORES`."""
    return {name: found[name] for name in SCORES}  # type: ignore[literal-required]


def collapsed(matrix: NDArray[np.integer]) -> bool:
    """Whether a network predicts one class everywhere though the ground truth has several."""
    return bool(np.count_nonzero(matrix.sum(0)) == 1 and np.count_nonzero(matrix.sum(1)) > 1)


def _mean(values: NDArray[np.float64], occurs: NDArray[np.bool_]) -> float:
    return float(values[occurs].mean()) if occurs.any() else 0.0


def _present(values: NDArray[np.float64], occurs: NDArray[np.bool_]) -> list[float | None]:
    return [float(value) if there else None for value, there in zip(values, occurs, strict=True)]
