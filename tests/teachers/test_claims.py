"""What a teacher's file says about it is compared with the values measured here."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attnfd import paths
from attnfd.errors import UserError
from attnfd.models import weight_file
from attnfd.teachers import claims
from attnfd.teachers.imported import CLASSIFIER, check_teacher, import_teacher
from tests.teachers.test_imported import published, settings

CLASSES = ("sky", "sea")


def saved(file: Path, **beside: Any) -> Path:
    torch.save({"state_dict": published().state_dict(), "epoch": 4, **beside}, file)
    return file


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    "value", [0.25, np.float64(0.25), np.float32(0.25), np.float16(0.25), torch.tensor([0.25])]
)
def test_numbers_are_read_without_running_code(value: Any, tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "best_pred": value}, tmp_path / "teacher.pth")
    assert weight_file.number(weight_file.beside(tmp_path / "teacher.pth")["best_pred"]) == 0.25


@pytest.mark.parametrize("value", [None, "0.25", [0.25], torch.zeros(2), np.complex64(1), weight_file.Part()])
def test_anything_else_is_no_number(value: Any, tmp_path: Path) -> None:
    if not isinstance(value, weight_file.Part):
        torch.save({"state_dict": {}, "best_pred": value}, tmp_path / "teacher.pth")
        value = weight_file.beside(tmp_path / "teacher.pth")["best_pred"]
    assert weight_file.number(value) is None


@pytest.mark.parametrize(
    ("beside", "key"),
    [
        ({"output_stride": 8}, "output_stride"),
        ({"out_stride": np.int64(8)}, "out_stride"),
        ({"args": {"model": {"output_stride": 8}}}, "output_stride"),
    ],
)
def test_another_output_stride_is_refused(beside: dict[str, Any], key: str, tmp_path: Path) -> None:
    file = saved(tmp_path / "teacher.pth.tar", **beside)
    with pytest.raises(UserError, match=rf"teacher\.pth\.tar: {key} is 8; allowed: 16, .*trained at 16$"):
        check_teacher(settings(file))


def test_the_output_stride_of_ours_is_taken(tmp_path: Path) -> None:
    check_teacher(settings(saved(tmp_path / "teacher.pth.tar", args={"out_stride": 16})))
    file = saved(tmp_path / "teacher.pth.tar", args={"out_stride": 8})
    check_teacher(settings(file, output_stride=8))
    model, _ = import_teacher(settings(file, output_stride=8), len(published().state_dict()[CLASSIFIER]))
    assert model.architecture.output_stride == 8


@pytest.mark.parametrize("claimed", [0.785, np.float64(0.785), 78.5])
def test_a_score_far_below_the_claim_is_reported(
    claimed: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = saved(tmp_path / "teacher.pth.tar", best_pred=claimed)
    claims.compare(file, CLASSES, 0.76, 16)
    assert not caplog.records
    claims.compare(file, CLASSES, 0.75, 16)
    (line,) = said(caplog)
    assert "the teacher has mIoU 75.0 % here, but 78.5 % according to its file" in line
    assert "at an output stride other than 16" in line


@pytest.mark.parametrize("beside", [{}, {"best_pred": 0.0}, {"best_pred": "high"}, {"miou": -1}])
def test_without_a_claim_the_score_is_reported(
    beside: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    claims.compare(saved(tmp_path / "teacher.pth", **beside), CLASSES, 0.75, 16)
    (line,) = said(caplog)
    assert "the teacher has mIoU 75.0 % here, and its file contains no score" in line


def test_the_card_of_ours_names_score_and_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    card = {"val_miou": 0.5, "classes": ["sky", "sea"]}
    (tmp_path / paths.CARD).write_text(json.dumps(card))
    claims.compare(tmp_path / paths.MODEL, CLASSES, 0.5, 16)
    assert not caplog.records
    claims.compare(tmp_path / paths.MODEL, ("sea", "sky"), 0.25, 16)
    classes, score = said(caplog)
    assert "class 0 is 'sky' in the teacher and 'sea' in the dataset" in classes
    assert "mIoU 25.0 % here, but 50.0 % according to its file" in score
