"""Requirements for every kind of network, with three teachers that users bring."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from attnfd import discovery
from attnfd.config.network import Attention, NetworkConfig
from attnfd.config.params import Params, load_params
from attnfd.config.schema import Student, TrainTeacher
from attnfd.config.section import validate
from attnfd.data.transforms import normalize
from attnfd.deploy import export
from attnfd.deploy.source import open_model
from attnfd.distillers.base import distiller
from attnfd.errors import UserError
from attnfd.models import checkpoint
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.frozen import bns, compare, freeze
from attnfd.models.network import Network
from attnfd.models.tapped import Tapped
from attnfd.models.taps import Tap
from attnfd.networks import module
from attnfd.networks.base import kind_of, make_network
from attnfd.runtime import processes
from attnfd.students.student import check_layers
from attnfd.teachers.imported import check_teacher, import_teacher
from tests.deploy.conftest import LEGEND
from tests.distillers.helpers import PARAMS

CLASSES = 5
NAMES = tuple("abcde")
PALETTE = tuple((number, 0, 0) for number in range(CLASSES))
ZOO = "tests.networks.zoo"
NETWORKS: dict[str, dict[str, Any]] = {
    "deeplab": {"backbone": "mobilenetv2"},
    "timm": {"backbone": "timm:mobilenetv4_conv_small"},
    "segformer": {"network": "smp", "architecture": "Segformer", "encoder": "mit_b0"},
    "smp deeplab": {"network": "smp", "architecture": "DeepLabV3Plus", "encoder": "resnet18"},
    "upernet": {"network": "smp", "architecture": "UPerNet", "encoder": "resnet18"},
    "fpn": {"network": "smp", "architecture": "FPN", "encoder": "tu-mobilenetv4_conv_small"},
    "torchvision": {
        "network": "module",
        "build": f"{ZOO}:torchvision_deeplab",
        "taps": {"backbone": "backbone.layer4", "encoder": "classifier.0", "decoder": "classifier.3"},
    },
    "hugging face": {
        "network": "module",
        "build": f"{ZOO}:hugging_face_segformer",
        "taps": {
            "backbone": "segformer.stages.3",
            "encoder": "decode_head.batch_norm",
            "decoder": "decode_head.activation",
        },
    },
}
EXTRA = {"timm": "timm", "smp": "segmentation_models_pytorch", "hugging face": "transformers"}


@pytest.fixture(autouse=True)
def _networks_of_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FOLDER", "tests.networks")


def needs(name: str) -> None:
    """Skip the test if the library of this network is not installed."""
    for package in (name, str(NETWORKS[name].get("network"))):
        if package in EXTRA:
            pytest.importorskip(EXTRA[package])


def config(name: str) -> NetworkConfig:
    needs(name)
    return validate(Student, NETWORKS[name], name)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 49, 70, generator=torch.Generator().manual_seed(2))


def trained(name: str, images: Tensor, attention: Attention | None = None) -> Network:
    torch.manual_seed(0)
    network = make_network(config(name), CLASSES, attention=attention).train()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
        for _ in range(2):
            network(images)
    return network.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_and_taps(name: str, images: Tensor) -> None:
    network = trained(name, images)
    assert {"backbone", "encoder", "decoder"} <= set(network.info.channels)
    taps = [Tap(layer, point) for layer in network.info.channels for point in ("pre_relu", "post_relu")]
    with torch.no_grad():
        logits, kept = network(images, taps)
        alone = network(images).logits
    assert logits.shape == (2, CLASSES, 49, 70)
    assert torch.equal(logits, alone)
    for tap, feature in kept.items():
        assert feature.shape[:2] == (2, network.info.channels[tap.layer])
        assert feature.ndim == 4
    assert network(images, taps, logits=False).logits is None
    with pytest.raises(
        ValueError, match=r"no such tap in this network: .*layer: .*backbone, encoder, decoder"
    ):
        network(images, [Tap("roof")])  # type: ignore[list-item]


LAYERS = {
    "deeplab": {"backbone": (320, 16), "encoder": (256, 16), "decoder": (256, 4)},
    "timm": {"backbone": (960, 16), "encoder": (256, 16), "decoder": (256, 4)},
    "segformer": {"backbone": (256, 32), "encoder": (256, 32), "decoder": (256, 4)},
    "smp deeplab": {"backbone": (512, 16), "encoder": (256, 16), "decoder": (256, 4)},
    "upernet": {"backbone": (512, 32), "encoder": (256, 32), "decoder": (256, 4)},
    "fpn": {"backbone": (960, 32), "encoder": (256, 32), "decoder": (128, 4)},
    "torchvision": {"backbone": (2048, 8), "encoder": (256, 8), "decoder": (256, 8)},
    "hugging face": {"backbone": (32, 32), "encoder": (32, 4), "decoder": (32, 4)},
}
"""Channels and stride of the maps, as the papers and the libraries have them."""


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_and_strides(name: str) -> None:
    network = make_network(config(name), CLASSES).eval()
    taps = [Tap(layer) for layer in LAYERS[name]]  # type: ignore[arg-type]
    with torch.no_grad():
        kept = network(torch.zeros(1, 3, 64, 128), taps, logits=False).taps
    assert {tap.layer: (network.info.channels[tap.layer], 64 // kept[tap].shape[2]) for tap in taps} == (
        LAYERS[name]
    )
    for tap in taps:
        assert kept[tap].shape[3] == 2 * kept[tap].shape[2]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_saved_model_predicts(name: str, images: Tensor, tmp_path: Path) -> None:
    """An image whose sides are not multiples of the stride, and one with a side below the stride."""
    network = trained(name, images)
    checkpoint.save(
        tmp_path, network, LEGEND.model_copy(update={"classes": NAMES, "palette": PALETTE}).model_dump()
    )
    model = open_model(tmp_path)
    for size in ((49, 70), (31, 97)):
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        with torch.no_grad():
            logits = network(normalize(torch.from_numpy(image).permute(2, 0, 1)[None])).logits
        found = model.predict(image).classes
        assert found.shape == size
        assert (found == logits.argmax(1)[0].numpy()).mean() > 0.999


@pytest.mark.parametrize("name", NETWORKS)
def test_frozen_equals_live_saved_and_loaded(name: str, images: Tensor, tmp_path: Path) -> None:
    live = trained(name, images, Attention())
    frozen = freeze(live)
    assert max(compare(live, frozen, images).values()) < 1e-4
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert bns(live)
    assert bns(frozen) == []
    if isinstance(frozen, Tapped):
        assert frozen.architecture.folded
    for model in (live, frozen):
        checkpoint.save(tmp_path, model, {})
        loaded, card = checkpoint.load(tmp_path)
        model.to(memory_format=torch.channels_last)
        assert torch.equal(loaded(images).logits, model(images).logits)
        assert card["frozen"] is (model is frozen)
        assert loaded.architecture == model.architecture


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_of_attnfd_trains_all_that_is_used(name: str, images: Tensor) -> None:
    teacher, student = freeze(trained("deeplab", images, Attention())), trained(name, images).train()
    method = distiller("attnfd", student.info, teacher.info)
    target = torch.zeros(2, 49, 70, dtype=torch.long)
    terms = method(student(images, method.student_taps), teacher(images, method.teacher_taps), target, 0.0)
    sum(terms.values()).backward()
    grads = [parameter.grad for parameter in student.pretrained.parameters()]
    assert sum(grad is not None and bool(grad.abs().sum() > 0) for grad in grads) > len(grads) / 2


def test_the_default_has_the_same_bits() -> None:
    torch.manual_seed(0)
    made = make_network(validate(Student, {"backbone": "resnet18", "dropout": [0.5, 0.1]}, "s"), CLASSES)
    torch.manual_seed(0)
    plain = DeepLabV3Plus("resnet18", CLASSES, dropout=(0.5, 0.1))
    assert made.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(made.state_dict()[key], value) for key, value in plain.state_dict().items())
    assert torch.get_rng_state() is not None
    drawn = torch.rand(1)
    torch.manual_seed(0)
    DeepLabV3Plus("resnet18", CLASSES, dropout=(0.5, 0.1))
    assert torch.equal(torch.rand(1), drawn)


def parameters(name: str, classes: int) -> int:
    return sum(parameter.numel() for parameter in make_network(config(name), classes).parameters())


def test_published_number_of_parameters() -> None:
    """For DeepLabV3+ on the paper's backbones, see tests/models/test_deeplab.py."""
    # Xie et al. 2021, SegFormer, table 1: B0 has 3.8 M with the 150 classes of ADE20K, 257 for each class.
    assert round(parameters("segformer", 19) / 1e6, 1) == 3.7
    assert round(parameters("segformer", 150) / 1e6, 1) == 3.8
    assert parameters("segformer", 19) == 3_714_144 + 19 * 257
    # torchvision's number includes an auxiliary head: 3 × 3 convolution, BN, and a classifier.
    published = torchvision.models.segmentation.DeepLabV3_ResNet50_Weights.DEFAULT.meta["num_params"]
    assert parameters("torchvision", 21) == published - (9 * 1024 * 256 + 2 * 256 + 21 * 257)
    # For smp's UPerNet only the encoder's number is published: torchvision's ResNet-18 without 1000 classes.
    published = torchvision.models.ResNet18_Weights.DEFAULT.meta["num_params"]
    encoder = make_network(config("upernet"), CLASSES).net.encoder
    assert sum(parameter.numel() for parameter in encoder.parameters()) == published - 1000 * 513


def test_learned_attention_replaces_what_a_module_gives(images: Tensor) -> None:
    plain, refined = trained("torchvision", images), trained("torchvision", images, Attention())
    state = {key: value for key, value in refined.state_dict().items() if key.startswith("net.")}
    plain.load_state_dict(state)
    taps = [Tap("decoder"), Tap("decoder", "refined"), Tap("backbone", "refined")]
    with torch.no_grad():
        _, kept = refined(images, taps)
        assert torch.equal(kept[taps[1]], refined.attention["decoder"](kept[taps[0]]))
        assert not torch.allclose(refined(images).logits, plain(images).logits)
    refined.train()(images).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in refined.attention.parameters())


def test_two_networks_of_other_kinds_distil(images: Tensor) -> None:
    teacher = freeze(trained("upernet", images, Attention()))
    student = trained("hugging face", images).train()
    for name in ("attnfd", "kd", "cwd", "dist", "fitnet"):
        method = distiller(name, student.info, teacher.info)
        with torch.no_grad():
            taught = teacher(images, method.teacher_taps)
        target = torch.zeros(2, 49, 70, dtype=torch.long)
        for term in method(student(images, method.student_taps), taught, target, 0.0).values():
            assert term.isfinite()
            assert term > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"build": "tests.networks.zoo"}, r"build: found 'tests\.networks\.zoo'; allowed: package\.module:"),
        (
            {"build": "tests.networks.zo:tiny"},
            r"build: tests\.networks\.zo: cannot be imported .ModuleNotFound",
        ),
        ({"build": f"{ZOO}:tinny"}, "has no function 'tinny'"),
        ({"build": f"{ZOO}:number"}, "has no function 'number'"),
        ({"build": f"{ZOO}:raises"}, r"raises\(5\) raises RuntimeError: no luck; fix the function"),
        ({"build": f"{ZOO}:returns_text"}, r"returns str; allowed: an nn\.Module"),
        (
            {"build": f"{ZOO}:too_many"},
            "returns logits of 6 classes; allowed: 5, the number of classes that it was built for",
        ),
        ({"build": f"{ZOO}:needs_another_size"}, "cannot segment an image of 64 × 64 pixels"),
        ({"build": f"{ZOO}:gives_features"}, "network: returns Tensor; allowed: logits"),
        (
            {"taps": {"backbone": "body.2"}},
            r"taps\.backbone: found no module 'body\.2'; allowed: names below bod",
        ),
        (
            {"taps": {"encoder": "flat"}},
            r"taps\.encoder: flat returns \[1, 4\]; allowed: .* map \(B, C, H, W\)",
        ),
        ({"taps": {"encoder": "unused"}}, r"taps\.encoder: unused does not run in a forward pass"),
        (
            {"build": f"{ZOO}:overwriting", "taps": {"encoder": "body"}},
            "the output of body is overwritten later",
        ),
    ],
)
def test_what_is_no_network(changes: dict[str, Any], message: str) -> None:
    settings = {"network": "module", "build": f"{ZOO}:tiny", **changes}
    with pytest.raises(UserError, match=message) as caught:
        make_network(validate(Student, settings, "s"), CLASSES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "Segformr"}, "architecture: unknown name 'Segformr'; did you mean 'Segformer'"),
        ({"encoder": "mit_b9"}, "encoder: unknown name 'mit_b9'; did you mean 'mit_b5'"),
        ({"encoder": "tu-resnet19"}, "encoder: tu-: .*unknown name 'resnet19'; did you mean 'resnet1"),
        (
            {"taps": {"encoder": "decoder.x"}},
            r"taps\.encoder: found no module 'decoder\.x'; allowed: names belo",
        ),
    ],
)
def test_what_is_no_network_of_smp(changes: dict[str, Any], message: str) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    settings = {"network": "smp", "architecture": "Segformer", "encoder": "mit_b0", **changes}
    with pytest.raises(UserError, match=message):
        make_network(validate(Student, settings, "s"), CLASSES)


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ({"network": "smp", "encoder": "mit_b0"}, r"students\.new\.architecture: missing; give it a value"),
        ({"network": "module"}, r"students\.new\.build: missing"),
        ({"dropout": [0.5, 0.1]}, r"students\.new\.backbone: missing"),
        (
            {"network": "spm", "backbone": "resnet18"},
            r"students\.new\.network: unknown name 'spm'; did you mean 's",
        ),
        (
            {"network": "module", "build": "a:b", "backbone": "resnet18"},
            r"students\.new\.backbone: found beside network: module; allowed: build, taps",
        ),
    ],
)
def test_settings_that_are_no_network(student: dict[str, Any], message: str) -> None:
    raw = {**load_params(PARAMS).raw}
    raw["students"] = {**raw["students"], "new": student}
    with pytest.raises(UserError, match=message):
        Params(raw)


def test_a_method_whose_layers_are_absent() -> None:
    settings = {"network": "module", "build": f"{ZOO}:tiny", "taps": {"backbone": "body"}}
    info = make_network(validate(Student, settings, "s"), CLASSES).info
    method = discovery.component("distillers", "attnfd").Config()
    with pytest.raises(
        UserError, match=r"methods\.attnfd\.layers: found 'encoder', .* student .*allowed: backbone"
    ):
        check_layers("attnfd", method, student=info, teacher=info)


@pytest.mark.parametrize("name", discovery.names("networks"))
def test_a_kind_is_found_by_its_file(name: str) -> None:
    assert kind_of(name).Architecture.model_fields.keys() >= {"classes", "attention"}


def test_synchronised_bns_keep_their_activation() -> None:
    network = make_network(config("fpn"), CLASSES)
    assert type(network.net.encoder.model.blocks[0][0].bn1).__name__ == "BatchNormAct2d"
    processes.convert_bn(network)
    bn = network.net.encoder.model.blocks[0][0].bn1
    assert isinstance(bn, nn.SyncBatchNorm)
    assert isinstance(bn.act, nn.ReLU)
    assert isinstance(network.net.decoder.seg_blocks, nn.ModuleList)


@pytest.mark.parametrize("name", ["upernet", "torchvision"])
def test_an_imported_teacher_computes_what_it_computed(name: str, images: Tensor, tmp_path: Path) -> None:
    """New attention does not change a bit of the logits, and it learns."""
    plain = trained(name, images)
    torch.save({"state_dict": plain.net.state_dict()}, tmp_path / "teacher.pth")
    shipped = dict(load_params(PARAMS).raw["training"]) | dict(load_params(PARAMS).raw["train_teacher"])
    settings = shipped | NETWORKS[name] | {"checkpoint": str(tmp_path / "teacher.pth")}
    teacher = validate(TrainTeacher, settings, "train_teacher")
    check_teacher(teacher, CLASSES)
    model, new = import_teacher(teacher, CLASSES)
    assert new
    assert model.architecture.gain == 4
    with torch.no_grad():
        logits, taps = model(images, [Tap("encoder"), Tap("encoder", "refined")])
    assert torch.equal(logits, plain(images).logits)
    assert torch.equal(*taps.values())
    model.attention.train()
    model(images).logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.attention.parameters())
    checkpoint.save(tmp_path, model, {})
    again, new = import_teacher(teacher.model_copy(update={"checkpoint": str(tmp_path)}), CLASSES)
    assert not new
    assert torch.equal(again(images).logits, checkpoint.load(tmp_path)[0](images).logits)
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pth")
    other = teacher.model_copy(update={"checkpoint": str(tmp_path / "other.pth")})
    with pytest.raises(UserError, match="not the weights of the network that train_teacher describes"):
        check_teacher(other, CLASSES)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("timm", "torchvision") else pytest.mark.slow)
        for name in NETWORKS
        if name != "upernet"
    ],
)
def test_exported_answers_as_the_network(name: str, images: Tensor, tmp_path: Path) -> None:
    """Other sizes than at the export; their sides are not multiples of the stride."""
    pytest.importorskip("onnxruntime")
    network = trained(name, images)
    file = tmp_path / "network.onnx"
    export.write(network, "onnx", file)
    run = export.RUNNERS["onnx"](file)
    if isinstance(network, Tapped):
        with pytest.raises(UserError, match="allowed: onnx"):
            export.write(network, "torch-export", file)
    for size in ((1, 49, 70, 3), (3, 97, 131, 3)):
        pixels = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
        classes, logits = run(pixels)
        with torch.no_grad():
            expected = network(normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))).logits.numpy()
        assert np.abs(logits - expected).max() < 1e-3 * np.abs(expected).max()
        assert (classes == expected.argmax(1)).mean() > 0.999
