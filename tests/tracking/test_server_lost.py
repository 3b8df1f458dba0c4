"""A real MLflow server that stops in the middle of a real training and starts again."""

import json
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from tests import miniature, servers

PYTHON = ("python", "-m", "attnfd")
CELL = ("--dataset", "shapes", "--student", "mobilenetv2", "--method", "attnfd", "--seed", "0")
EPOCHS = 200
STEPS = 2 * EPOCHS
"""Eight images in batches of four."""

Server = Callable[[], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = miniature.clone(tmp_path_factory.mktemp("lost"))
    long = {"epochs": EPOCHS, "validate_every": EPOCHS}
    miniature.change(folder, {"recipes": {"shapes": {"distill": long}}})
    for command in ("prepare", "train_teacher", "freeze"):
        done = miniature.run(folder, *PYTHON, command, "--dataset", "shapes")
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def uri() -> str:
    return f"http://127.0.0.1:{servers.free_port()}"


@pytest.fixture
def server(uri: str, tmp_path: Path) -> Server:
    port = int(uri.rpartition(":")[2])
    command, health = servers.mlflow_server(f"sqlite:///{tmp_path}/mlflow.db", tmp_path, port)
    return lambda: servers.serving(command, health, tmp_path)


def start(project: Path, uri: str) -> "subprocess.Popen[str]":
    """A training whose first steps are on the server."""
    training = subprocess.Popen(
        [*PYTHON, "distill", *CELL],
        cwd=project,
        env={**miniature.environment(), "MLFLOW_TRACKING_URI": uri},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not any("step/loss" in run.data.metrics for run in runs(uri)):
        assert training.poll() is None
        time.sleep(0.5)
    return training


def runs(uri: str) -> list[Run]:
    """All runs, the newest first."""
    client = mlflow.MlflowClient(uri)
    experiments = client.search_experiments(filter_string="name LIKE '%/shapes'")
    return client.search_runs([found.experiment_id for found in experiments]) if experiments else []


def evaluate(project: Path, uri: str) -> float:
    done = miniature.run(project, *PYTHON, "evaluate", *CELL, MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0, done.stderr
    metrics = project / "results/shapes/mobilenetv2/attnfd/0/metrics.json"
    return json.loads(metrics.read_text())["miou"]


def steps(uri: str, run: Run, curve: str) -> list[int]:
    return [point.step for point in mlflow.MlflowClient(uri).get_metric_history(run.info.run_id, curve)]


@pytest.mark.slow
def test_a_server_that_comes_back_has_all(project: Path, server: Server, uri: str) -> None:
    with server():
        training = start(project, uri)
    time.sleep(12)  # The next metrics are sent within five seconds.
    with server():
        assert training.poll() is None, "it ended before the server was back"
        _, errors = training.communicate()
        assert training.returncode == 0, errors
        assert "not logged" not in errors
        miou = evaluate(project, uri)
        (run,) = runs(uri)
        assert run.info.status == "FINISHED"
        assert run.data.metrics["miou"] == 100 * miou
        assert steps(uri, run, "step/loss") == list(range(1, STEPS + 1))
        assert steps(uri, run, "epoch/loss") == list(range(1, EPOCHS + 1))
        files = {file.path for file in mlflow.MlflowClient(uri).list_artifacts(run.info.run_id, "training")}
        assert files == {"training/history.csv", "training/card.json"}


@pytest.mark.slow
def test_a_server_that_stays_away_gets_the_model_later(project: Path, server: Server, uri: str) -> None:
    with server():
        training = start(project, uri)
    _, errors = training.communicate()
    assert training.returncode == 0, errors
    (printed,) = [line for line in errors.splitlines() if "not logged" in line]
    assert uri in printed
    assert "2 × file" in printed
    assert "evaluate the model to log it again" in printed
    assert "Traceback" not in errors
    with server():
        miou = evaluate(project, uri)
        anew, left = runs(uri)
        assert "miou" not in left.data.metrics
        assert anew.data.metrics["miou"] == 100 * miou
        assert steps(uri, anew, "epoch/loss") == list(range(1, EPOCHS + 1))
