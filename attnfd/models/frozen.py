"""The frozen teacher: a network that is never trained again, and so runs faster with the same results."""

import copy
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.ops import StochasticDepth

from attnfd.config.schema import LAYERS
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.network import Network
from attnfd.models.tapped import Tapped, freeze_tapped
from attnfd.models.taps import EARLY_LAYERS, Tap

NetworkT = TypeVar("NetworkT", bound=Network)


def freeze(model: NetworkT) -> NetworkT:
    """Copy a network without gradients and dropout, and with every BN folded into its convolution.

    The copy computes the same in both modes. It keeps the margins of its BNs (`info.margins`), because
    folding removes the BNs.

    Raises:
        TypeError: `model` is neither a DeepLabV3Plus nor a network of `attnfd.networks`.
        ValueError: `model` is already frozen.
    """
    if not isinstance(model, DeepLabV3Plus | Tapped):
        raise TypeError(
            f"freeze: found {type(model).__name__}; pass a DeepLabV3Plus or a network of attnfd.networks; "
            "freeze any other network with network.eval().requires_grad_(False)"
        )
    if model.margins is not None:
        raise ValueError("freeze: the network is already frozen; use it as it is")
    if isinstance(model, Tapped):
        return cast(NetworkT, freeze_tapped(model))
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


def bns(model: Network) -> list[str]:
    """Names of the BNs of a network; in a frozen network, those that could not be folded."""
    kinds = nn.modules.batchnorm._BatchNorm
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


def _pairs(model: DeepLabV3Plus) -> Iterator[tuple[str, str]]:
    """Names of the convolutions whose output only a BN reads, each with the name of that BN."""
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
    """The `margin` (C,) of each layer that ends with a BN; after a residual sum, of the last block's BN."""
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
    r"""Mean of the negative values of a channel after a BN with shift β and scale γ.

    .. math::
        E[x \mid x < 0] = \beta - |\gamma|\,\frac{\varphi(\beta / |\gamma|)}{\Phi(-\beta / |\gamma|)},
        \qquad x \sim N(\beta, \gamma^2)

    Heo et al. 2019, *A Comprehensive Overhaul of Feature Distillation*, sec. 3.2. For γ = 0 the result is
    the limit, min(β, 0).

    Args:
        mean: β (C,).
        std: γ (C,), positive or negative.

    Shape: (C,), ≤ 0, in the type of `mean`; computed in double precision.
    """
    beta, gamma = mean.double(), std.double().abs()
    # φ(z) / Φ(-z) = √(2/π) / erfcx(z / √2). For large z this form neither overflows nor divides 0 by 0.
    ratio = math.sqrt(2 / math.pi) / torch.special.erfcx(beta / gamma / math.sqrt(2))
    expected = torch.where(gamma > 0, beta - gamma * ratio, beta)
    return expected.clamp(max=0).to(mean.dtype)


@torch.inference_mode()
def compare(live: Network, frozen: Network, images: Tensor) -> dict[str, float]:
    """Largest relative difference between a network in eval mode and its frozen copy, per output.

    It is `max|a - b| / max|a|`, where a is the live output. It is infinite if an output is not finite.

    Args:
        images: (B, 3, H, W), normalised.

    Returns:
        The difference by name: `logits`, and `<layer>.<point>` of every tap.
    """
    assert not live.training, "a BN in training mode differs from the folded BN"
    taps = [Tap(layer) for layer in live.info.channels]
    taps += [Tap(layer, "post_relu") for layer in live.info.channels]
    taps += [Tap(layer, "refined") for layer in live.attention]
    a, b = live(images, taps), frozen(images, taps)
    pairs = {"logits": (a.logits, b.logits)}
    pairs |= {".".join(tap): (a.taps[tap], b.taps[tap]) for tap in taps}
    return {name: _relative(x, y) for name, (x, y) in pairs.items()}


def _relative(a: Tensor, b: Tensor) -> float:
    difference = ((a - b).abs().max() / a.abs().max().clamp_min(1e-30)).item()
    return difference if math.isfinite(difference) else math.inf  # max() could drop a NaN
