"""Augmentation of a training image with its mask, and normalisation (paper sec. 4.2)."""

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from attnfd.config import Training
from attnfd.datasets.base import VOID

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
PAD_COLOUR = tuple(round(255 * channel) for channel in MEAN)


class RandomRescale(v2.Transform):
    """Resize by a factor drawn uniformly from `scale`; images bilinearly, masks to the nearest value."""

    def __init__(self, scale: tuple[float, float]) -> None:
        super().__init__()
        self.scale = scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        factor = float(torch.empty(()).uniform_(*self.scale))
        return {"size": [max(1, round(side * factor)) for side in flat_inputs[0].shape[-2:]]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, tv_tensors.Mask):
            # "Exact" samples at pixel centres, as bilinear does; v2's kernel for masks is half a pixel off.
            exact = v2.InterpolationMode.NEAREST_EXACT
            resized = F.resize_image(inpt.as_subclass(Tensor)[None], params["size"], interpolation=exact)[0]
            return tv_tensors.wrap(resized, like=inpt)
        return F.resize(inpt, params["size"], antialias=True)


def augmentation(training: Training) -> v2.Transform:
    """Random scale, horizontal flip, and a random crop padded with the mean colour and void."""
    fill = {tv_tensors.Image: PAD_COLOUR, tv_tensors.Mask: VOID}
    return v2.Compose(
        [
            RandomRescale(training.scale),
            v2.RandomHorizontalFlip(training.flip),
            v2.RandomCrop(training.crop, pad_if_needed=True, fill=fill),
        ]
    )


def normalize(images: Tensor) -> Tensor:
    """Images (B, 3, H, W), uint8, as float32 with ImageNet's mean and deviation, channels last."""
    scaled = images.to(torch.float32, memory_format=torch.channels_last).div_(255)
    return F.normalize(scaled, list(MEAN), list(STD), inplace=True)
