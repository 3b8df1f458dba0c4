"""Imported teachers compute the same as where they were trained; other files are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd.config.network import Attention
from attnfd.config.params import load_params
from attnfd.config.schema import LAYERS, TrainTeacher
from attnfd.config.section import validate
from attnfd.errors import UserError
from attnfd.models import checkpoint
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.frozen import freeze
from attnfd.models.taps import Tap
from attnfd.teachers.imported import check_teacher, fingerprint, import_teacher
from tests.distillers.helpers import PARAMS

CLASSES = 5


def conv_bn(conv: str, channels: int, out: int, size: int, rate: int = 1) -> dict[str, nn.Module]:
    padding = rate * (size // 2)
    return {
        conv: nn.Conv2d(channels, out, size, padding=padding, dilation=rate, bias=False),
        "bn": nn.BatchNorm2d(out),
    }


def cbam(channels: int) -> nn.Module:
    """The keys of the published module; the published forward path does not call it."""
    linear = nn.Linear(channels, channels // 16), nn.Linear(channels // 16, channels)
    channel, spatial = nn.Module(), nn.Module()
    channel.mlp = nn.Sequential(nn.Flatten(), linear[0], nn.ReLU(), linear[1])
    spatial.spatial = nn.ModuleDict(conv_bn("conv", 2, 1, 7))
    module = nn.Module()
    module.ChannelGate, module.SpatialGate = channel, spatial
    return module


class Published(nn.Module):
    """The published network with its keys, built from the description in the docs."""

    def __init__(self, name: str, *, attention: bool) -> None:
        super().__init__()
        self.backbone = torchvision.models.get_model(name)
        del self.backbone.fc
        for number, block in enumerate(self.backbone.layer4):
            rate = 2 if name == "resnet18" else (2, 4, 8)[number]
            for part in block.modules():
                if isinstance(part, nn.Conv2d):
                    part.stride = (1, 1)
                    if part.kernel_size == (3, 3):
                        part.dilation = part.padding = (rate, rate)
        wide, low = (512, 64) if name == "resnet18" else (2048, 256)
        aspp = {
            f"aspp{i}": nn.ModuleDict(conv_bn("atrous_conv", wide, 256, 1 if i == 1 else 3, rate))
            for i, rate in enumerate((1, 6, 12, 18), start=1)
        }
        pool = [nn.AdaptiveAvgPool2d(1), *conv_bn("conv", wide, 256, 1).values(), nn.ReLU()]
        self.aspp = nn.ModuleDict({**aspp, "global_avg_pool": nn.Sequential(*pool)})
        self.aspp["conv1"], self.aspp["bn1"] = conv_bn("conv", 5 * 256, 256, 1).values()
        self.decoder = nn.ModuleDict()
        self.decoder["conv1"], self.decoder["bn1"] = conv_bn("conv", low, 48, 1).values()
        self.decoder["last_conv"] = nn.Sequential(
            *conv_bn("conv", 48 + 256, 256, 3).values(), nn.ReLU(), nn.Dropout(0.5),
            *conv_bn("conv", 256, 256, 3).values(), nn.ReLU(), nn.Dropout(0.1),
            nn.Conv2d(256, CLASSES, 1),
        )  # fmt: skip
        if attention:
            self.backbone.cbam = cbam(wide)
            self.aspp["cbam"], self.decoder["cbam"] = cbam(256), cbam(256)

    def forward(self, images: Tensor) -> Tensor:
        net, aspp, decoder = self.backbone, self.aspp, self.decoder
        low = net.layer1(net.maxpool(F.relu(net.bn1(net.conv1(images)))))
        deep = net.layer4(net.layer3(net.layer2(low)))
        branches = [
            F.relu(aspp[f"aspp{i}"]["bn"](aspp[f"aspp{i}"]["atrous_conv"](deep))) for i in range(1, 5)
        ]
        branches.append(resize(aspp["global_avg_pool"](deep), deep))
        encoded = F.dropout(
            F.relu(aspp["bn1"](aspp["conv1"](torch.cat(branches, dim=1)))), training=self.training
        )
        detail = F.relu(decoder["bn1"](decoder["conv1"](low)))
        return resize(decoder["last_conv"](torch.cat([resize(encoded, detail), detail], dim=1)), images)


def resize(feature: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(feature, size=like.shape[2:], mode="bilinear", align_corners=True)


def published(name: str = "resnet18", *, attention: bool = True) -> Published:
    """In eval mode after a simulated training: BN has random scales, shifts and statistics."""
    torch.manual_seed(3)
    net = Published(name, attention=attention).train()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
                module.momentum = 1
        net(images())
    return net.eval()


def images(height: int = 49, width: int = 65) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(4))


def settings(file: Path, **changes: Any) -> TrainTeacher:
    shipped = load_params(PARAMS).train_teacher("shapes").model_dump(mode="json")
    return validate(
        TrainTeacher, {**shipped, "backbone": "resnet18", "checkpoint": str(file), **changes}, "teacher"
    )


FREE = {"reduction": 16, "kernel_size": 7, "channel": True, "spatial": True, "learned": False}


@pytest.mark.parametrize(
    ("name", "attention", "prefix"),
    [("resnet101", True, ""), ("resnet18", True, "module."), ("resnet18", False, "")],
)
def test_same_logits_as_the_published_network(
    name: str, attention: bool, prefix: str, tmp_path: Path
) -> None:
    net = published(name, attention=attention)
    state = {prefix + key: value for key, value in net.state_dict().items()}
    assert len([key for key in state if "cbam" in key]) == (3 * 10 if attention else 0)
    file = tmp_path / "teacher.pth.tar"
    torch.save({"state_dict": state, "epoch": 4, "best_pred": np.float64(0.7785)}, file)
    check_teacher(settings(file, backbone=name))
    model, new_attention = import_teacher(settings(file, backbone=name), CLASSES)
    assert new_attention
    wide = images(33, 321)  # 21 positions at stride 16, more than the largest rate
    with torch.no_grad():
        expected, found = net.double()(wide.double()), model.double()(wide.double()).logits
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save(published().state_dict(), tmp_path / "teacher.pth")
    return tmp_path / "teacher.pth"


def test_new_attention_changes_no_bit(file: Path) -> None:
    """Both a CBAM in the path, which starts as the identity, and gates without weights keep every bit."""
    torch.manual_seed(0)
    learned = import_teacher(settings(file), CLASSES).model
    free = import_teacher(settings(file, attention=FREE), CLASSES).model
    assert list(learned.attention.parameters())
    assert not list(free.attention.parameters())
    taps = [Tap(layer, point) for layer in LAYERS for point in ("pre_relu", "refined")]
    with torch.no_grad():
        a, b = learned(images(), taps), free(images(), taps)
    assert torch.equal(a.logits, b.logits)
    for layer in LAYERS:
        assert torch.equal(4 * a.taps[Tap(layer, "refined")], a.taps[Tap(layer)])
        assert not torch.equal(b.taps[Tap(layer, "refined")], b.taps[Tap(layer)])


def test_the_loss_trains_new_attention(file: Path) -> None:
    model = import_teacher(settings(file), CLASSES).model.requires_grad_(False)
    model.attention.requires_grad_(True).train()
    logits = model(images()).logits
    F.cross_entropy(logits, torch.zeros(2, 49, 65, dtype=torch.long)).backward()
    for layer in LAYERS:
        for last in ("channel.mlp.2.weight", "channel.mlp.2.bias", "spatial.bn.weight", "spatial.bn.bias"):
            grad = model.attention.get_parameter(f"{layer}.{last}").grad
            assert grad is not None
            assert grad.abs().max() > 1e-6, (layer, last)


@pytest.mark.parametrize("path", ["", "model.safetensors"])
def test_our_own_teacher_comes_as_it_is(
    path: str, trained: Callable[..., DeepLabV3Plus], attention: Attention, tmp_path: Path
) -> None:
    teacher = trained("resnet18", classes=CLASSES, attention=attention)
    checkpoint.save(tmp_path, teacher, {})
    model, new_attention = import_teacher(settings(tmp_path / path), CLASSES)
    assert not new_attention
    assert model.architecture == teacher.architecture
    assert torch.equal(model(images()).logits, teacher(images()).logits)
    assert fingerprint(settings(tmp_path / path)) == checkpoint.fingerprint(tmp_path)


def test_our_own_network_without_attention_gets_some(
    trained: Callable[..., DeepLabV3Plus], tmp_path: Path
) -> None:
    student = trained("resnet18", classes=CLASSES)
    checkpoint.save(tmp_path, student, {})
    model, new_attention = import_teacher(settings(tmp_path), CLASSES)
    assert new_attention
    assert set(model.attention) == set(LAYERS)
    assert torch.equal(model(images()).logits, student(images()).logits)


def test_a_relative_path_starts_at_the_main_root(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    check_teacher(settings(Path(file.name)))


def refuse(teacher: TrainTeacher, message: str, classes: int = CLASSES) -> None:
    with pytest.raises(UserError, match=message) as caught:
        import_teacher(teacher, classes)
    assert "\n" not in str(caught.value)


def test_other_classes_are_refused(file: Path) -> None:
    refuse(settings(file), r"teacher\.pth: has 5 classes, the dataset has 8; give a checkpoint", classes=8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aspp.conv1.weight": None}, r"\(missing: aspp\.conv1\.weight\)"),
        ({"decoder.conv9.weight": torch.zeros(2)}, r"\(unknown: decoder\.conv9\.weight\)"),
        (
            {"backbone.conv1.weight": torch.zeros(64, 1, 7, 7)},
            r"\(shape: backbone\.conv1\.weight \(64, 1, 7, 7\) instead of \(64, 3, 7, 7\)\)",
        ),
        ({"decoder.last_conv.8.bias": None}, r"contains no decoder\.last_conv\.8\.bias; allowed: a folder"),
    ],
)
def test_what_does_not_match_is_listed(changes: dict[str, Tensor | None], message: str, file: Path) -> None:
    state = torch.load(file, weights_only=True)
    torch.save({key: value for key, value in (state | changes).items() if value is not None}, file)
    with pytest.raises(UserError, match=message):
        check_teacher(settings(file))
    refuse(settings(file), message)


def test_a_checkpoint_of_another_backbone_is_refused(file: Path, tmp_path: Path) -> None:
    refuse(
        settings(file, backbone="resnet101"),
        r"not the weights of the published DeepLabV3\+ on resnet101 \(missing: backbone\.layer1\.\d.* more",
    )
    checkpoint.save(tmp_path, DeepLabV3Plus("mobilenetv2", CLASSES), {})
    refuse(settings(tmp_path), r"has the backbone mobilenetv2; set train_teacher\.backbone: mobilenetv2")


def test_a_frozen_teacher_is_refused(trained: Callable[..., DeepLabV3Plus], tmp_path: Path) -> None:
    checkpoint.save(tmp_path, freeze(trained("resnet18", classes=CLASSES)), {})
    refuse(settings(tmp_path), "is frozen; give the folder that train_teacher wrote")


@pytest.mark.parametrize("name", ["no/such.pth", "."])
def test_missing_checkpoint(name: str, tmp_path: Path) -> None:
    refuse(
        settings(tmp_path / name),
        r"train_teacher\.checkpoint: .*: no such file; allowed: a checkpoint, or null",
    )


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.sprung), "w")


@pytest.mark.parametrize("place", ["state_dict", "best_pred"])
def test_code_in_a_checkpoint_never_runs(place: str, tmp_path: Path) -> None:
    sprung, file = tmp_path / "sprung", tmp_path / "teacher.pth.tar"
    torch.save({"state_dict": published().state_dict(), place: Trap(sprung)}, file)
    refuse(settings(file), r"cannot be read as weights .* contains more than tensors and numbers")
    assert not sprung.exists()
    torch.load(file, weights_only=False)
    assert sprung.exists(), "the trap is no trap"


def test_card_without_weights(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(json.dumps({}))
    refuse(settings(tmp_path), "no such file")
