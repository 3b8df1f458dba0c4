"""A model whose predictions are easy to check, and a real one."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attnfd.deploy.source import Model
from attnfd.models import checkpoint
from attnfd.models.checkpoint import Legend
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.taps import Output

LEGEND = Legend(
    dataset="tiny",
    classes=("red", "green", "blue"),
    palette=((200, 0, 0), (0, 150, 0), (0, 0, 100)),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)


class Colours(nn.Module):
    """The class of a pixel is its strongest channel."""

    def __init__(self) -> None:
        super().__init__()
        self.device_of = nn.Parameter(torch.zeros(1))
        self.batches: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Output:
        self.batches.append(tuple(images.shape))
        return Output(images, {})


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setenv("ATTNFD_DEVICE", "cpu")
    return Model("colours", Colours(), LEGEND, {}, None)  # type: ignore[arg-type]


def network(seed: int = 0, classes: int = 3) -> DeepLabV3Plus:
    """BN has random statistics, so that the classes vary over an image."""
    torch.manual_seed(seed)
    made = DeepLabV3Plus("mobilenetv2", classes=classes)
    with torch.no_grad():
        for _ in range(3):
            made(torch.randn(2, 3, 64, 64))
    return made.eval()


def save(folder: Path, legend: Legend = LEGEND) -> Path:
    made = network(classes=len(legend.classes))
    checkpoint.save(folder, made, {**legend.model_dump(mode="json"), "val_miou": 0.5})
    return folder
