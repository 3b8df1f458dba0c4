"""The torchvision backbones that DeepLabV3+ can stand on, at output stride 16.

To add one, give it an entry in `BACKBONES`; nothing else knows a backbone by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import create_feature_extractor

from attnfd.discovery import one_of
from attnfd.errors import UserError
from attnfd.models import weight_file


class Stage(NamedTuple):
    """Where a stage of a backbone ends.

    `pre_relu`, `post_relu`: fx nodes of its output before and after its ReLU; the same where it has none.
    `bn`: the last BN before `pre_relu`. `channels`: C of the output.
    """

    pre_relu: str
    post_relu: str
    bn: str
    channels: int


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """What must be known of a torchvision network to use it as a backbone.

    `model`: torchvision's name of the network. `stages`: the four stages, at strides 4, 8, 16, 16; the first
    gives the low-level features of the decoder. `head`: prefixes of the weights that are cut off.
    `to_stride_16`: changes strides and dilations of the built network. `title`: its name in tables and
    figures; without one they show its key.
    """

    model: str
    stages: tuple[Stage, Stage, Stage, Stage]
    head: tuple[str, ...]
    to_stride_16: Callable[[nn.Module], None]
    title: str = ""

    @property
    def relu(self) -> bool:
        """Whether a ReLU follows each stage."""
        return self.stages[-1].pre_relu != self.stages[-1].post_relu


def _dilate(conv: nn.Conv2d, dilation: int) -> None:
    """Give a convolution stride 1 and a dilation, with the padding that keeps the map's size."""
    conv.stride = (1, 1)
    conv.dilation = (dilation, dilation)
    conv.padding = tuple(dilation * (size // 2) for size in conv.kernel_size)


def _dilate_resnet(net: nn.Module, dilations: tuple[int, ...]) -> None:
    """Stride 1 in layer4, and the dilation of each block's 3×3 convolutions."""
    for block, dilation in zip(net.get_submodule("layer4").children(), dilations, strict=True):
        for module in block.modules():
            if isinstance(module, nn.Conv2d):
                _dilate(module, dilation if module.kernel_size == (3, 3) else 1)


def _dilate_depthwise(net: nn.Module, dilations: Mapping[str, int]) -> None:
    """Stride 1 and a dilation in the depthwise convolutions of these blocks."""
    for block, dilation in dilations.items():
        for module in net.get_submodule(block).modules():
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                _dilate(module, dilation)


def _resnet(
    model: str,
    blocks: tuple[int, int, int, int],
    bn: str,
    width: int,
    dilations: tuple[int, ...],
    title: str = "",
) -> Backbone:
    def stage(number: int, last: int) -> Stage:
        block = f"layer{number}.{last}"
        return Stage(f"{block}.add", f"layer{number}", f"{block}.{bn}", width * 2 ** (number - 1))

    first, second, third, fourth = (stage(number, count - 1) for number, count in enumerate(blocks, start=1))
    return Backbone(
        model=model,
        stages=(first, second, third, fourth),
        head=("fc.",),
        to_stride_16=partial(_dilate_resnet, dilations=dilations),
        title=title,
    )


def _linear(node: str, bn: str, channels: int) -> Stage:
    """A stage whose blocks end without ReLU."""
    return Stage(f"features.{node}", f"features.{node}", f"features.{bn}", channels)


def _inverted(
    model: str,
    stages: tuple[Stage, Stage, Stage, Stage],
    head: int,
    dilations: Mapping[str, int],
    title: str = "",
) -> Backbone:
    """A network of inverted residual blocks; `features.<head>` and what follows is cut off."""
    return Backbone(
        model=model,
        stages=stages,
        head=(f"features.{head}.", "classifier."),
        to_stride_16=partial(_dilate_depthwise, dilations=dilations),
        title=title,
    )


BACKBONES: Mapping[str, Backbone] = {
    # What follows the stride that is taken away sees the same positions as before at dilation 2.
    "efficientnet_b0": _inverted(
        "efficientnet_b0",
        (
            _linear("2", "2.1.block.3.1", 24),
            _linear("3", "3.1.block.3.1", 40),
            _linear("5", "5.2.block.3.1", 112),
            _linear("7", "7.0.block.3.1", 320),
        ),
        head=8,
        dilations={
            "features.6.0": 1,
            "features.6.1": 2,
            "features.6.2": 2,
            "features.6.3": 2,
            "features.7": 2,
        },
        title="EfficientNet-B0",
    ),
    # As published with the paper: dilation 2 in the 320-channel block alone.
    "mobilenetv2": _inverted(
        "mobilenet_v2",
        (
            _linear("3", "3.conv.3", 24),
            _linear("6", "6.conv.3", 32),
            _linear("13", "13.conv.3", 96),
            _linear("17", "17.conv.3", 320),
        ),
        head=18,
        dilations={"features.14": 1, "features.17": 2},
        title="MobileNetV2",
    ),
    # As in torchvision's own dilated form.
    "mobilenetv3_large": _inverted(
        "mobilenet_v3_large",
        (
            _linear("3", "3.block.2.1", 24),
            _linear("6", "6.block.3.1", 40),
            _linear("12", "12.block.3.1", 112),
            _linear("15", "15.block.3.1", 160),
        ),
        head=16,
        dilations={"features.13": 2, "features.14": 2, "features.15": 2},
        title="MobileNetV3-Large",
    ),
    "resnet18": _resnet("resnet18", (2, 2, 2, 2), "bn2", width=64, dilations=(2, 2), title="ResNet-18"),
    "resnet34": _resnet("resnet34", (3, 4, 6, 3), "bn2", width=64, dilations=(2, 2, 2), title="ResNet-34"),
    "resnet50": _resnet("resnet50", (3, 4, 6, 3), "bn3", width=256, dilations=(2, 4, 8), title="ResNet-50"),
    "resnet101": _resnet(
        "resnet101", (3, 4, 23, 3), "bn3", width=256, dilations=(2, 4, 8), title="ResNet-101"
    ),
}


def names() -> tuple[str, ...]:
    """Names of the backbones, sorted."""
    return tuple(sorted(BACKBONES))


def entry(name: str) -> Backbone:
    """The backbone of that name.

    Raises:
        UserError: there is none.
    """
    return BACKBONES[one_of(name, names(), "backbone")]


def build(name: str, weights: str = "none") -> fx.GraphModule:
    """A backbone at output stride 16, without its classifier.

    It maps images (B, 3, H, W) to the outputs of its stages by fx node name: `pre_relu` of all four, and
    `post_relu` of the first three.

    Args:
        name: one of `names()`.
        weights: `none` for torchvision's random initialisation, `imagenet` for torchvision's
            IMAGENET1K_V1, or a `.safetensors` or `.pth` file in torchvision's layout; `{backbone}` in its
            path stands for `name`.

    Raises:
        UserError: the name is unknown, or the weights cannot be had or are not this backbone's.
    """
    spec = entry(name)
    net = torchvision.models.get_model(spec.model, weights=None)
    spec.to_stride_16(net)
    nodes = [stage.pre_relu for stage in spec.stages] + [stage.post_relu for stage in spec.stages[:-1]]
    extractor = create_feature_extractor(net, list(dict.fromkeys(nodes)))
    # The graphs of both modes are equal here; with one of them, a change of mode does not recompile.
    backbone = fx.GraphModule(extractor, extractor.eval_graph, class_name=name)
    _activate_in_place(backbone)
    if weights != "none":
        backbone.load_state_dict(_read(name, weights, backbone), strict=False)
    return backbone


def _activate_in_place(backbone: fx.GraphModule) -> None:
    """Let an activation overwrite what nothing else reads: a feature before its ReLU must last."""
    for node in backbone.graph.nodes:
        module = backbone.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(getattr(module, "inplace", None), bool):
            calls = [other for other in backbone.graph.nodes if other.target == node.target]
            alone = all(len(source.users) == 1 for call in calls for source in call.all_input_nodes)
            module.inplace = alone  # type: ignore[union-attr]


def check_weights(name: str, weights: str) -> None:
    """Find out before a training whether `build` could load these weights.

    Raises:
        UserError: it could not.
    """
    entry(name)
    if weights != "none":
        with torch.device("meta"):
            skeleton = build(name)
        _read(name, weights, skeleton)


def _read(name: str, weights: str, backbone: nn.Module) -> dict[str, Tensor]:
    """The weights of a backbone without its head, compared with what the backbone needs."""
    spec = entry(name)
    if weights == "imagenet":
        source, found = f"imagenet weights of {name}", _download(spec.model)
    else:
        source = weights.replace("{backbone}", name)
        if not Path(source).is_file():
            raise UserError(f"weights: {source}: no such file; allowed: imagenet, none, or a weights file")
        found = weight_file.read(Path(source))
    given = {key: value for key, value in found.items() if not key.startswith(spec.head)}
    weight_file.check(given, backbone.state_dict(), source, f"torchvision's {spec.model}")
    return given


def _download(model: str) -> Mapping[str, Tensor]:
    try:
        weights = torchvision.models.get_model_weights(model)["IMAGENET1K_V1"]
        return weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network; a download that was cut short
        raise UserError(
            f"weights: imagenet weights of {model} cannot be fetched ({error}); "
            "give a file, or `weights: none` to start from random weights"
        ) from None
