"""Helpers of the methods' tests: their settings, and networks small enough to train in a test."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd import discovery
from attnfd.config.params import load_params
from attnfd.config.schema import LAYERS
from attnfd.config.section import validate
from attnfd.distillers.base import Distiller
from attnfd.models.cbam import CBAM
from attnfd.models.taps import EARLY_LAYERS, NetInfo, Output, Tap

PARAMS = Path(__file__).parents[2] / "params.yaml"
CLASSES = 3


def build(name: str, student: NetInfo, teacher: NetInfo, **changes: Any) -> Distiller:
    """The method with the settings of `params.yaml` and these changes."""
    kind = discovery.component("distillers", name)
    settings = load_params(PARAMS).method(name, "shapes").model_dump(mode="json") | changes
    return kind(student, teacher, validate(kind.Config, settings, name))


def random(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal values in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TinyNet(nn.Module):
    """Six convolutions with the taps of DeepLabV3+; stages 1-3 have strides 2, 4, 4, the others `stride`.

    With `attention`, it has the `refined` taps and the margins of a frozen teacher.
    """

    def __init__(self, width: int, *, stride: int = 4, attention: bool = False) -> None:
        super().__init__()
        self.layers, self.attention = nn.ModuleDict(), nn.ModuleDict()
        channels, margins = {}, {}
        before = 3
        for layer, step in zip((*EARLY_LAYERS, *LAYERS), (2, 2, 1, stride // 4, 1, 1), strict=True):
            conv = nn.Conv2d(before, width, 3, padding=1, stride=step, bias=False)
            self.layers[layer] = nn.Sequential(conv, nn.BatchNorm2d(width))
            if attention and layer in LAYERS:
                self.attention[layer] = CBAM(width, reduction=2, kernel_size=3, channel=True, spatial=True)
            channels[layer], margins[layer] = width, -torch.linspace(0.2, 0.8, width)
            before, width = width, width + 1
        self.classifier = nn.Conv2d(before, CLASSES, 1)
        self.info = NetInfo(channels=channels, classes=CLASSES, margins=margins if attention else None)

    def forward(self, images: Tensor, taps: Collection[Tap] = (), logits: bool = True) -> Output:
        found, feature = {}, images
        for layer, part in self.layers.items():
            feature = found[Tap(layer, "pre_relu")] = part(feature)
            if layer in self.attention:
                feature = found[Tap(layer, "refined")] = self.attention[layer](feature)
            feature = found[Tap(layer, "post_relu")] = F.relu(feature)
        scores = None
        if logits:
            scores = F.interpolate(
                self.classifier(feature), size=images.shape[-2:], mode="bilinear", align_corners=True
            )
        return Output(scores, {tap: found[tap] for tap in taps})


def tiny_student(stride: int = 4) -> TinyNet:
    return TinyNet(6, stride=stride)


def tiny_teacher() -> TinyNet:
    """A frozen teacher with the BN statistics of `batch`: with initial ones, its logits would hardly vary."""
    net = TinyNet(9, attention=True)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1
    net(batch()[0])
    return net.eval().requires_grad_(False)


def batch(images: int = 3, size: int = 16) -> tuple[Tensor, Tensor]:
    """Normalised images (B, 3, H, W), and labels (B, H, W): blocks of every class, and a column of void."""
    generator = torch.Generator().manual_seed(7)
    blocks = torch.randint(CLASSES, (images, 4, 4), generator=generator)
    target = blocks.repeat_interleave(size // 4, 1).repeat_interleave(size // 4, 2)
    target[:, :, 0] = 255
    return torch.randn(images, 3, size, size, generator=generator), target
