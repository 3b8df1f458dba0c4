"""Real trainings killed at random moments: the commands, the store, `kill -9`."""

import random
import signal
import subprocess
import time
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from attnfd.paths import Cell
from tests import miniature

EPOCHS = 8
KILLS = 20
PYTHON = "python"
LONGER = {"epochs": EPOCHS, "validate_every": 2}
DISTILL = "distill --dataset shapes --student mobilenetv2 --seed 0 --method"
CELLS = {
    "teacher": "train_teacher --dataset shapes",
    "attnfd": f"{DISTILL} attnfd",
    "cirkd": f"{DISTILL} cirkd",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = miniature.clone(tmp_path_factory.mktemp("killed"))
    recipe = {"train_teacher": LONGER, "distill": LONGER}
    miniature.change(folder, {"recipes": {"shapes": recipe}})
    for command in (["prepare"], ["train_teacher"], ["freeze"]):
        done = miniature.run(folder, PYTHON, "-m", "attnfd", *command, "--dataset", "shapes")
        assert done.returncode == 0, done.stderr
    return folder


def cell(name: str) -> Cell:
    if name == "teacher":
        return Cell(stage="train_teacher", dataset="shapes")
    return Cell(stage="distill", dataset="shapes", student="mobilenetv2", method=name, seed=0)


def weights(project: Path, name: str) -> bytes:
    return (project / cell(name).model / "model.safetensors").read_bytes()


def train(project: Path, name: str, seconds: float | None) -> int:
    """The exit status of the training, which is killed after some seconds."""
    command = [PYTHON, "-m", "attnfd", *CELLS[name].split()]
    environment = {**miniature.environment(), "ATTNFD_CHECKPOINT_SECONDS": "0"}
    with subprocess.Popen(command, cwd=project, env=environment, stderr=subprocess.PIPE) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        return process.wait()


def finished(project: Path, name: str) -> Run:
    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    experiment = client.get_experiment_by_name("shapes")
    assert experiment is not None
    query = "attributes.status = 'FINISHED' and " + " and ".join(
        f"tags.{key} = '{value}'" for key, value in cell(name).tags.items()
    )
    return client.search_runs([experiment.experiment_id], query, order_by=["attributes.start_time DESC"])[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_killed_again_and_again_it_ends_with_the_same_bits(name: str, project: Path) -> None:
    start = time.monotonic()
    assert train(project, name, None) == 0
    duration = time.monotonic() - start
    expected = weights(project, name)
    whole = finished(project, name)

    chance = random.Random(0)
    kills = 0
    while kills < KILLS:
        # Before the first step nothing can be lost, so most kills come after it.
        status = train(project, name, chance.uniform(0.4, 1.0) * duration)
        kills += status == -signal.SIGKILL
        if status == 0:
            assert weights(project, name) == expected
    assert train(project, name, None) == 0
    assert weights(project, name) == expected

    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    resumed = finished(project, name)
    assert resumed.info.run_id != whole.info.run_id
    for key in [key for key in whole.data.metrics if key.startswith(("step/", "epoch/"))]:
        curves = [
            [(found.step, found.value) for found in client.get_metric_history(run.info.run_id, key)]
            for run in (whole, resumed)
        ]
        assert curves[0] == curves[1], key
    assert not list((project / ".attnfd").rglob("*.pt"))
