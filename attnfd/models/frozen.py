"""The frozen teacher: a network that only answers, as fast as it can without another result."""

import copy
import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.ops import StochasticDepth

from attnfd.config.schema import LAYERS
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.taps import EARLY_LAYERS, Tap


def freeze(model: DeepLabV3Plus) -> DeepLabV3Plus:
    """A copy of a network without gradients, without dropout, and with every BN folded into its convolution.

    Nothing in it depends on the mode any more. It keeps the margins of its BNs (`info.margins`), which
    folding would lose.

    Raises:
        TypeError: it is another network.
        ValueError: it is frozen already.
    """
    if not isinstance(model, DeepLabV3Plus):
        raise TypeError(
            f"freeze: found {type(model).__name__}; pass a DeepLabV3Plus; any other network is frozen by "
            "network.eval().requires_grad_(False)"
        )
    if model.margins is not None:
        raise ValueError("freeze: the network is frozen already; use it as it is")
    frozen = copy.deepcopy(model).eval()
    frozen.margins = _margins(frozen)
    for conv, bn in list(_pairs(frozen)):
        fused = fuse_conv_bn_eval(_conv(frozen, conv), _bn(frozen, bn))
        frozen.set_submodule(conv, fused)
        frozen.set_submodule(bn, nn.Identity())
    for name, module in list(frozen.named_modules()):
        if isinstance(module, nn.Dropout | StochasticDepth):
            frozen.set_submodule(name, nn.Identity())
    return frozen.requires_grad_(False)


def _pairs(model: DeepLabV3Plus) -> Iterator[tuple[str, str]]:
    """Names of all convolutions whose output goes to a BN and nowhere else, and of that BN."""
    for node in model.backbone.graph.nodes:
        if node.op == "call_module" and isinstance(model.backbone.get_submodule(node.target), nn.BatchNorm2d):
            (conv,) = node.all_input_nodes
            read_once = conv.op == "call_module" and len(conv.users) == 1
            if read_once and isinstance(model.backbone.get_submodule(conv.target), nn.Conv2d):
                yield f"backbone.{conv.target}", f"backbone.{node.target}"
    for parent, module in model.named_modules():
        if isinstance(module, nn.Sequential):
            for (name, child), (following, successor) in pairwise(module.named_children()):
                if isinstance(child, nn.Conv2d) and isinstance(successor, nn.BatchNorm2d):
                    yield f"{parent}.{name}", f"{parent}.{following}"


def _conv(model: nn.Module, name: str) -> nn.Conv2d:
    module = model.get_submodule(name)
    assert isinstance(module, nn.Conv2d)
    return module


def _bn(model: nn.Module, name: str) -> nn.BatchNorm2d:
    module = model.get_submodule(name)
    assert isinstance(module, nn.BatchNorm2d)
    return module


def _margins(model: DeepLabV3Plus) -> nn.Module:
    """A buffer (C,) per layer that a BN gives: its `margin`; after a residual sum, the last block's BN."""
    bns = [f"backbone.{stage.bn}" if stage.bn else None for stage in model.stages]
    buffers = nn.Module()
    for layer, name in zip(
        (*EARLY_LAYERS, *LAYERS), (*bns, "aspp.project.bn", "decoder.refine.bn"), strict=True
    ):
        if name is None:
            continue
        bn = _bn(model, name)
        buffers.register_buffer(layer, margin(bn.bias.detach(), bn.weight.detach()))
    return buffers


def margin(mean: Tensor, std: Tensor) -> Tensor:
    r"""Mean of the negative part of a channel that a BN made normal with shift β and scale γ.

    .. math::
        E[x \mid x < 0] = \beta - |\gamma|\,\frac{\varphi(\beta / |\gamma|)}{\Phi(-\beta / |\gamma|)},
        \qquad x \sim N(\beta, \gamma^2)

    Heo et al. 2019, *A Comprehensive Overhaul of Feature Distillation*, sec. 3.2. For γ = 0 it is
    min(β, 0), its limit.

    Args:
        mean: β (C,).
        std: γ (C,), of either sign.

    Shape: (C,), ≤ 0, in the type of `mean`; computed in double precision.
    """
    beta, gamma = mean.double(), std.double().abs()
    # φ(z) / Φ(-z) = √(2/π) / erfcx(z / √2), which neither overflows nor divides 0 by 0 for large z.
    ratio = math.sqrt(2 / math.pi) / torch.special.erfcx(beta / gamma / math.sqrt(2))
    expected = torch.where(gamma > 0, beta - gamma * ratio, beta)
    return expected.clamp(max=0).to(mean.dtype)


@torch.inference_mode()
def compare(live: DeepLabV3Plus, frozen: DeepLabV3Plus, images: Tensor) -> dict[str, float]:
    """Largest difference between a network in eval mode and its frozen copy, per output.

    Relative to the largest absolute value of the live output: `max|a - b| / max|a|`. Infinite if
    either output is not finite.

    Args:
        images: (B, 3, H, W), normalised.

    Returns:
        The difference by name: `logits`, and `<layer>.<point>` of every tap.
    """
    assert not live.training, "BN in training mode differs from its folded self"
    taps = [Tap(layer) for layer in (*EARLY_LAYERS, *LAYERS)]
    taps += [Tap(layer, "post_relu") for layer in (*EARLY_LAYERS, *LAYERS)]
    taps += [Tap(layer, "refined") for layer in live.attention]
    a, b = live(images, taps), frozen(images, taps)
    pairs = {"logits": (a.logits, b.logits)}
    pairs |= {".".join(tap): (a.taps[tap], b.taps[tap]) for tap in taps}
    return {name: _relative(x, y) for name, (x, y) in pairs.items()}


def _relative(a: Tensor, b: Tensor) -> float:
    difference = ((a - b).abs().max() / a.abs().max().clamp_min(1e-30)).item()
    return difference if math.isfinite(difference) else math.inf  # a NaN would get lost in a maximum
