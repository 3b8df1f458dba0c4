"""The base class of every network: it returns logits and named feature maps of images."""

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
"""For each class of the output, the network's classes that are merged into it."""


class Answering(Section):
    """The part of every network's card that describes its classes.

    `classes`: the number K of the network's own classes. `class_map`: how they are merged into other classes;
    None: they are not merged.
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
        """The number of classes in the logits."""
        return self.classes if self.class_map is None else len(self.class_map)


def merge_classes(logits: Tensor, class_map: ClassMap | None) -> Tensor:
    r"""Merge classes: the probability of a new class is the sum of the probabilities of its classes.

    .. math:: z'_c = \log \sum_{k \in \text{map}(c)} \operatorname{softmax}(z)_k

    Args:
        logits: (B, K, H, W).
        class_map: for each of C new classes, the old classes; None: the logits do not change.

    Shape: (B, C, H, W).

    Example:
        >>> logits = torch.tensor([0.5, 0.2, 0.3]).log().view(1, 3, 1, 1)
        >>> merge_classes(logits, ((2,), (0, 1))).exp().flatten()
        tensor([0.3000, 0.7000])
    """
    if class_map is None:
        return logits
    shares = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(1)
    # One class at a time: a list of indices would be copied to the GPU, and the host would wait.
    merged = [torch.stack([shares[:, one] for one in classes]).logsumexp(0) for classes in class_map]
    return torch.stack(merged, 1)


class Network(nn.Module):
    """A segmentation network that also returns feature maps (taps).

    `architecture`: the arguments that it was built with, as a model's card contains them. `attention`: a CBAM
    per layer, or empty. `margins`: buffers of a frozen network by layer, see `attnfd.models.frozen`; None if
    the network is not frozen.
    """

    architecture: Answering
    attention: nn.ModuleDict
    margins: nn.Module | None

    @property
    def info(self) -> NetInfo:
        """Channels per layer and number of classes; the margins, too, if the network is frozen."""
        raise NotImplementedError

    @property
    def pretrained(self) -> nn.Module:
        """The part that learns at `lr`; the other parts learn at `lr` times `head_lr_factor`."""
        raise NotImplementedError

    def no_taps(self, missing: Collection[Tap]) -> ValueError:
        """The error for taps that this network does not have; it names the ones that it has."""
        layers = ", ".join(self.info.channels) or "none"
        refined = ", refined" if self.attention else " (refined needs a network with attention=Attention())"
        return ValueError(
            f"taps: no such tap in this network: {', '.join(sorted(map(repr, missing)))}; pass a list of "
            f"Tap(layer, point), layer: {layers}; point: pre_relu, post_relu{refined}"
        )


def check_images(images: Any) -> None:
    """Check that images are a float tensor (B, 3, H, W).

    Raises:
        TypeError: they are not.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point() or images.shape[1:-2] != (3,):
        found = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images)
        raise TypeError(f"images: found {found}; pass a tensor of normalised floats (B, 3, H, W)")
