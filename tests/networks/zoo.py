"""Other libraries' networks, for tests: the code that a user would write."""

from types import SimpleNamespace

import torch
import torchvision
from torch import Tensor, nn


def torchvision_deeplab(classes: int) -> nn.Module:
    """Its logits are the `out` of a dict."""
    made: nn.Module = torchvision.models.segmentation.deeplabv3_resnet50(
        weights=None, weights_backbone=None, num_classes=classes
    )
    return made


def hugging_face_segformer(classes: int) -> nn.Module:
    """Its logits are an attribute, at a quarter of the image's size."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        num_labels=classes,
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 2, 3, 4],
        decoder_hidden_size=32,
    )
    made: nn.Module = SegformerForSemanticSegmentation(config)
    return made


class Tiny(nn.Module):
    """Two convolutions, with possible faults around them."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4))
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()
        self.head = nn.Conv2d(4, classes, 1)
        self.unused = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        feature = self.relu(self.body(images))
        return self.head(feature) + self.flat(self.pool(feature)).mean()


class Overwriting(Tiny):
    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.relu_(self.body(images)))


def tiny(classes: int) -> nn.Module:
    return Tiny(classes)


def overwriting(classes: int) -> nn.Module:
    return Overwriting(classes)


def too_many(classes: int) -> nn.Module:
    return Tiny(classes + 1)


def raises(classes: int) -> nn.Module:
    raise RuntimeError("no\nluck")


def returns_text(classes: int) -> str:
    return "net"


def needs_another_size(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(7, classes))


def gives_features(classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, classes, 1), nn.Flatten())


number = 3


class Body(nn.Module):
    """Its map is in an object, like the maps of transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)

    def forward(self, images: Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=torch.relu(self.bn(self.conv(images))))


class Odd(nn.Module):
    """One BN that follows only a convolution, and two that do not."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = Body()
        self.late = nn.BatchNorm2d(8)
        self.neck = nn.Conv2d(8, 8, 1)
        self.last = nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.last(self.neck(self.late(self.body(images).last_hidden_state))))


def odd(classes: int) -> nn.Module:
    return Odd(classes)
