"""A network's confusion matrices over a split, and the folder of results made from them."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from attnfd.data.transforms import normalize
from attnfd.metrics import Scores, collapsed, confusion_matrices, scores

METRICS = "metrics.json"
PER_CLASS = "per_class.csv"
CONFUSION = "confusion.npz"
PREDICTIONS = "predictions.npz"
CONFUSION_PICTURE = "confusion.png"
OVERLAYS_PICTURE = "overlays.png"


class Example(NamedTuple):
    """An evaluated image: RGB (H, W, 3), ground truth and predicted classes (H, W), all uint8."""

    id: str
    image: NDArray[np.uint8]
    target: NDArray[np.uint8]
    pred: NDArray[np.uint8]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; the mode from before comes back at the end."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def classify(model: nn.Module, images: Tensor) -> Tensor:
    """Predicted classes (B, H, W) of uint8 images (B, 3, H, W)."""
    return model(normalize(images)).logits.argmax(1)


def confusion(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    classes: int,
    *,
    device: torch.device | str,
    resize: int | None = None,
) -> NDArray[np.int64]:
    """Confusion matrix of every image of a split, in the split's order; see `confusion_matrices`.

    The model runs in eval mode and comes back in the mode it was in. Over a whole split, score the sum of
    the matrices, never the mean of per-image scores.

    Args:
        batches: images uint8 (B, 3, H, W), masks uint8 (B, H, W) and indices (B,), in any order.
        resize: short side in pixels to which images (bilinear, antialiased) and masks (nearest) are resized,
            aspect ratio kept; scores are then taken at that size, as the released code does with 513.
            None evaluates at the original size.

    Returns:
        (N, K, K), rows of ground truth.
    """
    matrices, order = [], []
    with evaluating(model):
        for images, masks, indices in batches:
            images = images.to(device, non_blocking=True)
            masks = masks.to(device, non_blocking=True)
            if resize is not None:
                images = transforms.resize(images, [resize], InterpolationMode.BILINEAR, antialias=True)
                masks = transforms.resize(masks, [resize], InterpolationMode.NEAREST_EXACT)
            matrices.append(confusion_matrices(classify(model, images), masks, classes))
            order.append(indices)
    return torch.cat(matrices)[torch.cat(order).argsort().to(device)].cpu().numpy()


def evenly(count: int, total: int) -> list[int]:
    """`count` positions spread evenly over `total`, or all of them if there are fewer.

    Example:
        >>> evenly(3, 12)
        [2, 6, 10]
    """
    count = min(count, total)
    return [(2 * step + 1) * total // (2 * count) for step in range(count)]


def examples(
    model: nn.Module,
    dataset: Dataset[tuple[Tensor, Tensor, int]],
    positions: Sequence[int],
    ids: Sequence[str],
    *,
    device: torch.device | str,
) -> list[Example]:
    """Images of a split with ground truth and prediction, at the original size, for pictures."""
    found = []
    with evaluating(model):
        for position in positions:
            image, mask, _ = dataset[position]
            pred = classify(model, image[None].to(device))[0].to("cpu", torch.uint8)
            found.append(
                Example(ids[position], image.permute(1, 2, 0).numpy(), mask.numpy(), pred.numpy())
            )
    return found


def write_results(
    folder: Path,
    matrices: NDArray[np.int64],
    shown: Sequence[Example],
    *,
    ids: Sequence[str],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    parameters: int,
    resized: tuple[int, NDArray[np.int64]] | None = None,
) -> dict[str, Any]:
    """Write numbers and pictures of an evaluation; equal input gives equal bytes.

    Args:
        folder: takes `metrics.json`, `per_class.csv`, `confusion.npz` (`ids` and uint32 `matrices`, one per
            image), `confusion.png`, and for the examples `predictions.npz` (class map by id) and
            `overlays.png`.
        matrices: of `confusion`, (N, K, K).
        shown: of `examples`.
        ids: of the N images.
        palette: an RGB colour per class.
        parameters: size of the network.
        resized: a short side, and the matrices of `confusion` at that size.

    Returns:
        The content of `metrics.json`.
    """
    from attnfd.report import pictures

    matrix = matrices.sum(0)
    metrics = {
        **_means(scores(matrix)),
        "collapsed": collapsed(matrix),
        "images": len(matrices),
        "parameters": parameters,
        "iou": dict(zip(classes, scores(matrix)["iou"], strict=True)),
    }
    if resized is not None:
        short_side, resized_matrices = resized
        metrics["resized"] = {"short_side": short_side, **_means(scores(resized_matrices.sum(0)))}

    folder.mkdir(parents=True, exist_ok=True)
    (folder / METRICS).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    per_class(matrix, classes).to_csv(folder / PER_CLASS, index=False, lineterminator="\n")
    np.savez_compressed(folder / CONFUSION, ids=np.array(ids), matrices=matrices.astype(np.uint32))
    pictures.confusion(matrix, classes).save(folder / CONFUSION_PICTURE)
    return metrics
