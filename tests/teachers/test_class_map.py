"""A teacher with other classes teaches the dataset's: several are merged into one, some are dropped."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attnfd.config.network import Attention
from attnfd.config.params import load_params
from attnfd.config.schema import TrainTeacher
from attnfd.config.section import validate
from attnfd.data.transforms import normalize
from attnfd.deploy import export
from attnfd.distillers.base import distiller
from attnfd.errors import UserError
from attnfd.evaluation.inference import confusion
from attnfd.models import checkpoint
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.frozen import compare, freeze
from attnfd.models.network import merge_classes
from attnfd.models.taps import Output, Tap
from attnfd.teachers import class_map
from attnfd.teachers.imported import check_teacher, import_teacher
from attnfd.teachers.imported import compare as compare_claims
from tests.distillers.helpers import PARAMS
from tests.networks import zoo

CITYSCAPES = [
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
    "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
]  # fmt: skip
DATASET = ["ground", "sky", "thing"]
MAP = {
    "road": "ground", "sidewalk": "ground", "terrain": "ground", "sky": "sky", "car": "thing", "bus": "thing",
}  # fmt: skip
NUMBERS = ((0, 1, 9), (10,), (13, 15))


def settings(file: Path, **changes: Any) -> TrainTeacher:
    shipped = load_params(PARAMS).train_teacher("shapes").model_dump(mode="json")
    own = {"backbone": "resnet18", "checkpoint": str(file), "classes": CITYSCAPES, "class_map": MAP}
    return validate(TrainTeacher, {**shipped, **own, **changes}, "train_teacher")


def of_19() -> Tensor:
    """Logits of one pixel with the probabilities 1/190 to 19/190."""
    return (torch.arange(1.0, 20) / 190).log().view(1, 19, 1, 1) + 5


def test_probabilities_of_several_are_added() -> None:
    merged = merge_classes(of_19(), NUMBERS).flatten()
    # In 190ths: 1 + 2 + 10, 11, and 14 + 16. The other classes are dropped.
    expected = torch.tensor([13 / 190, 11 / 190, 30 / 190]).log()
    torch.testing.assert_close(merged, expected, rtol=1e-6, atol=1e-6)
    assert merge_classes(of_19(), None).shape == (1, 19, 1, 1)


def test_probabilities_that_round_to_0_are_added() -> None:
    merged = merge_classes(torch.tensor([0.0, -300.0, -300.0]).view(1, 3, 1, 1), ((0,), (1, 2)))
    torch.testing.assert_close(merged.flatten(), torch.tensor([0.0, math.log(2) - 300]))


def test_logits_of_16_bits_are_added_in_32() -> None:
    merged = merge_classes(of_19().bfloat16(), NUMBERS)
    torch.testing.assert_close(merged, merge_classes(of_19().bfloat16().float(), NUMBERS))


def test_the_methods_on_logits_see_the_classes_of_the_dataset() -> None:
    """KD of a student with uniform probabilities, by hand."""
    taught = Output(merge_classes(of_19(), NUMBERS), {})
    student = Output(torch.zeros(1, 3, 1, 1), {})
    info = DeepLabV3Plus("mobilenetv2", 3).info
    (term,) = distiller("kd", info, info)(
        student, taught, torch.zeros(1, 1, 1, dtype=torch.long), 0.0
    ).values()
    shares = [13 / 54, 11 / 54, 30 / 54]
    assert term.item() == pytest.approx(sum(share * math.log(3 * share) for share in shares), rel=1e-5)


class Cityscapes(nn.Module):
    """The red value of a pixel is its class; the network has only one weight."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))
        self.register_buffer("centres", torch.arange(classes) * 1.0)

    def forward(self, images: Tensor) -> Tensor:
        red = (images[:, :1] * 0.229 + 0.485) * 255
        return -self.scale * (red - self.centres.view(1, -1, 1, 1)).square()


zoo.by_red = Cityscapes  # type: ignore[attr-defined]


@pytest.fixture
def by_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainTeacher:
    monkeypatch.setattr("attnfd.networks.module.FOLDER", "tests.networks")
    torch.save(Cityscapes(19).state_dict(), tmp_path / "red.pth")
    return settings(tmp_path / "red.pth", network="module", build="tests.networks.zoo:by_red", backbone=None)


def test_evaluation_is_of_the_classes_of_the_dataset(by_red: TrainTeacher) -> None:
    check_teacher(by_red, 3, DATASET)
    model = import_teacher(by_red, 3, DATASET).model
    assert model.info.classes == 3
    # Road, terrain, sky, car, bus, and last a building: the closest classes that are kept map to road's.
    red = torch.tensor([[0, 9, 10, 13], [15, 1, 10, 2]], dtype=torch.uint8)
    images = torch.stack([red, torch.zeros_like(red), torch.zeros_like(red)])[None]
    masks = torch.tensor([[[0, 0, 1, 2], [2, 0, 0, 0]]], dtype=torch.uint8)
    (matrix,) = confusion(model, [(images, masks, torch.tensor([0]))], 3, device="cpu")
    assert matrix.tolist() == [[4, 1, 0], [0, 1, 0], [0, 0, 2]]


def test_a_mapped_teacher_is_frozen_saved_and_loaded(tmp_path: Path) -> None:
    """Its features are those of the network, whatever its logits are."""
    torch.manual_seed(0)
    plain = DeepLabV3Plus("resnet18", 19, attention=Attention()).eval()
    checkpoint.save(tmp_path, plain, {"classes": CITYSCAPES})
    model = import_teacher(settings(tmp_path), 3, DATASET).model
    images = torch.randn(2, 3, 49, 65)
    taps = [Tap("encoder"), Tap("decoder", "refined")]
    with torch.no_grad():
        a, b = plain(images, taps), model(images, taps)
    assert a.logits is not None
    assert torch.equal(b.logits, merge_classes(a.logits, NUMBERS))
    assert all(torch.equal(a.taps[tap], b.taps[tap]) for tap in taps)
    frozen = freeze(model)
    assert max(compare(model, frozen, images).values()) < 1e-4
    checkpoint.save(tmp_path / "frozen", frozen, {})
    loaded, card = checkpoint.load(tmp_path / "frozen")
    assert card["architecture"]["class_map"] == [[0, 1, 9], [10], [13, 15]]
    assert loaded.info.classes == 3
    assert torch.equal(loaded(images).logits, frozen.to(memory_format=torch.channels_last)(images).logits)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_map": MAP | {"raod": "ground"}}, r"class_map: unknown name 'raod'; did you mean 'road'"),
        (
            {"class_map": MAP | {"road": "gruond"}},
            r"class_map\.road: unknown name 'gruond'; did you mean 'ground'\? allowed: ground, sky, thing$",
        ),
        (
            {"class_map": {key: value for key, value in MAP.items() if value != "sky"}},
            "class_map: found no class of the teacher for 'sky' of the dataset; map one or several to it",
        ),
        ({"classes": [*CITYSCAPES[:-1], "road"]}, r"train_teacher\.classes: found 'road' twice"),
        ({"classes": None}, r"train_teacher\.classes: missing; give both classes and class_map, or neither"),
        (
            {"class_map": None},
            r"train_teacher\.class_map: missing; give both classes and class_map, or neither",
        ),
        (
            {"checkpoint": None},
            r"train_teacher\.class_map: found without a checkpoint; allowed: only with one",
        ),
        ({"class_map": {"road": 1}}, r"train_teacher\.class_map\.road: found 1; allowed: string"),
        ({"class_map": {}}, r"train_teacher\.class_map: found \{\}; allowed: .*at least 1"),
        (
            {"classes": [*CITYSCAPES, "caravan"]},
            r"teacher: has 19 classes, train_teacher\.classes names 20; name each once",
        ),
    ],
)
def test_a_map_that_does_not_fit_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "teacher", DeepLabV3Plus("resnet18", 19), {})
    with pytest.raises(UserError, match=message) as caught:
        check_teacher(settings(tmp_path / "teacher", **changes), 3, DATASET)
    assert "\n" not in str(caught.value)


def test_a_card_that_names_other_classes_is_refused(tmp_path: Path) -> None:
    model = DeepLabV3Plus("resnet18", 19)
    checkpoint.save(tmp_path, model, {"classes": ["void", *CITYSCAPES[1:]]})
    with pytest.raises(
        UserError,
        match=r"model\.safetensors: has the classes void, sidewalk, .*; use these names in train_teacher",
    ):
        check_teacher(settings(tmp_path), 3, DATASET)
    model.architecture = model.architecture.model_copy(update={"class_map": NUMBERS})
    checkpoint.save(tmp_path, model, {"classes": CITYSCAPES})
    with pytest.raises(UserError, match=r"class_map: .*model\.safetensors already has a class map"):
        check_teacher(settings(tmp_path), 3, DATASET)


def test_a_card_with_a_class_beyond_the_network_is_refused(tmp_path: Path) -> None:
    model = DeepLabV3Plus("resnet18", 2)
    model.architecture = model.architecture.model_copy(update={"class_map": ((0,), (2,))})
    checkpoint.save(tmp_path, model, {})
    with pytest.raises(UserError, match=r"architecture\.class_map: found 2; allowed: less than classes, 2"):
        checkpoint.load(tmp_path)


def test_a_score_for_other_classes_is_not_compared(
    by_red: TrainTeacher, caplog: pytest.LogCaptureFixture
) -> None:
    compare_claims(by_red, DATASET, 0.1)
    assert not caplog.records


def test_without_a_map_nothing_is_asked() -> None:
    assert class_map.numbers(load_params(PARAMS).train_teacher("shapes"), []) is None


@pytest.mark.slow
def test_a_mapped_network_is_exported(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    model = DeepLabV3Plus("mobilenetv2", 19, class_map=NUMBERS).eval()
    export.write(model, "onnx", tmp_path / "network.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 97, 131, 3), dtype=np.uint8)
    classes, logits = export.RUNNERS["onnx"](tmp_path / "network.onnx")(pixels)
    with torch.no_grad():
        expected = model(normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))).logits
    assert expected is not None
    assert expected.shape == (2, 3, 97, 131)
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-3)
    assert (classes == expected.argmax(1).numpy()).mean() > 0.999
