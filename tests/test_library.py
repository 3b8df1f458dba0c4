"""The names of the library, as a user calls them: each mistake gives one line that says what to pass."""

import inspect
from collections.abc import Callable
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import attnfd
from attnfd import (
    CBAM,
    Attention,
    AttnFD,
    DeepLabV3Plus,
    NetInfo,
    Output,
    Tap,
    discovery,
    distiller,
    freeze,
)
from attnfd.data.images import decode_image, decode_mask, orientation
from attnfd.discovery import component
from attnfd.distillers.attnfd import attnfd_loss
from attnfd.distillers.kd import KD
from attnfd.losses import kd_loss
from attnfd.models import checkpoint, weight_file
from tests.distillers.helpers import batch, tiny_student, tiny_teacher

INFO = NetInfo(channels={"backbone": 4, "encoder": 4, "decoder": 4}, classes=3)
IMAGES, TARGET = batch()
OUTPUT = Output(torch.zeros(1, 3, 2, 2), {})


@pytest.fixture(scope="module")
def deeplab() -> DeepLabV3Plus:
    return DeepLabV3Plus("mobilenetv2", 3).eval()


def refused(call: Callable[[], Any], message: str) -> None:
    """A call fails with one line that contains `message`."""
    with pytest.raises((TypeError, ValueError, AttributeError)) as stopped:
        call()
    assert message in str(stopped.value)
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Attention(7), "Attention: give every value by its name, such as reduction="),
        (lambda: Attention(kernel_size=4), "Attention.kernel_size: found 4; allowed: an odd number"),
        (lambda: Attention(kernal_size=3), "unknown key; did you mean 'kernel_size'?"),
        (lambda: AttnFD.Config(attention=True), "found true; allowed: keys with values"),
        (lambda: AttnFD.Config(attention=True), "in Python Attention("),
        (lambda: AttnFD.Config(layers="encoder"), 'allowed: a list, such as ["encoder"]'),
        (lambda: AttnFD.Config(layers=["layer4"]), "AttnFD.Config.layers"),
        (lambda: AttnFD.Config(weight=-1), "AttnFD.Config.weight: found -1"),
        (lambda: AttnFD.Config(weight=float("nan")), "AttnFD.Config.weight: found NaN"),
        (lambda: AttnFD.Config(normalize=F.normalize), "AttnFD.Config.normalize: found"),
        (lambda: NetInfo(channels=256, classes=3), "NetInfo.channels: found 256; pass the channels"),
        (lambda: NetInfo(channels={"encoder": "256"}, classes=3), "NetInfo.channels: found"),
        (lambda: NetInfo(channels=["encoder"], classes=3), "NetInfo.channels: found ['encoder']"),
        (lambda: NetInfo(channels={}, classes=3.0), "NetInfo.classes: found 3.0; pass the number"),
        (lambda: NetInfo(channels={}, classes=True), "NetInfo.classes: found True"),
        (lambda: CBAM("64"), "CBAM.channels: found '64'; pass the number of channels"),
        (lambda: CBAM(0), "CBAM.channels: found 0"),
        (lambda: CBAM(8, kernel_size=2), "kernel_size: found 2; allowed: an odd number"),
        (lambda: CBAM(8, reduction=0.5), "reduction: found 0.5"),
        (lambda: CBAM(8)(torch.zeros(1, 4, 2, 2)), "CBAM: found (1, 4, 2, 2); pass features (B, 8, H, W)"),
        (lambda: DeepLabV3Plus("resnet999", 3), "did you mean"),
        (lambda: DeepLabV3Plus("resnet18", 3, attention=True), "DeepLabV3Plus.attention: found true"),
        (lambda: DeepLabV3Plus("resnet18", 3, attention=Attention), "DeepLabV3Plus.attention: found"),
        (lambda: DeepLabV3Plus("resnet18", "3"), 'DeepLabV3Plus.classes: found "3"'),
        (lambda: DeepLabV3Plus("resnet18", 0), "DeepLabV3Plus.classes: found 0"),
        (
            lambda: DeepLabV3Plus("resnet18", 3, dropout=0.5),
            "DeepLabV3Plus.dropout: found 0.5; allowed: a list",
        ),
        (lambda: DeepLabV3Plus(nn.Identity(), 3), "backbone: unknown name Identity(); allowed: "),
        (lambda: DeepLabV3Plus("resnet18", 3, weights="none.pth"), "none.pth: no such file"),
        (lambda: freeze(nn.Conv2d(3, 3, 1)), "freeze: found Conv2d; pass a DeepLabV3Plus"),
        (lambda: freeze(DeepLabV3Plus), "freeze: found type; pass a DeepLabV3Plus"),
    ],
)
def test_wrong_values(call: Callable[[], Any], message: str) -> None:
    refused(call, message)


def test_a_list_is_a_tuple_and_keys_are_a_section() -> None:
    config = AttnFD.Config(layers=["encoder"], attention={"reduction": 8}, weight=2)
    assert config.layers == ("encoder",)
    assert config.attention == Attention(reduction=8)


def test_a_frozen_network_is_not_frozen_again(deeplab: DeepLabV3Plus) -> None:
    refused(lambda: freeze(freeze(deeplab)), "freeze: the network is already frozen")


@pytest.mark.parametrize(
    "use",
    [
        lambda output: output.argmax(1),
        lambda output: output.shape,
        lambda output: torch.argmax(output, 1),
        lambda output: F.cross_entropy(output, TARGET),
        lambda output: nn.CrossEntropyLoss()(output, TARGET),
        lambda output: nn.Conv2d(3, 3, 1)(output),
        lambda output: output["out"],
        lambda output: output[:, 0],
        lambda output: kd_loss(output, output, TARGET, temperature=1),
        lambda output: attnfd_loss(output, output, normalize="channel"),
    ],
)
def test_an_output_is_no_tensor(use: Callable[[Output], Any]) -> None:
    refused(lambda: use(OUTPUT), "the pair (logits, taps); use output.logits or output.taps[tap]")


def test_an_output_is_a_pair() -> None:
    logits, taps = OUTPUT
    assert logits is OUTPUT[0] is OUTPUT.logits
    assert taps is OUTPUT[-1] is OUTPUT.taps
    assert OUTPUT[:] == (logits, taps)
    assert not hasattr(OUTPUT, "argmax")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 3, 33, 33)), "pass a tensor of normalised floats (B, 3, H, W)"),
        (torch.zeros(1, 3, 33, 33, dtype=torch.uint8), "images: found torch.uint8 (1, 3, 33, 33)"),
        (torch.zeros(3, 33, 33), "images: found torch.float32 (3, 33, 33)"),
        (torch.zeros(1, 33, 33, 3), "images: found torch.float32 (1, 33, 33, 3)"),
        ("photo.jpg", "images: found <class 'str'>"),
    ],
)
def test_a_network_wants_images(images: Any, message: str, deeplab: DeepLabV3Plus) -> None:
    refused(lambda: deeplab(images), message)


@pytest.mark.parametrize(
    ("taps", "message"),
    [
        ([Tap("encodr")], "no such tap in this network: Tap(layer='encodr', point='pre_relu')"),
        ([Tap("encoder", "relu")], "pre_relu, post_relu"),  # type: ignore[arg-type]
        ([Tap("encoder", "refined")], "refined needs a network with attention=Attention()"),
        (["encoder"], "pass a list of Tap(layer, point), layer: stage1, stage2"),
        (Tap("encoder"), "network: 'encoder', 'pre_relu'; pass a list"),
    ],
)
def test_a_network_names_its_taps(taps: Any, message: str, deeplab: DeepLabV3Plus) -> None:
    refused(lambda: deeplab(torch.zeros(1, 3, 33, 33), taps=taps), message)


NAMES = discovery.names("distillers")


@pytest.mark.parametrize("name", NAMES)
def test_networks_describe_themselves(name: str) -> None:
    student, teacher = tiny_student(), tiny_teacher()
    torch.manual_seed(0)
    by_network = distiller(name, student, teacher)
    torch.manual_seed(0)
    by_info = distiller(name, student.info, teacher.info)
    assert by_network.state_dict().keys() == by_info.state_dict().keys()
    for key, value in by_info.state_dict().items():
        assert torch.equal(value, by_network.state_dict()[key])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("role", ["student", "teacher"])
@pytest.mark.parametrize("wrong", [None, "resnet18", DeepLabV3Plus, nn.Conv2d(3, 3, 1), {"encoder": 4}])
def test_what_describes_no_network(name: str, role: str, wrong: Any) -> None:
    pair = {"student": tiny_student(), "teacher": tiny_teacher(), role: wrong}
    refused(lambda: distiller(name, **pair), f"{role}: found ")
    refused(lambda: distiller(name, **pair), "pass a network with the attribute `info`")


@pytest.mark.parametrize(
    "name", [name for name in NAMES if "layers" in component("distillers", name).Config.model_fields]
)
@pytest.mark.parametrize("role", ["student", "teacher"])
def test_layers_that_are_not_described(name: str, role: str) -> None:
    pair = {
        "student": tiny_student(),
        "teacher": tiny_teacher(),
        role: NetInfo(channels={"layer4": 8}, classes=3),
    }
    refused(lambda: distiller(name, **pair), f"{role}: NetInfo.channels has layer4; this method reads ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("atnfd", INFO, INFO), "unknown name 'atnfd'; did you mean 'attnfd'?"),
        ((AttnFD, INFO, INFO), "unknown name <class"),
    ],
)
def test_unknown_methods(arguments: Any, message: str) -> None:
    refused(lambda: distiller(*arguments), message)


@pytest.mark.parametrize("config", [{"weight": 3}, KD.Config(), AttnFD.Config, 3])
def test_a_config_of_another_kind(config: Any) -> None:
    refused(lambda: AttnFD(INFO, INFO, config), "pass AttnFD.Config(weight=…), or None")


@pytest.mark.parametrize("name", NAMES)
class TestCalls:
    """Calls of a distiller with missing or wrong arguments; only what it reads must be given."""

    def parts(self, name: str) -> tuple[Any, Output, Output]:
        student, teacher = tiny_student(), tiny_teacher()
        made = distiller(name, student, teacher)
        return made, student(IMAGES, made.student_taps), teacher(IMAGES, made.teacher_taps)

    def test_tensors_in_place_of_outputs(self, name: str) -> None:
        made, learned, taught = self.parts(name)
        refused(lambda: made(learned.logits, taught, TARGET, 0), "student: found Tensor; pass the Output of")
        refused(lambda: made(learned, taught.logits, TARGET, 0), "teacher: found Tensor; pass the Output of")

    def test_missing_taps(self, name: str) -> None:
        made, learned, taught = self.parts(name)
        for role, outputs in (
            ("student", (learned._replace(taps={}), taught)),
            ("teacher", (learned, taught._replace(taps={}))),
        ):
            if getattr(made, f"{role}_taps"):
                call = f"is missing; pass the Output of {role}(images, taps=distiller.{role}_taps)"
                refused(lambda outputs=outputs: made(*outputs, TARGET, 0), call)  # type: ignore[misc]
            else:
                made(*outputs, TARGET, 0)

    def test_missing_logits(self, name: str) -> None:
        made, learned, taught = self.parts(name)
        silent = taught._replace(logits=None)
        if made.teacher_logits:
            refused(lambda: made(learned, silent, TARGET, 0), "teacher: found logits None; pass the Output")
        else:
            made(learned, silent, TARGET, 0)

    def test_other_channels_than_described(self, name: str) -> None:
        made, learned, taught = self.parts(name)
        other = {tap: torch.zeros(3, 77, 4, 4) for tap in learned.taps}
        if made.student_taps:
            refused(
                lambda: made(learned._replace(taps=other), taught, TARGET, 0),
                "has the shape (3, 77, 4, 4); its NetInfo says (B, ",
            )

    def test_targets_and_progress(self, name: str) -> None:
        made, learned, taught = self.parts(name)
        for target, found in (
            (None, "NoneType"),
            (TARGET[0], "(16, 16)"),
            (TARGET[:, None], "(3, 1, 16, 16)"),
        ):
            refused(
                lambda target=target: made(learned, taught, target, 0),  # type: ignore[misc]
                f"target: found {found}; pass a tensor of labels (B, H, W)",
            )
        refused(lambda: made(learned, taught, TARGET, 3), "progress: found 3; allowed: 0 to 1")


def test_losses_take_their_tensors_by_name() -> None:
    tensor = torch.zeros(1, 3, 2, 2)
    target = torch.zeros(1, 2, 2, dtype=torch.long)
    assert kd_loss(student=tensor, teacher=tensor, target=target, temperature=1) == 0
    assert attnfd_loss(student=tensor, teacher=tensor, normalize="batch") == 0


def test_a_folder_may_be_a_string(tmp_path: Path, deeplab: DeepLabV3Plus) -> None:
    folder = str(tmp_path / "model")
    checkpoint.save(folder, deeplab, {})
    assert checkpoint.load(folder)[1]["sha256"] == checkpoint.fingerprint(folder)
    assert weight_file.read(f"{folder}/model.safetensors").keys() == deeplab.state_dict().keys()
    refused(lambda: checkpoint.load(str(tmp_path)), "card.json: cannot be read")


def test_a_file_may_be_a_string(tmp_path: Path) -> None:
    from PIL import Image

    file = str(tmp_path / "image.png")
    Image.fromarray(np.full((2, 3), 7, np.uint8)).save(file)
    assert decode_image(file).shape == (2, 3, 3)
    assert decode_mask(file).tolist() == [[7] * 3] * 2
    assert orientation(file) == 1
    assert decode_mask(BytesIO(Path(file).read_bytes())).tolist() == [[7] * 3] * 2


def test_the_version_is_that_of_the_package() -> None:
    assert attnfd.__version__ == "0.1.0"
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert 'version = {attr = "attnfd.__version__"}' in text


def test_every_name_of_the_library_has_help() -> None:
    for name in attnfd.__all__:
        assert inspect.getdoc(getattr(attnfd, name)), name
    assert import_module("attnfd.results") is attnfd.results
