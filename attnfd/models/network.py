"""What every network is, whatever it is made of: logits and named feature maps for images."""

from torch import nn

from attnfd.config.section import Section
from attnfd.models.taps import NetInfo


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
