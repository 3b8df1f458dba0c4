"""What every network is, whatever it is made of: logits and named feature maps for images."""

from collections.abc import Collection
from itertools import chain
from typing import Annotated, Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from attnfd.config.section import Count, Positive, Section
from attnfd.models.taps import NetInfo, Tap

Classes = Annotated[tuple[Count, ...], Field(min_length=1)]
ClassMap = Annotated[tuple[Classes, ...], Field(min_length=1)]
"""For each class of an answer, the classes of the network that are one in it."""


class Answering(Section):
    """What the card of any network says of its classes.

    `classes`: K of its own. `class_map`: what its logits are made of, if these are of other classes.
    """

    classes: Positive
    class_map: ClassMap | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        for number in chain(*(self.class_map or ())):
            if number >= self.classes:
                raise ValueError(f"class_map: found {number}; allowed: less than classes, {self.classes}")
        return self

    @property
    def answers(self) -> int:
        """K of the logits."""
        return self.classes if self.class_map is None else len(self.class_map)


def merge_classes(logits: Tensor, class_map: ClassMap | None) -> Tensor:
    r"""Logits of classes that are each made of one or several.

    .. math:: z'_c = \log \sum_{k \in \text{map}(c)} \operatorname{softmax}(z)_k

    Args:
        logits: (B, K, H, W).
        class_map: C of them; None: the logits stay what they are.

    Shape: (B, C, H, W).

    Example:
        >>> logits = torch.tensor([0.5, 0.2, 0.3]).log().view(1, 3, 1, 1)
        >>> merge_classes(logits, ((2,), (0, 1))).exp().flatten()
        tensor([0.3000, 0.7000])
    """
    if class_map is None:
        return logits
    shares = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(1)
    # One by one: an index of several would be copied to the GPU, and the host would wait.
    merged = [torch.stack([shares[:, one] for one in classes]).logsumexp(0) for classes in class_map]
    return torch.stack(merged, 1)


class Network(nn.Module):
    """Segments images, and its feature maps can be read on the way.

    `architecture`: what it is built from, as a model's card keeps it. `attention`: a CBAM per layer, or none.
    `margins`: buffers of a frozen network by layer, see `attnfd.models.frozen`; None before.
    """

    architecture: Answering
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
