"""How a trained model sees an image: in tiles, mirrored, in several sizes; and the result."""

import math
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd.config.section import Section, within
from attnfd.data.transforms import normalize
from attnfd.evaluation.inference import classify, evaluating
from attnfd.evaluation.tiles import Tiles, blended
from attnfd.models.taps import Output
from attnfd.runtime.arithmetic import true_float32

SMALLEST, LARGEST = 0.25, 4
Scale = Annotated[float, within(SMALLEST, LARGEST, "a network was not trained on objects of such sizes")]


class Views(Section):
    """Versions of an image that a network sees; the result is the mean of the probabilities of all views."""

    flip: bool = Field(default=False, description="also the mirror image, at every size")
    scales: tuple[Scale, ...] = Field(default=(1.0,), min_length=1, description="factors of the image's size")

    def of(self, network: nn.Module) -> nn.Module:
        """A network that averages over these views; the same network if the only view is the image itself."""
        return network if not self.flip and self.scales == (1.0,) else Averaged(network, self)


WHOLE = Views()


class Averaged(nn.Module):
    r"""A network whose logits are the logarithm of the mean of its probabilities in all views.

    .. math:: z_k = \log \frac{1}{V} \sum_{v=1}^{V} \mathrm{softmax}(z^v)_k

    The logits of a view are resized to the image's own size, and mirrored back, before their softmax.
    """

    def __init__(self, network: nn.Module, views: Views) -> None:
        super().__init__()
        self.network, self.views = network, views

    def forward(self, images: Tensor) -> Output:
        size = list(images.shape[-2:])
        mirrors = (False, True) if self.views.flip else (False,)
        total: Tensor | None = None
        for scale in self.views.scales:
            scaled = _resized(images, [max(1, round(side * scale)) for side in size], antialias=True)
            for mirror in mirrors:
                logits = self.network(scaled.flip(-1) if mirror else scaled).logits.float()
                view = _resized(logits.flip(-1) if mirror else logits, size).log_softmax(1)
                total = view if total is None else torch.logaddexp(total, view)
        assert total is not None
        return Output(total - math.log(len(mirrors) * len(self.views.scales)), {})


def _resized(maps: Tensor, size: list[int], *, antialias: bool = False) -> Tensor:
    if list(maps.shape[-2:]) == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", antialias=antialias, align_corners=False)


def segment(
    network: nn.Module, images: Tensor, tiles: Tiles | None = None, *, probabilities: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.float16] | None]:
    """Classes (B, H, W) of images (B, 3, H, W), uint8, on the network's device; always in true float32.

    Args:
        tiles: how larger images are divided; None for whole images.
        probabilities: also return the probabilities of the classes (B, K, H, W), float16; else None.
    """
    with evaluating(network), torch.inference_mode(), true_float32():
        if not probabilities:
            return classify(network, images, tiles).to("cpu", torch.uint8).numpy(), None
        if tiles is None or tiles.fits(*images.shape[-2:]):
            logits = network(normalize(images)).logits.float()
            return _classes(logits, 1), _probabilities(logits, 1)
        return _in_tiles(network, images, tiles)


def _in_tiles(
    network: nn.Module, images: Tensor, tiles: Tiles
) -> tuple[NDArray[np.uint8], NDArray[np.float16] | None]:
    count, _, *size = images.shape
    classes: NDArray[np.uint8] = np.empty((count, *size), np.uint8)
    shares: NDArray[np.float16] | None = None
    for number, image in enumerate(images):
        for rows, logits in blended(network, image, tiles):
            if shares is None:
                shares = np.empty((count, len(logits), *size), np.float16)
            classes[number, rows], shares[number, :, rows] = _classes(logits, 0), _probabilities(logits, 0)
    return classes, shares


def _classes(logits: Tensor, dim: int) -> NDArray[np.uint8]:
    return logits.argmax(dim).to("cpu", torch.uint8).numpy()


def _probabilities(logits: Tensor, dim: int) -> NDArray[np.float16]:
    return logits.softmax(dim).to("cpu", torch.float16).numpy()
