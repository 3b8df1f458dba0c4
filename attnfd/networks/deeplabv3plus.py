"""DeepLabV3+ on a backbone of torchvision or timm, the network of the paper."""

import torch

from attnfd.config.network import Attention, NetworkConfig
from attnfd.models import backbones, from_timm
from attnfd.models.deeplab import Architecture as DeepLabArchitecture
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.networks.base import Kind


class DeepLab(Kind):
    """`{backbone: resnet18}`"""

    Architecture = DeepLabArchitecture

    def make(
        self, config: NetworkConfig, classes: int, attention: Attention | None, weights: str
    ) -> DeepLabV3Plus:
        assert config.backbone is not None
        return DeepLabV3Plus(
            config.backbone,
            classes,
            dropout=config.dropout,
            attention=attention,
            weights=weights,
            output_stride=config.output_stride,
        )

    def skeleton(self, architecture: DeepLabArchitecture) -> DeepLabV3Plus:
        # The meta device avoids a useless initialisation. But buffers that no file contains would be empty.
        with torch.device("meta"):
            model = DeepLabV3Plus(**dict(architecture))
        if any(module._non_persistent_buffers_set for module in model.modules()):
            return DeepLabV3Plus(**dict(architecture))
        return model

    def packages(self, architecture: DeepLabArchitecture) -> tuple[str, ...]:
        return ("timm",) if from_timm.has(architecture.backbone) else ()

    def check(self, config: NetworkConfig, classes: int, weights: str) -> None:
        assert config.backbone is not None
        backbones.check_weights(config.backbone, weights, config.output_stride)
