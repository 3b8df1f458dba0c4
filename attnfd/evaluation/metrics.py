"""The confusion matrix, and every score that follows from it."""

from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attnfd.data.labels import VOID


class Scores(TypedDict):
    """Scores of a confusion matrix, all between 0 and 1; None stands for a class that does not occur."""

    miou: float
    mean_accuracy: float
    pixel_accuracy: float
    fw_iou: float
    iou: list[float | None]
    accuracy: list[float | None]


def confusion_matrices(pred: Tensor, target: Tensor, classes: int) -> Tensor:
    r"""Confusion matrix of each image, computed on the device without waiting for it.

    .. math:: M_{n,i,j} = |\{p : \text{target}_n(p) = i \wedge \text{pred}_n(p) = j\}|

    Args:
        pred: predicted classes (N, H, W), integers in [0, K).
        target: ground truth (N, H, W), integers in [0, K), or 255 = void: these pixels count nowhere.
        classes: K.

    Returns:
        int64 (N, K, K); rows are ground truth, columns predictions.

    Example:
        >>> confusion_matrices(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 255]]]), 2)
        tensor([[[1, 1],
                 [0, 0]]])
    """
    # A bin of their own, cut off at the end, takes the void pixels: selecting the others by a mask, like
    # torch.bincount, would make the host wait for the device.
    void_bin = classes * classes
    bins = torch.where(target == VOID, void_bin, target.long() * classes + pred).flatten(1)
    counts = torch.zeros(len(bins), void_bin + 1, dtype=torch.int64, device=bins.device)
    counts.scatter_add_(1, bins, torch.ones_like(counts[:1, :1]).expand_as(bins))
    return counts[:, :void_bin].reshape(-1, classes, classes)


def scores(matrix: NDArray[np.integer]) -> Scores:
    r"""Scores of a confusion matrix (K, K) with rows of ground truth.

    .. math::
        \text{IoU}_i = \frac{M_{ii}}{\sum_j M_{ij} + \sum_j M_{ji} - M_{ii}}, \qquad
        \text{accuracy}_i = \frac{M_{ii}}{\sum_j M_{ij}}

    * `miou`: mean IoU of the classes that occur in the ground truth or in the prediction.
    * `mean_accuracy`: mean accuracy of the classes that occur in the ground truth; the column "Accuracy" of
      the AttnFD paper (Tables 2 and 3).
    * `pixel_accuracy`: part of the pixels that is right.
    * `fw_iou`: mean IoU, weighted by the number of ground truth pixels.

    Never NaN: an absent class is None and takes part in no mean, and an empty matrix scores 0.

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
        miou=_mean(iou, union > 0),
        mean_accuracy=_mean(accuracy, target > 0),
        pixel_accuracy=float(hits.sum() / pixels),
        fw_iou=float((iou * target).sum() / pixels),
        iou=_present(iou, union > 0),
        accuracy=_present(accuracy, target > 0),
    )


def collapsed(matrix: NDArray[np.integer]) -> bool:
    """Whether a network predicts one class everywhere though the ground truth has several."""
    return bool(np.count_nonzero(matrix.sum(0)) == 1 and np.count_nonzero(matrix.sum(1)) > 1)


def _mean(values: NDArray[np.float64], occurs: NDArray[np.bool_]) -> float:
    return float(values[occurs].mean()) if occurs.any() else 0.0


def _present(values: NDArray[np.float64], occurs: NDArray[np.bool_]) -> list[float | None]:
    return [float(value) if there else None for value, there in zip(values, occurs, strict=True)]
