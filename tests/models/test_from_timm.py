"""Backbones of timm: their features are equal to timm's."""

import copy
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from attnfd.cli import weights
from attnfd.data.images import read_pixels
from attnfd.data.transforms import MEAN, STD, normalize
from attnfd.errors import UserError
from attnfd.models import backbones, checkpoint, from_timm
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.frozen import compare, freeze
from attnfd.models.taps import EARLY_LAYERS, Tap

timm = pytest.importorskip("timm")

FAMILIES = (
    "tf_efficientnet_lite0",  # another mean and deviation, TensorFlow's padding
    "resnet18",  # a ReLU after each stage
    "mobilenetv4_conv_small",  # activations inside the BNs
    "convnext_atto",  # no BN; timm changes names of layers
    "repvgg_a0",  # BNs that do not follow a convolution
)
CHECKPOINTS = Path(os.environ.get("TIMM_WEIGHTS", "weights"))
FRAMES = Path(os.environ.get("ATTNFD_CAMVID_ROOT", "datasets/camvid"))


@pytest.fixture(autouse=True, scope="module")
def _no_network() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")


def settle(net: nn.Module, images: Tensor) -> None:
    """Give BNs random weights and statistics, as after a training."""
    with torch.no_grad():
        for module in net.train().modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
        for _ in range(2):
            net(images)
    net.eval()


def theirs(name: str, output_stride: int) -> nn.Module:
    made: nn.Module = timm.create_model(name, features_only=True, output_stride=output_stride)
    return made


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 65, 97, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("output_stride", [16, 8])
@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_timms(name: str, output_stride: int, images: Tensor) -> None:
    torch.manual_seed(0)
    ours, plain = backbones.build(f"timm:{name}", output_stride=output_stride), theirs(name, output_stride)
    settle(ours, images)
    state = {key: value for key, value in ours.state_dict().items() if "renormalize" not in key}
    plain.load_state_dict(state)
    card = timm.get_pretrained_cfg(name)
    pixels = images * torch.tensor(STD).view(-1, 1, 1) + torch.tensor(MEAN).view(-1, 1, 1)
    normal = (pixels - torch.tensor(card.mean).view(-1, 1, 1)) / torch.tensor(card.std).view(-1, 1, 1)
    for training in (False, True):
        expected = plain.train(training)(normal)[-4:]
        found = ours.train(training)(images)
        for stage, feature in zip(ours.meta["stages"], expected, strict=True):
            own = found[stage.post_relu] if stage.post_relu in found else found[stage.pre_relu].relu()
            assert (own - feature).abs().max() < 1e-4 * feature.abs().max()
            assert stage.channels == feature.shape[1]


def test_layers_with_a_relu_have_two_points(images: Tensor) -> None:
    for name, relu in (("resnet18", True), ("mobilenetv4_conv_small", False), ("convnext_atto", False)):
        net = DeepLabV3Plus(f"timm:{name}", 3)
        settle(net, images)
        taps = net(images, [Tap("stage3"), Tap("stage3", "post_relu")], logits=False).taps
        assert (taps[Tap("stage3")] < 0).any()
        assert torch.equal(taps[Tap("stage3", "post_relu")], taps[Tap("stage3")]) is not relu


def test_bns_that_activate_become_two_layers() -> None:
    net = backbones.build("timm:mobilenetv4_conv_small")
    assert type(net.get_submodule("blocks.0.0.bn1")) is nn.BatchNorm2d
    assert isinstance(net.get_submodule("blocks.0.0.bn1_act"), nn.ReLU)
    # Torch's own conversion would lose the activation of timm's BN.
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(net))
    assert isinstance(synced.get_submodule("blocks.0.0.bn1"), nn.SyncBatchNorm)


@pytest.mark.parametrize("name", FAMILIES)
def test_frozen_answers_as_the_live_network(name: str, images: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    live = DeepLabV3Plus(f"timm:{name}", 3)
    settle(live, images)
    frozen = freeze(live)
    assert max(compare(live, frozen, images).values()) < 1e-4
    left = [module for module in frozen.modules() if isinstance(module, nn.BatchNorm2d)]
    assert bool(left) is (name == "repvgg_a0")
    for model in (live, frozen):
        checkpoint.save(tmp_path, model, {})
        loaded = checkpoint.load(tmp_path)[0]
        model.to(memory_format=torch.channels_last)
        assert torch.equal(loaded(images).logits, model(images).logits)


def test_margins_where_a_bn_gives_the_feature() -> None:
    def margins(name: str) -> set[str]:
        return set(freeze(DeepLabV3Plus(f"timm:{name}", 3).eval()).info.margins or {})

    assert margins("resnet18") == {*EARLY_LAYERS, "backbone", "encoder", "decoder"}
    assert margins("convnext_atto") == {"encoder", "decoder"}


def test_what_no_file_has_is_there_after_loading(images: Tensor, tmp_path: Path) -> None:
    """timm does not store the filter of this network's blur in its state dict."""
    net = DeepLabV3Plus("timm:resnetblur18", 2).eval()
    checkpoint.save(tmp_path, net, {})
    found = checkpoint.load(tmp_path)[0](images).logits
    assert torch.equal(found, net.to(memory_format=torch.channels_last)(images).logits)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "convnext_atto"])
def test_weights_in_timms_layout(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(1)
    whole = timm.create_model(name)
    file = tmp_path / f"{name}.safetensors"
    safetensors.torch.save_file(whole.state_dict(), file)
    pattern = str(tmp_path / "{backbone}.safetensors")
    backbones.check_weights(f"timm:{name}", pattern)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        net = backbones.build(f"timm:{name}", pattern)
    images = torch.randn(1, 3, 64, 64)
    plain = theirs(name, 16)
    plain.load_state_dict({key: value for key, value in net.state_dict().items() if "renorm" not in key})
    first = whole.conv_stem if name.startswith("tf") else whole.stem[0]
    assert torch.equal(next(plain.parameters()), first.weight)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.endswith("bn2, classifier, conv_head" if name.startswith("tf") else ": head")
    assert plain(images)[-1].shape[1] == 320


def refuse(function: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        function()
    assert "\n" not in str(caught.value)


def test_weights_of_another_network(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(timm.create_model("resnet18").state_dict(), file)
    refuse(
        lambda: backbones.check_weights("timm:mobilenetv4_conv_small", str(file)),
        r"weights\.safetensors: these are not the weights of timm's mobilenetv4_conv_small \(missing: conv_",
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet19", r"backbone: timm:: unknown name 'resnet19'; did you mean 'resnet1\d'\?"),
        ("timm:resnet18.no_such", r"unknown name 'resnet18\.no_such'; .*allowed: resnet18\.a1_in1k"),
        ("timm:vit_tiny_patch16_224", "timm cannot run it at output stride 16 .*output_stride.*allowed: "),
        ("timm:hrnet_w18_small", "timm cannot run it at output stride 16"),
        ("timm:xception41", "timm cannot run it at output stride 16"),
    ],
)
def test_names_that_are_no_backbones(name: str, message: str) -> None:
    refuse(lambda: backbones.check_weights(name, "none"), message)
    refuse(lambda: backbones.build(name), message)


def test_no_hub_in_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host\nsecond line")

    monkeypatch.setattr("timm.create_model", offline)
    refuse(
        lambda: from_timm.download("timm:resnet18"), "cannot be downloaded .no route to host.; give a file"
    )


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    refuse(
        lambda: backbones.build("timm:resnet18"), r"timm: not installed; run `pip install 'attnfd\[zoo\]'`"
    )


@pytest.mark.skipif(
    not (CHECKPOINTS / "tf_efficientnet_lite0.safetensors").exists() or not FRAMES.exists(),
    reason="needs ImageNet weights (TIMM_WEIGHTS) and CamVid (ATTNFD_CAMVID_ROOT)",
)
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite2"])
def test_real_weights_see_a_street(name: str) -> None:
    """The classes of a street among ImageNet's top 5, and features equal to timm's own."""
    file = CHECKPOINTS / f"{name}.safetensors"
    ours = backbones.build(f"timm:{name}", str(file), output_stride=16).eval()
    whole = timm.create_model(name)
    whole.load_state_dict(safetensors.torch.load_file(file))
    plain = theirs(name, 16)
    kept = plain.state_dict().keys()
    plain.load_state_dict({key: value for key, value in whole.state_dict().items() if key in kept})
    street = (468, 609, 654, 705, 717, 734, 751, 779, 817, 829, 864, 867, 874, 920)
    for frame in sorted((FRAMES / "val").glob("*.png"))[::40]:
        pixels = torch.from_numpy(read_pixels(frame)).permute(2, 0, 1)[None]
        with torch.no_grad():
            features = ours(normalize(pixels))
            expected = plain.eval()((pixels / 255 - 0.5) / 0.5)[-4:]
            for stage, feature in zip(ours.meta["stages"], expected, strict=True):
                torch.testing.assert_close(features[stage.post_relu], feature, rtol=1e-3, atol=1e-3)
            top = whole.eval()((pixels / 255 - 0.5) / 0.5).softmax(1).topk(5).indices[0].tolist()
            # At output stride 32 the classifier gets the features of its training. First stages are the same.
            first = whole.blocks[0:2](whole.bn1(whole.conv_stem((pixels / 255 - 0.5) / 0.5)))
        torch.testing.assert_close(features["stage1.pre_relu"], first, rtol=1e-3, atol=1e-3)
        assert set(top) & set(street), top


def test_weights_that_are_not_here_are_measured_and_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    start = weights.Start("timm:resnet18", "imagenet", 16)
    found: dict[str, str] = {}
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda hub, file: found.get(file))
    monkeypatch.setattr(from_timm, "download", lambda name: pytest.fail("it was fetched"))
    # 11 689 512 numbers with 4 bytes each.
    assert weights.check(start) == "imagenet: not on this disk yet, a download of 47 MB"
    found["model.safetensors"] = "there"
    assert weights.missing("timm:resnet18", "imagenet") is None
    untrained = timm.create_model("resnet18", pretrained=False)
    untrained.pretrained_cfg = {}
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: untrained)
    with pytest.raises(UserError, match="timm has no pretrained weights of timm:resnet18"):
        from_timm.missing("timm:resnet18")


def test_a_title_is_the_name_without_its_library() -> None:
    assert backbones.title("timm:resnet18") == "resnet18"
    assert backbones.title("resnet18") == "ResNet-18"
