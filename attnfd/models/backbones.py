"""The backbones of DeepLabV3+, at output stride 16 or 8: torchvision's, and those of timm as `timm:<name>`.

To add a backbone of torchvision, add an entry to `BACKBONES`. No other place lists the names.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import create_feature_extractor

from attnfd.discovery import one_of
from attnfd.errors import UserError
from attnfd.models import from_timm, weight_file
from attnfd.models.stages import Stage, Stages, activate_in_place


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """How to use a torchvision network as a backbone.

    `model`: torchvision's name of the network. `stages`: the four stages, at strides 4, 8, 16, 16 or 4, 8,
    8, 8; the first gives the low-level features of the decoder. `head`: prefixes of the weights that are not
    used. `to_stride`: changes the built network to an output stride of 16 or 8. `title`: its name in tables
    and figures; if empty, they show its key.
    """

    model: str
    stages: Stages
    head: tuple[str, ...]
    to_stride: Callable[[nn.Module, int], None]
    title: str = ""

    @property
    def relu(self) -> bool:
        """Whether a ReLU follows each stage."""
        return self.stages[-1].pre_relu != self.stages[-1].post_relu


def _dilate(conv: nn.Conv2d, dilation: int) -> None:
    """Give a convolution stride 1, this dilation, and the padding that keeps the map's size."""
    conv.stride = (1, 1)
    conv.dilation = (dilation, dilation)
    conv.padding = tuple(dilation * (size // 2) for size in conv.kernel_size)


def _dilate_resnet(net: nn.Module, output_stride: int, dilations: tuple[int, ...]) -> None:
    """Set stride 1 in layer4, and the dilations of its blocks' 3×3 convolutions.

    At output stride 8, also set stride 1 and dilation 2 in layer3, and double the dilations in layer4.
    """
    blocks = [*zip(net.get_submodule("layer4").children(), dilations, strict=True)]
    if output_stride == 8:
        blocks = [(block, 2 * dilation) for block, dilation in blocks]
        blocks += [(block, 2) for block in net.get_submodule("layer3").children()]
    for block, dilation in blocks:
        for module in block.modules():
            if isinstance(module, nn.Conv2d):
                _dilate(module, dilation if module.kernel_size == (3, 3) else 1)


def _dilate_depthwise(net: nn.Module, output_stride: int, dilations: Mapping[int, Mapping[str, int]]) -> None:
    """Set stride 1 and the given dilations in the depthwise convolutions, for this output stride."""
    for block, dilation in dilations[output_stride].items():
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
        to_stride=partial(_dilate_resnet, dilations=dilations),
        title=title,
    )


def _linear(node: str, bn: str, channels: int) -> Stage:
    """A stage whose blocks do not end with a ReLU."""
    return Stage(f"features.{node}", f"features.{node}", f"features.{bn}", channels)


def _inverted(
    model: str,
    stages: Stages,
    head: int,
    dilations: Mapping[int, Mapping[str, int]],
    title: str = "",
) -> Backbone:
    """A network of inverted residual blocks; `features.<head>` and all later layers are not used."""
    return Backbone(
        model=model,
        stages=stages,
        head=(f"features.{head}.", "classifier."),
        to_stride=partial(_dilate_depthwise, dilations=dilations),
        title=title,
    )


def _blocks(dilation: int, *blocks: str) -> dict[str, int]:
    return {f"features.{block}": dilation for block in blocks}


BACKBONES: Mapping[str, Backbone] = {
    # With dilation 2, the layers after the removed stride read the same positions as before.
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
            16: {"features.6.0": 1, **_blocks(2, "6.1", "6.2", "6.3", "7")},
            8: {
                "features.4.0": 1,
                **_blocks(2, "4.1", "4.2", "5", "6.0"),
                **_blocks(4, "6.1", "6.2", "6.3", "7"),
            },
        },
        title="EfficientNet-B0",
    ),
    # As published with the paper: dilation 2 only in the 320-channel block. At 8 the same rule applies: the
    # groups after one with a removed stride are dilated.
    "mobilenetv2": _inverted(
        "mobilenet_v2",
        (
            _linear("3", "3.conv.3", 24),
            _linear("6", "6.conv.3", 32),
            _linear("13", "13.conv.3", 96),
            _linear("17", "17.conv.3", 320),
        ),
        head=18,
        dilations={
            16: {"features.14": 1, "features.17": 2},
            8: {"features.7": 1, **_blocks(2, "11", "12", "13", "14", "15", "16"), "features.17": 4},
        },
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
        dilations={
            16: _blocks(2, "13", "14", "15"),
            8: {**_blocks(2, "7", "8", "9", "10", "11", "12"), **_blocks(4, "13", "14", "15")},
        },
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
    """Names of torchvision's backbones, sorted."""
    return tuple(sorted(BACKBONES))


def entry(name: str, key: str = "backbone") -> Backbone:
    """The torchvision backbone of this name.

    Raises:
        UserError: there is none; the message starts with `key`.
    """
    return BACKBONES[one_of(name, names(), key)]


def title(name: str) -> str:
    """The name of a backbone in tables and figures."""
    if from_timm.has(name):
        return name.removeprefix(from_timm.PREFIX)
    return entry(name).title or name


def check_name(name: str, key: str = "backbone") -> None:
    """Check that there is a backbone of this name.

    Raises:
        UserError: there is none, or it needs timm and timm is not installed; the message starts with `key`.
    """
    if from_timm.has(name):
        from_timm.check_name(name, key)
    else:
        entry(name, key)


def build(name: str, weights: str = "none", output_stride: int = 16) -> fx.GraphModule:
    """A backbone without its classifier.

    It maps images (B, 3, H, W) to the outputs of its stages by name: `pre_relu` of all four, and `post_relu`
    of the first three. `meta["stages"]` describes the stages.

    Args:
        name: one of `names()`, or `timm:` and a name of timm.
        weights: `none` for the library's random initialisation, `imagenet` for torchvision's IMAGENET1K_V1
            or timm's pretrained weights, or a `.safetensors` or `.pth` file in the layout of that library;
            `{backbone}` in its path is replaced by `name`, without `timm:`.
        output_stride: 16 or 8.

    Raises:
        UserError: the name is unknown, the network cannot have this output stride, the weights are not
            available, or they belong to another network.
    """
    backbone = from_timm.build(name, output_stride) if from_timm.has(name) else _build(name, output_stride)
    if weights != "none":
        backbone.load_state_dict(_read(name, weights, backbone), strict=False)
    return backbone


def _build(name: str, output_stride: int) -> fx.GraphModule:
    spec = entry(name)
    net = torchvision.models.get_model(spec.model, weights=None)
    spec.to_stride(net, output_stride)
    nodes = [stage.pre_relu for stage in spec.stages] + [stage.post_relu for stage in spec.stages[:-1]]
    extractor = create_feature_extractor(net, list(dict.fromkeys(nodes)))
    # The graphs of both modes are the same. With only one, a change of mode does not recompile.
    backbone = fx.GraphModule(extractor, extractor.eval_graph, class_name=name)
    activate_in_place(backbone)
    backbone.meta["stages"] = spec.stages
    return backbone


def check_weights(name: str, weights: str, output_stride: int = 16) -> None:
    """Check before a training that `build` can build this backbone and load these weights.

    Raises:
        UserError: it cannot.
    """
    check_name(name)
    if weights != "none" or from_timm.has(name):
        with torch.device("meta"):
            skeleton = build(name, output_stride=output_stride)
        if weights != "none":
            _read(name, weights, skeleton)


def _read(name: str, weights: str, backbone: nn.Module) -> Mapping[str, Tensor]:
    """Read the weights of a backbone without its head, and check that they fit the backbone."""
    timm = from_timm.has(name)
    plain = name.removeprefix(from_timm.PREFIX)
    if weights == "imagenet":
        source = f"imagenet weights of {name}"
        found = from_timm.download(name) if timm else _download(entry(name).model)
    else:
        source = weights.replace("{backbone}", plain)
        if not Path(source).is_file():
            raise UserError(f"weights: {source}: no such file; allowed: imagenet, none, or a weights file")
        found = weight_file.read(Path(source))
    if timm:
        return from_timm.fitting(found, backbone, name, source)
    spec = entry(name)
    given = {key: value for key, value in found.items() if not key.startswith(spec.head)}
    weight_file.check(given, backbone.state_dict(), source, f"torchvision's {spec.model}")
    return given


def _download(model: str) -> Mapping[str, Tensor]:
    try:
        weights = torchvision.models.get_model_weights(model)["IMAGENET1K_V1"]
        return weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network; a download that was cut short
        raise UserError(
            f"weights: imagenet weights of {model} cannot be downloaded ({error}); "
            "give a file, or set `weights: none` to start from random weights"
        ) from None
