"""Backbones of timm (PyTorch Image Models) for DeepLabV3+, by the name `timm:<name>`."""

import logging
import re
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from attnfd.data.transforms import MEAN, STD
from attnfd.discovery import one_of
from attnfd.errors import UserError
from attnfd.models import weight_file
from attnfd.models.stages import Stage, Stages, activate_in_place

PREFIX = "timm:"
INSTALL = "timm: not installed; run `pip install 'attnfd[zoo]'`"
LAYERS = ("stage1", "stage2", "stage3", "backbone")

logger = logging.getLogger(__name__)


def has(name: object) -> bool:
    """Whether a backbone of this name is one of timm's."""
    return isinstance(name, str) and name.startswith(PREFIX)


def _timm() -> Any:
    try:
        import timm
    except ImportError:
        raise UserError(INSTALL) from None
    return timm


def check_name(name: str, key: str) -> None:
    """Check that timm has a network of this name; the name may end in `.` and the name of its weights.

    Raises:
        UserError: it has none, or timm is not installed; the message starts with `key`.
    """
    timm = _timm()
    given = name.removeprefix(PREFIX)
    plain, _, weights = given.partition(".")
    one_of(plain, tuple(timm.list_models()), f"{key}: {PREFIX}")
    if weights:
        one_of(given, tuple(timm.list_pretrained(f"{plain}.*")), f"{key}: {PREFIX}")


def build(name: str, output_stride: int) -> fx.GraphModule:
    """A backbone with random weights, see `attnfd.models.backbones.build`.

    If timm's weights need another normalisation of images than this project's, the backbone's first step
    converts the images.

    Raises:
        UserError: there is no such network, or timm cannot run it at this output stride.
    """
    check_name(name, "backbone")
    try:
        net = _timm().create_model(
            name.removeprefix(PREFIX), pretrained=False, features_only=True, output_stride=output_stride
        )
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise _unfit(name, output_stride, str(error)) from None
    channels, strides = net.feature_info.channels()[-4:], net.feature_info.reduction()[-4:]
    wanted = [4, 8, output_stride, output_stride]
    if strides != wanted:
        raise _unfit(name, output_stride, f"its maps have the strides {strides} in place of {wanted}")
    backbone = _trace(net, name, output_stride)
    _part_activations(backbone)
    backbone.meta["stages"] = _name_outputs(backbone, channels)
    _normalize_as(backbone, net.pretrained_cfg)
    backbone.graph.eliminate_dead_code()
    backbone.recompile()
    backbone.delete_all_unused_submodules()
    activate_in_place(backbone)
    return backbone


def _unfit(name: str, output_stride: int, reason: str) -> UserError:
    reason = " ".join(reason.split()) or "it has no such option"
    return UserError(
        f"backbone: {name}: timm cannot run it at output stride {output_stride} ({reason}); allowed: "
        "networks of convolutions, such as timm:mobilenetv4_conv_small, timm:resnet50d or timm:convnext_atto"
    )


class _Tracer(NodePathTracer):
    """Treats a layer as one node if it computes something else in training mode than in eval mode."""

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        from timm.layers import DropPath

        apart = (nn.modules.batchnorm._BatchNorm, DropPath)
        return isinstance(module, apart) or super().is_leaf_module(module, path)


def _trace(net: nn.Module, name: str, output_stride: int) -> fx.GraphModule:
    from timm.layers import get_notrace_functions, get_notrace_modules

    graphs = []
    for training in (False, True):
        tracer = _Tracer(
            leaf_modules=tuple(get_notrace_modules()), autowrap_functions=tuple(get_notrace_functions())
        )
        try:
            graphs.append(tracer.trace(net.train(training)))
        except (fx.proxy.TraceError, RuntimeError, TypeError, ValueError) as error:
            raise _unfit(name, output_stride, str(error)) from None
    outputs = graphs[0].output_node().args[0]
    if str(graphs[0]) != str(graphs[1]) or not (isinstance(outputs, list) and len(outputs) >= len(LAYERS)):
        raise _unfit(name, output_stride, "its sequence of layers is not fixed")
    return fx.GraphModule(net, graphs[1], class_name=re.sub(r"\W", "_", name))


def _part_activations(backbone: fx.GraphModule) -> None:
    """Replace every BN with a built-in activation by a BN with the same weights and a separate activation."""
    from timm.layers import BatchNormAct2d

    for node in [node for node in backbone.graph.nodes if node.op == "call_module"]:
        module = backbone.get_submodule(node.target)
        if not isinstance(module, BatchNormAct2d):
            continue
        after = node
        for part in ("drop", "act"):
            child = module.get_submodule(part)
            if not isinstance(child, nn.Identity):
                target = f"{node.target}_{part}"
                backbone.add_submodule(target, child)
                with backbone.graph.inserting_after(after):
                    following = backbone.graph.call_module(target, (after,))
                after.replace_all_uses_with(
                    following, delete_user_cb=lambda user, own=following: user is not own
                )
                after = following
        bn = nn.BatchNorm2d(module.num_features, module.eps, module.momentum, module.affine)
        bn.track_running_stats = module.track_running_stats
        for kind in ("_parameters", "_buffers"):
            getattr(bn, kind).update(getattr(module, kind))
        backbone.set_submodule(node.target, bn)


def _name_outputs(backbone: fx.GraphModule, channels: list[int]) -> Stages:
    """Make a backbone return the outputs of its stages by name."""
    output = backbone.graph.output_node()
    (features,) = cast(tuple[list[fx.Node]], output.args)
    named: dict[str, fx.Node] = {}
    stages = []
    for layer, node, width in zip(LAYERS, features[-4:], channels, strict=True):
        pre, post = _before(backbone, node), _behind_identities(backbone, node)
        stage = Stage(
            pre_relu=f"{layer}.pre_relu",
            post_relu=f"{layer}.{'pre' if pre is post else 'post'}_relu",
            bn=_last_bn(backbone, pre),
            channels=width,
        )
        named |= {stage.pre_relu: pre, stage.post_relu: post}
        stages.append(stage)
    if stages[-1].post_relu != stages[-1].pre_relu:
        del named[stages[-1].post_relu]  # DeepLabV3+ has this ReLU after its attention.
    output.args = (named,)
    first, second, third, fourth = stages
    return first, second, third, fourth


def _module(backbone: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return backbone.get_submodule(str(node.target)) if node.op == "call_module" else None


def _behind_identities(backbone: fx.GraphModule, node: fx.Node) -> fx.Node:
    while isinstance(_module(backbone, node), nn.Identity):
        node = node.all_input_nodes[0]
    return node


def _before(backbone: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The input of the ReLU that computes this feature; without such a ReLU, the feature itself."""
    node = _behind_identities(backbone, node)
    relu = type(_module(backbone, node)) is nn.ReLU
    return _behind_identities(backbone, node.all_input_nodes[0]) if relu else node


def _last_bn(backbone: fx.GraphModule, node: fx.Node) -> str | None:
    """The BN that computes this feature; for a sum, the BN of its first summand that has one."""
    from timm.layers import DropPath

    while isinstance(_module(backbone, node), nn.Identity | DropPath):
        node = node.all_input_nodes[0]
    if isinstance(_module(backbone, node), nn.BatchNorm2d):
        return str(node.target)
    added = node.op == "call_function" and getattr(node.target, "__name__", "") in ("add", "iadd")
    found = [_last_bn(backbone, part) for part in node.all_input_nodes] if added else []
    return next((bn for bn in found if bn is not None), None)


class Renormalize(nn.Module):
    """Images (B, 3, H, W), normalised by ImageNet's mean and deviation → normalised by others."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        ours, theirs = torch.tensor([MEAN, STD]), torch.tensor([mean, std])
        self.register_buffer("scale", (ours[1] / theirs[1]).view(-1, 1, 1))
        self.register_buffer("shift", ((ours[0] - theirs[0]) / theirs[1]).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return images * self.scale + self.shift


def _normalize_as(backbone: fx.GraphModule, card: Mapping[str, Any]) -> None:
    """Let a backbone normalise images by the mean and deviation of its pretrained weights."""
    mean, std = tuple(card["mean"]), tuple(card["std"])
    if (mean, std) == (MEAN, STD):
        return
    backbone.add_submodule("renormalize", Renormalize(mean, std))
    (images,) = backbone.graph.find_nodes(op="placeholder")
    with backbone.graph.inserting_after(images):
        renormalized = backbone.graph.call_module("renormalize", (images,))
    images.replace_all_uses_with(renormalized, delete_user_cb=lambda user: user is not renormalized)


def missing(name: str) -> float | None:
    """About how many megabytes `download` must fetch; None: the weights are already on this disk.

    Raises:
        UserError: timm has no such network, or no weights for it.
    """
    check_name(name, "backbone")
    with torch.device("meta"):
        whole = _timm().create_model(name.removeprefix(PREFIX), pretrained=False)
    from huggingface_hub import try_to_load_from_cache

    hub = whole.pretrained_cfg.get("hf_hub_id")
    if not hub:
        raise UserError(
            f"weights: timm has no pretrained weights of {name}; "
            "give a file, or set `weights: none` to start from random weights"
        )
    files = ("model.safetensors", "pytorch_model.bin")
    if any(isinstance(try_to_load_from_cache(hub, file), str) for file in files):
        return None
    return sum(weight.numel() for weight in whole.parameters()) * 4 / 1e6


def download(name: str) -> Mapping[str, Tensor]:
    """The pretrained weights of a network, from the hub or its cache.

    Raises:
        UserError: they cannot be downloaded.
    """
    try:
        return _timm().create_model(name.removeprefix(PREFIX), pretrained=True).state_dict()
    except Exception as error:  # the hub's client and its libraries raise many kinds of errors
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"weights: imagenet weights of {name} cannot be downloaded ({reason}); "
            "give a file, or set `weights: none` to start from random weights"
        ) from None


def fitting(found: Mapping[str, Tensor], backbone: nn.Module, name: str, source: str) -> dict[str, Tensor]:
    """Rename weights in timm's layout to the backbone's names, and leave out the layers after the features.

    Logs the names of these layers, unless the backbone is only checked (on the meta device).

    Raises:
        UserError: they are not the weights of this network.
    """
    with torch.device("meta"):
        whole = _timm().create_model(name.removeprefix(PREFIX), pretrained=False)
    # timm splits sequences of layers: `stages.0` is `stages_0` in a backbone.
    own = {f"{part}.{child}": f"{part}_{child}" for part, child in _nested(whole)}
    given = {_renamed(key, own, backbone): value for key, value in found.items()}
    needed = {key: value for key, value in backbone.state_dict().items() if "renormalize." not in key}
    head = whole.state_dict().keys() - needed.keys()
    left = [key for key in given if key in head]
    used = {key: value for key, value in given.items() if key not in head}
    weight_file.check(used, needed, source, f"timm's {name.removeprefix(PREFIX)}")
    if left and not next(backbone.parameters()).is_meta:
        parts = ", ".join(dict.fromkeys(key.split(".")[0] for key in left))
        logger.warning("%s: not used, because a backbone ends before them: %s", source, parts)
    return used


def _nested(whole: nn.Module) -> list[tuple[str, str]]:
    parts = [(name, part) for name, part in whole.named_children() if isinstance(part, nn.Sequential)]
    return [(name, child) for name, part in parts for child, _ in part.named_children()]


def _renamed(key: str, own: Mapping[str, str], backbone: nn.Module) -> str:
    first = ".".join(key.split(".")[:2])
    new = own.get(first)
    return key.replace(first, new, 1) if new and hasattr(backbone, new) else key
