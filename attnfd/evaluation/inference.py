"""Applies a network to images: the classes of the pixels, and the confusion matrices of a split."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from attnfd.data.labels import VOID
from attnfd.data.transforms import normalize
from attnfd.evaluation.tiles import Tiles, classify_tiled


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; at the end every module is back in its previous mode."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def classify(model: nn.Module, images: Tensor, tiles: Tiles | None = None) -> Tensor:
    """Most likely classes (B, H, W) of images (B, 3, H, W), values up to 255; larger images in `tiles`."""
    if tiles is not None and not tiles.fits(*images.shape[-2:]):
        return torch.stack([classify_tiled(model, image, tiles) for image in images])
    return model(normalize(images)).logits.argmax(1)


class ClassMap(nn.Module):
    """RGB images (B, H, W, 3), uint8 → class of every pixel (B, H, W), uint8; K ≤ 255.

    Args:
        network: takes normalised images (B, 3, H, W), returns an `Output` with logits (B, K, H, W).
        probabilities: return the probabilities of the classes (B, K, H, W), float32, instead.
    """

    def __init__(self, network: nn.Module, *, probabilities: bool = False) -> None:
        super().__init__()
        self.network, self.probabilities = network, probabilities

    def forward(self, images: Tensor) -> Tensor:
        # TensorRT converts bytes only from and to floats: it refuses a graph that begins with a transpose of
        # bytes, and a graph that converts integers to bytes.
        pixels = images.float().permute(0, 3, 1, 2)
        if self.probabilities:
            return self.network(normalize(pixels)).logits.float().softmax(1)
        return classify(self.network, pixels).float().to(torch.uint8)


def confusion(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    classes: int,
    *,
    device: torch.device | str,
    resize: int | None = None,
    tiles: Tiles | None = None,
) -> NDArray[np.int64]:
    """Confusion matrix of every image of a split, by position; see `confusion_matrices`.

    Compute scores from the sum of the matrices, never as the mean of per-image scores.

    Args:
        batches: images uint8 (B, 3, H, W), masks uint8 (B, H, W) and positions (B,), in any order.
        classes: K.
        resize: short side in pixels to which images (bilinear, antialiased) and masks (nearest) are resized,
            with the same aspect ratio; the resized mask is the ground truth then, as in the released code's
            evaluation at 513. None evaluates at the original size.
        tiles: how larger images are divided; None for whole images.

    Returns:
        (N, K, K), rows of ground truth.
    """
    # With several processes, one may have no batch.
    matrices = [torch.zeros(0, classes, classes, dtype=torch.long, device=device)]
    positions = [torch.zeros(0, dtype=torch.long)]
    with evaluating(model):
        for images, masks, indices in batches:
            images, masks = (part.to(device, non_blocking=True) for part in (images, masks))
            if resize is not None:
                images = transforms.resize_image(images, [resize], InterpolationMode.BILINEAR, antialias=True)
                masks = transforms.resize_image(masks[:, None], [resize], InterpolationMode.NEAREST_EXACT)
                masks = masks[:, 0]
            matrices.append(confusion_matrices(classify(model, images, tiles), masks, classes))
            positions.append(indices)
    return torch.cat(matrices).cpu()[torch.cat(positions).argsort()].numpy()


def confusion_matrices(pred: Tensor, target: Tensor, classes: int) -> Tensor:
    r"""Confusion matrix of each image, computed on the device without making the host wait.

    .. math:: M_{n,i,j} = |\{p : \text{target}_n(p) = i \wedge \text{pred}_n(p) = j\}|

    Args:
        pred: predicted classes (N, H, W), integers in [0, K).
        target: ground truth (N, H, W), integers in [0, K), or 255 = void: these pixels are ignored.
        classes: K.

    Returns:
        int64 (N, K, K); rows are ground truth, columns predictions.

    Example:
        >>> confusion_matrices(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 255]]]), 2)
        tensor([[[1, 1],
                 [0, 0]]])
    """
    # Void pixels go into an extra bin, which is cut off at the end. To select the others by a mask, or to use
    # torch.bincount, would make the host wait for the device.
    void_bin = classes * classes
    bins = torch.where(target == VOID, void_bin, target.long() * classes + pred).flatten(1)
    counts = torch.zeros(len(bins), void_bin + 1, dtype=torch.int64, device=bins.device)
    with _in_any_order():
        counts.scatter_add_(1, bins, torch.ones_like(counts[:1, :1]).expand_as(bins))
    return counts[:, :void_bin].reshape(-1, classes, classes)


@contextmanager
def _in_any_order() -> Iterator[None]:
    """Switch off torch's warning about sums whose order varies: sums of integers are exact."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
