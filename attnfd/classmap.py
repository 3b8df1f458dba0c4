"""A segmentation network as it is handed out: pixels in, classes out."""

import torch
from torch import Tensor, nn

from attnfd.evaluation import classify


class ClassMap(nn.Module):
    """RGB images (B, H, W, 3), uint8 → class of every pixel (B, H, W), uint8; K ≤ 255.

    Args:
        network: takes normalised images (B, 3, H, W), returns an `Output` with logits (B, K, H, W).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return classify(self.network, images.permute(0, 3, 1, 2)).to(torch.uint8)
