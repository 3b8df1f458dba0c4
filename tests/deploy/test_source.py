import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from attnfd.data.depth import Depth
from attnfd.deploy.source import open_model
from attnfd.errors import UserError
from attnfd.models import checkpoint
from attnfd.models.checkpoint import legend
from attnfd.paths import Cell
from attnfd.results.write import Evaluated
from attnfd.training.checkpoints import Checkpoints
from tests.deploy.conftest import LEGEND, save
from tests.report import synthetic

METRICS = {
    "miou": 0.25,
    "mean_accuracy": 0.5,
    "pixel_accuracy": 0.5,
    "parameters": 7,
    "images": 2,
    "iou": {"a": 0.25, "b": 0.25},
    "split": "val",
}
CELL = Cell(stage="distill", dataset="tiny", student="mobilenetv2", method="kd", seed=0)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained and evaluated cell."""
    folder = tmp_path_factory.mktemp("project")
    save(folder / CELL.model)
    (folder / CELL.results).mkdir(parents=True)
    (folder / CELL.results / "metrics.json").write_text('{"miou": 0.25}')
    (folder / CELL.model / "history.csv").write_text("epoch,loss\n1,2.0\n")
    return folder


@pytest.fixture(autouse=True)
def surroundings(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(project)


@pytest.mark.parametrize(
    "name",
    [
        "models/tiny/mobilenetv2/kd/0",
        "./models/tiny/mobilenetv2/kd/0/model.safetensors",
        "tiny/mobilenetv2/kd/0",
        "tiny/mobilenetv2/kd/0/",
    ],
)
def test_folders_and_cells(name: str) -> None:
    model = open_model(name)
    assert (model.name, model.legend, model.miou) == (name, LEGEND, 0.25)
    assert not model.network.training
    assert model.card["sha256"] == checkpoint.fingerprint(CELL.model)


def test_a_path_is_a_name() -> None:
    assert open_model(CELL.model).card == open_model("tiny/mobilenetv2/kd/0").card


@pytest.mark.parametrize("name", [3, None, b"tiny/mobilenetv2/kd/0"])
def test_what_is_no_name_says_what_to_pass(name: Any) -> None:
    with pytest.raises(TypeError, match=r"model: found .*; pass a folder such as 'shapes/resnet18/attnfd/0'"):
        open_model(name)


def test_a_model_is_a_line_in_a_shell() -> None:
    assert repr(open_model("tiny/mobilenetv2/kd/0")) == (
        "Model('tiny/mobilenetv2/kd/0': red, green, blue; mIoU 25.00)"
    )


def test_model_far_from_its_results(tmp_path: Path) -> None:
    assert open_model(str(save(tmp_path))).miou is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tiny/mobilenetv2/kd/1", ("tiny/mobilenetv2/kd/1: found no model", "models:/<name>@<alias>")),
        ("attnfd-tiny", ("attnfd-tiny: no such folder", "mlflow.db", "dvc repro")),
        ("0" * 32, ("no such folder", "mlflow.db")),
    ],
)
def test_no_such_model(
    name: str, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as stopped:
        open_model(name)
    assert all(word in str(stopped.value) for word in words)
    assert "\n" not in str(stopped.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": None}, "classes"),
        ({"classes": ["red", "green"]}, "found 2 classes and 3 colours; allowed: 3 of each"),
        ({"palette": [[1, 2]] * 3}, r"card\.json\.palette\.0"),
    ],
)
def test_card_without_its_classes(changes: dict, message: str, tmp_path: Path) -> None:
    card = save(tmp_path) / "card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | changes))
    with pytest.raises(UserError, match=message):
        open_model(str(tmp_path))


def test_card_of_an_older_version(tmp_path: Path) -> None:
    card = save(tmp_path) / "card.json"
    content = json.loads(card.read_text())
    card.write_text(json.dumps({key: content[key] for key in ("architecture", "frozen", "sha256")}))
    with pytest.raises(UserError, match=r"classes, dataset, mean, palette, std: missing; .*dvc repro"):
        open_model(str(tmp_path))


def test_card_from_before_images_had_a_depth(tmp_path: Path) -> None:
    card = save(tmp_path) / "card.json"
    content = json.loads(card.read_text())
    assert content.pop("depth") is None
    card.write_text(json.dumps(content))
    assert open_model(str(tmp_path)).legend == LEGEND
    card.write_text(json.dumps(content | {"depth": {"low": 0, "high": 4095, "clip": False}}))
    assert open_model(str(tmp_path)).legend.depth == Depth(low=0, high=4095, clip=False)


def test_legend_is_that_of_the_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = legend(synthetic.dataset().card)
    assert (found.dataset, found.classes, found.palette) == ("tiny", synthetic.CLASSES, synthetic.PALETTE)


TRAP = b"cposix\nsystem\n(S'touch trapped'\ntR."
"""A pickle that runs a command."""


@pytest.fixture(scope="module")
def run_id(project: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        from attnfd.tracking import runs  # imported here, because MLflow may be missing

        with runs.open_run(CELL, {}, Checkpoints(Path("none"))) as run:
            run.trained(checkpoint.fingerprint(CELL.model))
            images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
            run.evaluated(Evaluated(METRICS, ["a", "b"], images))
        import mlflow

        mlflow.register_model(f"runs:/{run.id}/{CELL.name}", "attnfd-tiny")
        mlflow.MlflowClient().set_registered_model_alias("attnfd-tiny", "best", "1")
    return run.id


@pytest.mark.skipif(find_spec("mlflow") is None, reason="without MLflow")
class TestTracked:
    @pytest.mark.parametrize("name", ["{run}", "attnfd-tiny", "attnfd-tiny@best", "models:/attnfd-tiny@best"])
    def test_model_of_the_store_is_the_same_to_the_bit(self, name: str, run_id: str) -> None:
        model, local = open_model(name.format(run=run_id)), open_model("tiny/mobilenetv2/kd/0")
        assert (model.card, model.legend, model.miou) == (local.card, local.legend, 0.25)
        for key, value in local.network.state_dict().items():
            assert torch.equal(value, model.network.state_dict()[key]), key

    @pytest.mark.parametrize("name", ["attnfd-none", "models:/attnfd-tiny/7", "0" * 32])
    def test_unknown_names(self, name: str, run_id: str) -> None:
        with pytest.raises(UserError, match="not found") as stopped:
            open_model(name)
        assert "start or fix" not in str(stopped.value)
        assert "\n" not in str(stopped.value)

    def test_code_in_a_logged_model_is_not_run(self, run_id: str) -> None:
        (described,) = Path("mlruns").rglob("MLmodel")
        folder = described.parent
        before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        weights = folder / "data/network/model.safetensors"
        for file in before:
            if file not in (described, weights):
                file.write_bytes(TRAP)
        described.write_text(re.sub("loader_module: .*", "loader_module: antigravity", described.read_text()))
        try:
            assert open_model(run_id).miou == 0.25
            weights.write_bytes(TRAP)
            with pytest.raises(UserError, match=r"model\.safetensors"):
                open_model(run_id)
        finally:
            for file, content in before.items():
                file.write_bytes(content)
        assert not Path("trapped").exists()
        assert "antigravity" not in sys.modules
