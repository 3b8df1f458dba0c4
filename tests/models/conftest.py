from collections.abc import Callable

import pytest
import torch
from torch import nn

from attnfd.config.network import Attention
from attnfd.models.deeplab import DeepLabV3Plus


@pytest.fixture
def attention() -> Attention:
    return Attention(reduction=16, kernel_size=7, channel=True, spatial=True)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def trained(images: torch.Tensor) -> Callable[..., DeepLabV3Plus]:
    """A network in eval mode after a simulated training: BN has random scales, shifts and statistics."""

    def make(name: str, classes: int = 4, attention: Attention | None = None) -> DeepLabV3Plus:
        torch.manual_seed(0)
        net = DeepLabV3Plus(name, classes, attention=attention).train()
        with torch.no_grad():
            for module in net.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(0, 0.3)
            for _ in range(3):
                net(images)
        return net.eval()

    return make
