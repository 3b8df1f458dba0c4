"""Single stages: what they refuse, and the way of an imported teacher."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from attnfd import paths
from attnfd.config.params import Params, load_params
from attnfd.config.schema import LAYERS
from attnfd.config.task import Task
from attnfd.errors import UserError
from attnfd.models import checkpoint, frozen
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.paths import Cell
from attnfd.teachers.imported import import_teacher
from attnfd.training.checkpoints import Checkpoints
from stages.evaluate import evaluate
from stages.freeze import freeze
from stages.prepare import prepare
from stages.train_teacher import train_teacher
from tests import miniature, tasks


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A prepared dataset and a trained teacher, as `train_teacher` writes it."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_bytes((miniature.PROJECT / "params.yaml").read_bytes())
    miniature.change(tmp_path, {"recipes": {"shapes": miniature.SHAPES}})
    params = load_params()
    prepare(tasks.of(params, "shapes"))
    teacher = params.train_teacher("shapes")
    model = DeepLabV3Plus(teacher.backbone, 8, attention=teacher.attention)
    with torch.no_grad():
        model(torch.randn(4, 3, 33, 33))  # other BN statistics than the initial ones
    checkpoint.save(Cell(stage="train_teacher", dataset="shapes").model, model, {"val_miou": 0.5})
    return params


def test_freeze_writes_a_teacher_with_margins_and_without_gradients(params: Params) -> None:
    freeze(tasks.of(params, "shapes"))
    model, card = checkpoint.load(paths.frozen("shapes"))
    assert card["val_miou"] == 0.5
    assert set(card["taps"]) == {"backbone", "encoder", "decoder"}
    assert card["taps"]["encoder"] == [256, 2, 2]
    assert card["source_sha256"] == checkpoint.fingerprint(paths.Cell(stage="", dataset="shapes").model)
    assert model.info.margins is not None
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())


def test_freeze_refuses_a_teacher_that_computes_something_else(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold = frozen.freeze

    def wrong(model: DeepLabV3Plus) -> DeepLabV3Plus:
        folded = fold(model)
        folded.aspp.get_parameter(next(name for name, _ in folded.aspp.named_parameters())).mul_(1.01)
        return folded

    monkeypatch.setattr(frozen, "freeze", wrong)
    with pytest.raises(UserError, match=r"differ by .* freeze\.tolerance = 1\.0e-04; nothing was written"):
        freeze(tasks.of(params, "shapes"))
    assert not paths.frozen("shapes").exists()


def test_evaluate_refuses_a_student_with_other_classes(params: Params) -> None:
    cell = Cell(stage="distill", dataset="shapes", student="mobilenetv2", method="none", seed=0)
    checkpoint.save(cell.model, DeepLabV3Plus("mobilenetv2", 5), {})
    with pytest.raises(UserError, match="mobilenetv2/none/0: has 5 classes, shapes has 8"):
        evaluate([Task(params, cell)])


class Curves:
    """A log that keeps everything."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, int], float] = {}

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.seen |= {(key, step): value for key, value in values.items()}

    def flush(self) -> None:
        pass


def importing(tmp_path: Path, checkpoint: str, **changes: Any) -> Params:
    teacher = {**miniature.SHAPES["train_teacher"], "checkpoint": checkpoint, **changes}
    miniature.change(tmp_path, {"recipes": {"shapes": {"train_teacher": teacher}}})
    return load_params()


TEACHER = Cell(stage="train_teacher", dataset="shapes")
FRESH = Checkpoints(Path("none"))


def save_student(folder: str) -> DeepLabV3Plus:
    """A network without attention, with random BN statistics."""
    torch.manual_seed(0)
    model = DeepLabV3Plus("resnet18", 8)
    with torch.no_grad():
        model(torch.randn(4, 3, 33, 33))
    checkpoint.save(Path(folder), model, {})
    return checkpoint.load(Path(folder))[0]


def test_an_imported_teacher_is_taken_as_it_is(params: Params, tmp_path: Path) -> None:
    before = checkpoint.load(TEACHER.model)[0].state_dict()
    TEACHER.model.rename("elsewhere")
    log = Curves()
    train_teacher([Task(importing(tmp_path, "elsewhere"), TEACHER, log, FRESH)])
    after, card = checkpoint.load(TEACHER.model)
    assert all(torch.equal(value, before[key]) for key, value in after.state_dict().items())
    assert card["imported_sha256"] == checkpoint.fingerprint(Path("elsewhere"))
    history = pd.read_csv(TEACHER.model / paths.HISTORY)
    assert history["epoch"].tolist() == [0]
    assert card["val_miou"] == history["miou"][0] == log.seen["epoch/miou", 0]
    assert card["attention"] == dict.fromkeys(LAYERS, "in the path, from the checkpoint")
    freeze(tasks.of(params, "shapes"))


def test_a_teacher_trained_at_output_stride_8_is_reported(
    params: Params, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Weights do not contain their stride, so the import works; the file's score shows the difference."""
    checkpoint.save(Path("elsewhere"), checkpoint.load(TEACHER.model)[0], {"val_miou": 0.95})
    train_teacher([Task(importing(tmp_path, "elsewhere"), TEACHER, Curves(), FRESH)])
    (line,) = (record.getMessage() for record in caplog.records)
    assert "but 95.0 % according to its file; perhaps it was trained at an output stride" in line


def test_only_new_attention_of_an_imported_teacher_is_fitted(params: Params, tmp_path: Path) -> None:
    student = save_student("elsewhere")
    train_teacher([Task(importing(tmp_path, "elsewhere", fit_epochs=2), TEACHER, Curves(), FRESH)])
    after, card = checkpoint.load(TEACHER.model)
    came = import_teacher(load_params().train_teacher("shapes"), 8).model.state_dict()
    moved = {key for key, value in after.state_dict().items() if not torch.equal(value, came[key])}
    assert {key.split(".")[1] for key in moved} == {"backbone", "encoder", "decoder"}
    assert {key.split(".")[0] for key in moved} == {"attention"}
    assert any(key.endswith("spatial.bn.running_var") for key in moved)
    history = pd.read_csv(TEACHER.model / paths.HISTORY)
    assert history["epoch"].tolist() == [0, 1, 2]
    assert history["ce"].isna().tolist() == [True, False, False]
    assert card["val_miou"] == history["miou"][1:].max()
    assert card["attention"] == dict.fromkeys(LAYERS, "in the path, fitted alone")
    assert student.architecture.attention is None


@pytest.mark.parametrize(
    ("changes", "attention"),
    [
        ({"fit_epochs": 0}, "in the path, untrained"),
        ({"attention": {"learned": False}}, "beside the path, without weights"),
    ],
)
def test_an_imported_teacher_without_a_fit(
    changes: dict[str, Any], attention: str, params: Params, tmp_path: Path
) -> None:
    student = save_student("elsewhere")
    train_teacher([Task(importing(tmp_path, "elsewhere", **changes), TEACHER, Curves(), FRESH)])
    after, card = checkpoint.load(TEACHER.model)
    images = torch.randn(2, 3, 33, 33)
    assert torch.equal(after(images).logits, student(images).logits)
    assert card["attention"] == dict.fromkeys(LAYERS, attention)
    assert pd.read_csv(TEACHER.model / paths.HISTORY)["epoch"].tolist() == [0]
    freeze(tasks.of(params, "shapes"))
    frozen_card = checkpoint.load(paths.frozen("shapes"))[1]
    assert frozen_card["attention"] == card["attention"]
    gates = 3 * (attention == "in the path, untrained")
    # 20 in the backbone, 6 in the ASPP, 3 in the decoder.
    assert frozen_card["bns"] == {"folded": 29 + gates, "not_folded": []}
