"""Names of the feature maps that distillation reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from torch import Tensor

EARLY_LAYERS = ("stage1", "stage2", "stage3")
"""Layers of the backbone before `LAYERS`."""


class Tap(NamedTuple):
    """A place in a network.

    `layer`: `backbone`, `encoder`, `decoder` (paper sec. 3.1), or an earlier backbone stage `stage1…3`.
    `point`: the feature before its ReLU, after it, or refined by the network's own CBAM (A'').
    """

    layer: str
    point: Literal["pre_relu", "post_relu", "refined"] = "pre_relu"


class Output(NamedTuple):
    """What a network returns: logits (B, K, H, W), or None if not requested, and the requested taps."""

    logits: Tensor | None
    taps: dict[Tap, Tensor]

    # Code that uses an output like a tensor gets a message that names the tensors.
    if not TYPE_CHECKING:  # type: ignore[misc]

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(f"Output has no {name!r}: {_PAIR}")

        def __getitem__(self, key: Any) -> Any:
            if isinstance(key, int | slice):
                return tuple.__getitem__(self, key)
            raise TypeError(f"Output has no {key!r}: {_PAIR}")

        @classmethod
        def __torch_function__(cls, function: Any, *_: Any) -> Any:
            raise TypeError(f"{function.__name__}: found an Output: {_PAIR}")


_PAIR = "it is the pair (logits, taps); use output.logits or output.taps[tap]"


@dataclass(frozen=True, kw_only=True)
class NetInfo:
    """The description of a network that a distiller needs before the first batch.

    `channels`: C of each layer of `LAYERS` and `EARLY_LAYERS`. `classes`: K. `margins`: for each layer,
    E[x | x < 0] of each channel's BN (C,); only a frozen teacher has them (Heo et al. 2019, eq. 5).
    """

    channels: Mapping[str, int]
    classes: int
    margins: Mapping[str, Tensor] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.channels, Mapping) or not all(map(_count, self.channels.values())):
            raise TypeError(
                f"NetInfo.channels: found {self.channels!r}; pass the channels of each layer, such as "
                "{'backbone': 512, 'encoder': 256}"
            )
        if not _count(self.classes):
            raise TypeError(f"NetInfo.classes: found {self.classes!r}; pass the number of classes")


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
