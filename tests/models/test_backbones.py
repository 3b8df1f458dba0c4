import copy
import pickle
import re
import urllib.error
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn

from attnfd.errors import UserError
from attnfd.models import backbones

NAMES = backbones.names()
STRIDES = (4, 8, 16, 16)


def published(name):
    torch.manual_seed(1)
    return torchvision.models.get_model(backbones.entry(name).model, weights=None)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [64, 33])
def test_strides_and_channels(name, size):
    outputs = backbones.build(name).eval()(torch.randn(1, 3, size, size))
    for stage, stride in zip(backbones.entry(name).stages, STRIDES, strict=True):
        side = -(-size // stride)
        assert outputs[stage.pre_relu].shape == (1, stage.channels, side, side)


@pytest.mark.parametrize("name", NAMES)
def test_first_three_stages_are_torchvisions(name, tmp_path):
    """Only the last stage is converted; the other outputs are the same as those of the published network."""
    net = published(name).eval()
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    backbone = backbones.build(name, str(tmp_path / "weights.pth")).eval()
    images = torch.randn(1, 3, 64, 64)
    outputs = backbone(images)
    seen = {}
    for stage in backbones.entry(name).stages[:3]:
        net.get_submodule(stage.post_relu).register_forward_hook(
            lambda module, args, out, key=stage.post_relu: seen.update({key: out})
        )
    net(images)
    assert len(seen) == 3
    for key, value in seen.items():
        torch.testing.assert_close(outputs[key], value)


def spatial_convs(module):
    return [conv for conv in module.modules() if isinstance(conv, nn.Conv2d) and conv.kernel_size > (1, 1)]


@pytest.mark.parametrize(
    ("name", "last_stage", "dilations"),
    [
        ("resnet18", ["layer4"], [2, 2, 2, 2]),
        ("resnet101", ["layer4"], [2, 4, 8]),
        ("resnet34", ["layer4"], [2] * 6),
        ("resnet50", ["layer4"], [2, 4, 8]),
        ("mobilenetv2", ["features.14", "features.15", "features.16", "features.17"], [1, 1, 1, 2]),
        ("mobilenetv3_large", ["features.13", "features.14", "features.15"], [2, 2, 2]),
        ("efficientnet_b0", ["features.6", "features.7"], [1, 2, 2, 2, 2]),
    ],
)
def test_dilations(name, last_stage, dilations):
    backbone = backbones.build(name)
    convs = [conv for part in last_stage for conv in spatial_convs(backbone.get_submodule(part))]
    assert [conv.dilation for conv in convs] == [(d, d) for d in dilations]
    assert all(conv.stride == (1, 1) for conv in convs)
    others = [conv for conv in spatial_convs(backbone) if not any(conv is last for last in convs)]
    assert all(conv.dilation == (1, 1) for conv in others)


@pytest.mark.parametrize("name", NAMES)
def test_output_stride_8(name):
    """The last two stages keep the size of the second, and have the same weights."""
    outputs = backbones.build(name, output_stride=8).eval()(torch.randn(1, 3, 64, 33))
    for stage, stride in zip(backbones.entry(name).stages, (4, 8, 8, 8), strict=True):
        assert outputs[stage.pre_relu].shape == (1, stage.channels, -(-64 // stride), -(-33 // stride))
    with torch.device("meta"):
        shapes = [
            {
                key: value.shape
                for key, value in backbones.build(name, output_stride=stride).state_dict().items()
            }
            for stride in (16, 8)
        ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("name", "parts", "dilations"),
    [
        ("resnet18", ["layer3", "layer4"], [2] * 4 + [4] * 4),
        ("resnet50", ["layer3", "layer4"], [2] * 6 + [4, 8, 16]),
        ("mobilenetv2", [f"features.{i}" for i in range(7, 18)], [1] * 4 + [2] * 6 + [4]),
        ("mobilenetv3_large", [f"features.{i}" for i in range(7, 16)], [2] * 6 + [4] * 3),
        ("efficientnet_b0", [f"features.{i}" for i in range(4, 8)], [1, 2, 2, 2, 2, 2, 2, 4, 4, 4, 4]),
    ],
)
def test_dilations_at_output_stride_8(name, parts, dilations):
    backbone = backbones.build(name, output_stride=8)
    convs = [conv for part in parts for conv in spatial_convs(backbone.get_submodule(part))]
    assert [conv.dilation for conv in convs] == [(d, d) for d in dilations]
    assert all(conv.stride == (1, 1) for conv in convs)


def test_dilated_mobilenetv3_is_torchvisions():
    theirs = torchvision.models.get_model("mobilenet_v3_large", weights=None, dilated=True)
    ours = backbones.build("mobilenetv3_large")
    ours.load_state_dict({key: theirs.state_dict()[key] for key in ours.state_dict()})
    images = torch.randn(1, 3, 97, 65)
    found = ours.eval()(images)["features.15"]
    torch.testing.assert_close(found, theirs.eval().features[:16](images))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet18", 11_689_512 - 513_000),
        ("resnet34", 21_797_672 - 513_000),
        ("resnet50", 25_557_032 - 2_049_000),
        ("resnet101", 44_549_160 - 2_049_000),
        ("mobilenetv2", 3_504_872 - (320 + 2) * 1280 - 1_281_000),
        ("mobilenetv3_large", 5_483_032 - (160 + 2) * 960 - 961 * 1280 - 1_281_000),
        ("efficientnet_b0", 5_288_548 - (320 + 2) * 1280 - 1_281_000),
    ],
)
def test_only_the_classifier_is_cut(name, count):
    """Published parameter counts, minus the classifier of 1000 classes and the layer before it."""
    with torch.device("meta"):
        backbone = backbones.build(name)
    assert sum(p.numel() for p in backbone.parameters()) == count


@pytest.mark.parametrize(
    ("name", "suffix"), [*((name, "safetensors") for name in NAMES), ("resnet18", "pth")]
)
def test_weights_from_a_file(name, suffix, tmp_path):
    state = published(name).state_dict()
    file = tmp_path / f"{name}.{suffix}"
    if suffix == "pth":
        torch.save({key: value for key, value in state.items() if "num_batches" not in key}, file)
    else:
        safetensors.torch.save_file(state, file)
    pattern = str(tmp_path / "{backbone}") + f".{suffix}"
    backbones.check_weights(name, pattern)
    for key, value in backbones.build(name, pattern).state_dict().items():
        assert torch.equal(value, state[key]), key


def refuse(name, weights, message):
    """Both the check before training and the build itself raise, in one line."""
    for function in (backbones.check_weights, backbones.build):
        with pytest.raises(UserError, match=message) as caught:
            function(name, weights)
        assert "\n" not in str(caught.value)


def test_unknown_backbone():
    refuse("resnet8", "none", "did you mean 'resnet18'")


@pytest.mark.parametrize("weights", ["imagnet", "no/such/{backbone}.pth"])
def test_missing_file(weights):
    refuse("resnet18", weights, re.escape(weights.replace("{backbone}", "resnet18")) + ": no such file")


def test_weights_of_another_network(tmp_path):
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(published("resnet18").state_dict(), file)
    refuse(
        "resnet101",
        str(file),
        r"weights\.safetensors.*torchvision's resnet101 .*missing: layer1\.0.* and \d+ more",
    )
    refuse("mobilenetv2", str(file), r"unknown: bn1\.\w+")


def test_weights_of_another_shape(tmp_path):
    state = published("resnet18").state_dict()
    state["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    torch.save(state, tmp_path / "grey.pth")
    refuse(
        "resnet18",
        str(tmp_path / "grey.pth"),
        r"shape: conv1\.weight \(64, 1, 7, 7\) instead of \(64, 3, 7, 7\)",
    )


def test_training_checkpoint(tmp_path):
    """A state dict next to numbers, some of them of NumPy; a file without a state dict is refused."""
    state, score = published("resnet18").state_dict(), np.float64(0.5)
    file = tmp_path / "checkpoint.pth.tar"
    torch.save({"state_dict": state, "epoch": 3, "best_pred": score}, file)
    backbone = backbones.build("resnet18", str(file))
    assert torch.equal(backbone.get_parameter("conv1.weight"), state["conv1.weight"])
    torch.save({"model": state, "best_pred": score}, file)
    refuse("resnet18", str(file), "contains no state dict")


def test_numpy_number_of_an_old_checkpoint(tmp_path):
    """NumPy 1 had another name for the function that creates its numbers."""
    state = published("resnet18").state_dict()
    torch.save({"state_dict": state, "best_pred": np.float64(0.5)}, tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "new.pth") as new, zipfile.ZipFile(tmp_path / "old.pth", "w") as old:
        for name in new.namelist():
            content = new.read(name)
            if name.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in content
                content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            old.writestr(name, content)
    backbone = backbones.build("resnet18", str(tmp_path / "old.pth"))
    assert torch.equal(backbone.get_parameter("conv1.weight"), state["conv1.weight"])


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_code_in_a_weights_file_never_runs(suffix, tmp_path):
    sprung = tmp_path / "sprung"
    file = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save({"fc.weight": Trap(sprung)}, file)
    else:
        file.write_bytes(pickle.dumps(Trap(sprung)))
    refuse("resnet18", str(file), "cannot be read as weights")
    assert not sprung.exists()
    if suffix == "pth":
        torch.load(file, weights_only=False)
        assert sprung.exists(), "the trap is no trap"


def test_truncated_file(tmp_path):
    file = tmp_path / "weights.pth"
    torch.save(published("resnet18").state_dict(), file)
    file.write_bytes(file.read_bytes()[:1000])
    refuse("resnet18", str(file), "cannot be read as weights")


def test_imagenet_out_of_reach(monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    refuse("resnet18", "imagenet", "cannot be downloaded.*give a file, or set `weights: none`")


def test_imagenet_weights_are_the_published_ones(monkeypatch):
    state = published("resnet18").state_dict()
    asked = []
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url",
        lambda url, *args, **kwargs: asked.append(url) or state,
    )
    backbone = backbones.build("resnet18", "imagenet")
    assert torch.equal(backbone.get_parameter("layer3.0.conv1.weight"), state["layer3.0.conv1.weight"])
    assert asked == [torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url]


@pytest.mark.parametrize("name", backbones.names())
def test_activations_in_place_change_nothing(name):
    torch.manual_seed(0)
    net = backbones.build(name)
    apart = copy.deepcopy(net)
    activations = [module for module in apart.modules() if isinstance(getattr(module, "inplace", None), bool)]
    assert any(module.inplace for module in activations)
    for module in activations:
        module.inplace = False
    images = torch.randn(2, 3, 33, 33)
    for network in (net, apart):
        torch.manual_seed(1)  # EfficientNet drops random blocks.
        sum(feature.square().mean() for feature in network(images).values()).backward()
    for own, other in zip(net.parameters(), apart.parameters(), strict=True):
        assert torch.equal(own.grad, other.grad)
    with torch.no_grad():
        features, expected = net.eval()(images), apart.eval()(images)
    assert all(torch.equal(features[node], expected[node]) for node in expected)
