"""What every network is, whatever it is made of: logits and named feature maps for images."""

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

from attnfd.config.section import Section
from attnfd.models.taps import NetInfo, Tap


class Network(nn.Module):
    """Segments images, and its feature maps can be read on the way.

    `architecture`: what it is built from, as a model's card keeps it. `attention`: a CBAM per layer, or none.
    `margins`: buffers of a frozen network by layer, see `attnfd.models.frozen`; None before.
    """

    architecture: Section
    attention: nn.ModuleDict
    margins: nn.Module | None

    @property
    def info(self) -> NetInfo:
        """Channels per layer and classes; the margins, too, once the network is frozen."""
        raise NotImplementedError

    @property
    def pretrained(self) -> nn.Module:
        """The part that learns at `lr`; all else learns at `lr` times `head_lr_factor`."""
        raise NotImplementedError

    def no_taps(self, missing: Collection[Tap]) -> ValueError:
        """The error that a network has no such taps, which names those that it has."""
        layers = ", ".join(self.info.channels) or "none"
        refined = ", refined" if self.attention else " (refined needs a network with attention=Attention())"
        return ValueError(
            f"taps: no such tap in this network: {', '.join(sorted(map(repr, missing)))}; pass a list of "
            f"Tap(layer, point), layer: {layers}; point: pre_relu, post_relu{refined}"
        )


def check_images(images: Any) -> None:
    """See that images are what a network takes.

    Raises:
        TypeError: they are not.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point() or images.shape[1:-2] != (3,):
        found = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images)
        raise TypeError(f"images: found {found}; pass a tensor of normalised floats (B, 3, H, W)")
