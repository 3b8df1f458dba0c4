"""Stages on their own: what they refuse."""

from pathlib import Path

import pytest
import torch

from attnfd import config, paths
from attnfd.config import Params
from attnfd.errors import UserError
from attnfd.models import checkpoint, frozen
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.paths import Cell
from stages.evaluate import evaluate
from stages.freeze import freeze
from stages.prepare import prepare
from tests import miniature


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A prepared dataset and a trained teacher, as `train_teacher` leaves it."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_bytes((miniature.PROJECT / "params.yaml").read_bytes())
    miniature.change(tmp_path, {"recipes": {"shapes": miniature.SHAPES}})
    params = config.load()
    prepare(params, "shapes")
    teacher = params.train_teacher("shapes")
    model = DeepLabV3Plus(teacher.backbone, 8, attention=teacher.attention)
    with torch.no_grad():
        model(torch.randn(4, 3, 33, 33))  # BN statistics that are not the initial ones
    checkpoint.save(Cell(stage="train_teacher", dataset="shapes").model, model, {"val_miou": 0.5})
    return params


def test_freeze_writes_a_teacher_with_margins_and_without_gradients(params: Params) -> None:
    freeze(params, "shapes")
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
        freeze(params, "shapes")
    assert not paths.frozen("shapes").exists()


def test_evaluate_refuses_a_student_with_other_classes(params: Params) -> None:
    cell = Cell(stage="distill", dataset="shapes", student="mobilenetv2", method="none", seed=0)
    checkpoint.save(cell.model, DeepLabV3Plus("mobilenetv2", 5), {})
    with pytest.raises(UserError, match="mobilenetv2/none/0: has 5 classes, shapes has 8"):
        evaluate(params, cell)
