"""Names of the feature maps that distillation reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

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
    """What a network returns: logits (B, K, H, W), or None if not asked for, and the taps asked for."""

    logits: Tensor | None
    taps: dict[Tap, Tensor]


@dataclass(frozen=True, kw_only=True)
class NetInfo:
    """What a distiller must know of a network before it sees a batch.

    `channels`: per layer of `LAYERS` and `EARLY_LAYERS`. `margins`: per layer, E[x | x < 0] of the channel's
    BN (C,), frozen teacher only (Heo et al. 2019, eq. 5).
    """

    channels: Mapping[str, int]
    classes: int
    margins: Mapping[str, Tensor] | None = None
