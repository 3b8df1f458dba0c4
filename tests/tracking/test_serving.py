"""A registered model behind a real HTTP server, with the requests of docs/serve.md."""

import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attnfd.data.transforms import MEAN, STD
from attnfd.deploy.predict import predict
from attnfd.deploy.source import Model
from attnfd.models import checkpoint
from attnfd.models.checkpoint import Legend
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.paths import Cell
from attnfd.tracking import runs
from attnfd.tracking import store as tracking_store
from tests import miniature, servers
from tests.tracking.conftest import FRESH

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "serve.md").read_text(encoding="utf-8")

mlflow = tracking_store.library()


def shown(language: str, word: str) -> str:
    """The only code block of the page that contains a word."""
    (block,) = [code for code in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if word in code]
    return block


@pytest.fixture
def network() -> DeepLabV3Plus:
    """A model with random BN statistics, so that the classes vary over an image."""
    torch.manual_seed(0)
    network = DeepLabV3Plus("mobilenetv2", classes=3)
    with torch.no_grad():
        for _ in range(5):
            network(torch.randn(2, 3, 64, 64))
    return network.eval()


@pytest.fixture
def server(network: DeepLabV3Plus, store: str, tmp_path: Path) -> Iterator[int]:
    """The port of `mlflow models serve` for the registered model attnfd-shapes, alias `best`."""
    cell = Cell(stage="distill", dataset="served", student="tiny", method="none", seed=0)
    checkpoint.save(cell.model, network, {})
    with runs.open_run(cell, {}, FRESH) as run:
        run.model(np.zeros((1, 64, 64, 3), dtype=np.uint8))
    client = mlflow.MlflowClient()
    experiment = client.get_run(run.id).info.experiment_id
    (model,) = client.search_logged_models([experiment], f"source_run_id = '{run.id}'")
    with suppress(mlflow.MlflowException):  # The other test has created it.
        client.create_registered_model("attnfd-shapes")
    version = client.create_model_version("attnfd-shapes", model.model_uri, model_id=model.model_id)
    client.set_registered_model_alias("attnfd-shapes", "best", version.version)
    port = servers.free_port()
    serve = shown("sh", "models serve").strip().splitlines()[-1].replace("5001", str(port)).split()
    with servers.serving(serve, f"http://127.0.0.1:{port}/ping", tmp_path, MLFLOW_TRACKING_URI=store):
        yield port


@pytest.mark.slow
def test_served_student_answers_with_a_class_map(server: int, network: DeepLabV3Plus, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 71, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "photo.png")
    exec(shown("python", "invocations").replace("5001", str(server)), {})
    answer = np.asarray(Image.open(tmp_path / "classes.png"))

    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normal = torch.from_numpy(((image[None] / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
    with torch.no_grad():
        best = network(normal).logits.topk(2, dim=1)
    # Except for ties, which rounding decides.
    sure = (best.values[0, 0] - best.values[0, 1]).numpy() > 1e-4
    assert sure.mean() > 0.9
    assert len(np.unique(best.indices[0, 0])) > 1
    np.testing.assert_array_equal(answer[sure], best.indices[0, 0].numpy()[sure])

    request = shown("sh", "curl").replace("5001", str(server))
    done = subprocess.run(
        ["bash", "-c", request], capture_output=True, text=True, check=True, env=miniature.environment()
    )
    (class_map,) = json.loads(done.stdout)["predictions"]
    np.testing.assert_array_equal(np.array(class_map)[sure], answer[sure])

    for pixels, sentence in (
        (image[None, :, :, 0], "inputs: found the shape (1, 50, 71); allowed: RGB images of one size, "),
        (image[None] / 255, "inputs: found floats; allowed: whole numbers from 0 to 255; multiply an "),
        (np.zeros((1, 50, 71, 3)), "inputs: found floats; "),
        (image[None].astype(int) + 1, "inputs: found values from "),
    ):
        with pytest.raises(urllib.error.HTTPError, match="400") as refused:
            ask(server, json.dumps({"inputs": pixels.tolist()}).encode())
        answer = json.loads(refused.value.read())
        assert answer.keys() == {"error_code", "message"}
        assert answer["message"].startswith(sentence)


def photo(kind: str) -> Image.Image:
    rng = np.random.default_rng(1)
    if kind == "of 16 bits":
        return Image.fromarray(rng.integers(0, 2**16, (40, 60), dtype=np.uint16))
    return Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))


@pytest.mark.slow
def test_documented_client_reads_pictures_as_predict_does(
    server: int, network: DeepLabV3Plus, tmp_path: Path
) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    for kind, size in (("turned", (60, 40)), ("of 16 bits", (40, 60))):
        more = {"exif": turned} if kind == "turned" else {}
        photo(kind).save(tmp_path / "photo.png", **more)
        exec(shown("python", "invocations").replace("5001", str(server)), {})
        legend = Legend(
            dataset="served", classes=("a", "b", "c"), palette=((0, 0, 0),) * 3, mean=MEAN, std=STD
        )
        model = Model("served", network, legend, {}, None)
        predict(model, ["photo.png"], Path("out"), batch_size=1, overlays=False, overwrite=True)
        answer, expected = (
            np.asarray(Image.open(tmp_path / name)) for name in ("classes.png", "out/classes/photo.png")
        )
        assert answer.shape == expected.shape == size
        assert len(np.unique(expected)) > 1
        assert (answer == expected).mean() > 0.99


def ask(port: int, body: bytes) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=60).close()
