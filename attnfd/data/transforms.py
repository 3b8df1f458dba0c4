"""Augmentation of a training image with its mask, and normalisation (paper sec. 4.2)."""

import math
from functools import cache

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from attnfd.config.schema import Training
from attnfd.data.labels import VOID

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
SHARP = 0.1
"""Smallest standard deviation of a blur; it does not change the image."""
PAD_COLOUR = [round(255 * channel) for channel in MEAN]


def augment(image: Tensor, mask: Tensor, training: Training) -> tuple[Tensor, Tensor]:
    """Apply a random scale, flip and crop (padded with the mean colour and void), random colours and blur.

    Images (3, H, W) are resized bilinearly, masks (H, W) to the nearest value; both are uint8. Random numbers
    come from torch's global generator.
    """
    factor = float(torch.empty(()).uniform_(*training.scale))
    if training.scale_from == "short_side":
        factor *= min(training.crop) / min(mask.shape)
    size = [max(1, round(side * factor)) for side in mask.shape]
    image = F.resize_image(image, size, antialias=True)
    # NEAREST_EXACT samples at pixel centres, as bilinear does; v2's function for masks is half a pixel off.
    mask = F.resize_image(mask[None], size, interpolation=InterpolationMode.NEAREST_EXACT)
    if torch.rand(1) < training.flip:
        image, mask = F.horizontal_flip_image(image), F.horizontal_flip_image(mask)
    rows, columns = (max(0, wanted - there) for wanted, there in zip(training.crop, size, strict=True))
    if rows or columns:
        padding = [columns, rows, columns, rows]
        image, mask = F.pad_image(image, padding, PAD_COLOUR), F.pad_image(mask, padding, [VOID])
    height, width = training.crop
    top, left = _start(mask.shape[1] - height), _start(mask.shape[2] - width)
    crop = (slice(top, top + height), slice(left, left + width))
    return disturb(image[:, *crop], training), mask[0, *crop]


def disturb(image: Tensor, training: Training) -> Tensor:
    """Random colours and blur of an image (3, H, W), uint8; a setting of 0 draws no random number."""
    if training.jitter:
        factors = torch.empty(3).uniform_(1 - training.jitter, 1 + training.jitter).tolist()
        changes = (F.adjust_brightness_image, F.adjust_contrast_image, F.adjust_saturation_image)
        for change, factor in zip(changes, factors, strict=True):
            image = change(image, factor)
    if training.blur:
        sigma = max(SHARP, float(torch.empty(()).uniform_(0, training.blur)))
        radius = min(math.ceil(3 * sigma), min(image.shape[1:]) - 1)
        image = F.gaussian_blur_image(image, [2 * radius + 1] * 2, [sigma] * 2)
    return image


def _start(room: int) -> int:
    return int(torch.randint(room + 1, ())) if room else 0


def normalize(images: Tensor) -> Tensor:
    """Images (B, 3, H, W), values up to 255, as float32 with ImageNet's mean and deviation, channels last."""
    mean, deviation = _statistics(images.device)
    scaled = images.to(torch.float32, memory_format=torch.channels_last, copy=True).div_(255)
    return scaled.sub_(mean).div_(deviation)


@cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation on a device, cached: a copy for each batch would make the host wait."""
    mean, deviation = (torch.tensor(values, device=device)[:, None, None] for values in (MEAN, STD))
    return mean, deviation


_statistics(torch.device("cpu"))  # Fill the cache now: an export that traces `normalize` needs it.
