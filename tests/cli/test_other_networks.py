"""Other kinds of networks are built with their classes before a training, without a download."""

from typing import Any

import pytest

from attnfd.cli import weights
from attnfd.config.params import Params, load_params
from attnfd.errors import UserError
from attnfd.networks.smp import Smp
from attnfd.report.names import Names
from tests.distillers.helpers import PARAMS

SEGFORMER = {"network": "smp", "architecture": "Segformer", "encoder": "mit_b0"}
UNET = SEGFORMER | {"architecture": "Unet", "encoder": "resnet18"}


def params_of(student: dict[str, Any], *, weights: str = "none", methods: list[str]) -> Params:
    """The shipped params with one student of another kind, on the dataset shapes."""
    raw = dict(load_params(PARAMS).raw)
    raw["students"] = {**raw["students"], "other": student}
    raw["run"] = {**raw["run"], "datasets": ["shapes"], "students": ["other"], "methods": methods}
    recipe = raw["recipes"]["shapes"]
    distill = {**recipe["distill"], "weights": weights}
    raw["recipes"] = {**raw["recipes"], "shapes": {**recipe, "distill": distill}}
    return Params(raw)


def teacher_of(network: dict[str, Any]) -> Params:
    """The shipped params with a teacher of another kind, on the dataset shapes."""
    raw = dict(load_params(PARAMS).raw)
    raw["run"] = {**raw["run"], "datasets": ["shapes"]}
    raw["train_teacher"] = {**raw["train_teacher"], **network}
    return Params(raw)


def test_each_network_of_another_kind_is_tried_once_for_a_dataset() -> None:
    params = params_of(SEGFORMER, methods=["kd", "attnfd"])
    (other,) = weights.others(params)
    assert other[:3] == ("shapes", "students.other", "student")
    assert other.methods == ("kd", "attnfd")
    assert not {start.backbone for start in weights.wanted(params)} & {"None"}
    (teacher,) = weights.others(teacher_of(SEGFORMER))
    assert teacher[:3] == ("shapes", "train_teacher", "teacher")
    (imported,) = weights.others(teacher_of(SEGFORMER | {"checkpoint": "t.pth", "weights": "imagenet"}))
    assert imported.weights == "none"


def test_a_check_downloads_nothing_and_fetch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    asked: list[str] = []
    build = Smp._build

    def watched(self: Smp, architecture: Any, weights: str) -> Any:
        asked.append(weights)
        return build(self, architecture, "none")

    monkeypatch.setattr(Smp, "_build", watched)
    params = params_of(SEGFORMER, weights="imagenet", methods=["kd", "attnfd"])
    (other,) = weights.others(params)
    printed = weights.check_other(params, other, 5)
    assert printed == "Segformer on mit_b0, weights: imagenet, a download if they are not on this disk"
    assert asked == ["none"]
    monkeypatch.setattr(weights, "wanted", lambda params: [])
    weights.fetch(params)
    assert asked == ["none", "imagenet"]


def test_a_method_that_compares_an_absent_layer_is_refused_where_it_runs() -> None:
    pytest.importorskip("segmentation_models_pytorch")
    params = params_of(UNET, methods=["attnfd"])
    (other,) = weights.others(params)
    with pytest.raises(
        UserError,
        match=r"methods\.attnfd\.layers: found 'encoder', .* the student .* allowed: backbone, decoder",
    ):
        weights.check_other(params, other, 5)
    params = teacher_of(UNET)
    (teacher,) = weights.others(params)
    with pytest.raises(UserError, match=r"found 'encoder', which the teacher does not have"):
        weights.check_other(params, teacher._replace(methods=("attnfd",)), 5)
    with pytest.raises(
        UserError,
        match=r"train_teacher\.network: found smp, whose BNs have no margins; .* methods\.overhaul: deeplab",
    ):
        weights.check_other(params, teacher._replace(methods=("overhaul",)), 5)
    params = params_of(UNET, methods=["kd"])
    (other,) = weights.others(params)
    assert weights.check_other(params, other, 5) == "Unet on resnet18, weights: none"


def test_a_network_that_cannot_be_made_is_refused_by_its_key() -> None:
    params = params_of({"network": "module", "build": "tests.networks.zoo:tiny"}, methods=["kd"])
    (other,) = weights.others(params)
    with pytest.raises(
        UserError,
        match=r"^params\.yaml: students\.other: build: found 'tests\.networks\.zoo:tiny'; allowed: a func",
    ):
        weights.check_other(params, other, 5)


def test_a_report_names_what_a_teacher_is_made_of() -> None:
    assert Names.of(teacher_of(SEGFORMER), "shapes").teacher == "Segformer on mit_b0"
