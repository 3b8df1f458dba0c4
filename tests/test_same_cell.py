"""Two processes train the same cell with the same inputs, as two `dvc exp run --temp` do."""

import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.entities import Run

from tests import miniature

pytestmark = pytest.mark.slow

EPOCHS = 50
COMMAND = "python -m attnfd distill --dataset shapes --student mobilenetv2 --method attnfd --seed"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The main root: a miniature with a frozen teacher."""
    folder = miniature.clone(tmp_path_factory.mktemp("main"))
    longer = {"train_teacher": {"epochs": 1}, "distill": {"epochs": EPOCHS, "validate_every": EPOCHS}}
    miniature.change(folder, {"recipes": {"shapes": longer}})
    for command in ("prepare", "train_teacher", "freeze"):
        done = miniature.run(folder, "python", "-m", "attnfd", command, "--dataset", "shapes")
        assert done.returncode == 0, done.stderr
    return folder


def start(project: Path, clone: Path, seed: int) -> subprocess.Popen[str]:
    """Start the training in a clone of the main root, as DVC does for a temporary experiment."""
    clone.mkdir()
    for name in ("attnfd", "stages", "data", "models", "params.yaml"):
        (clone / name).symlink_to(project / name)
    (clone / "models").unlink()
    (clone / "models" / "shapes").mkdir(parents=True)
    (clone / "models/shapes/frozen").symlink_to(project / "models/shapes/frozen")
    environment = {**miniature.environment(), "DVC_ROOT": str(project), "ATTNFD_CHECKPOINT_SECONDS": "0"}
    return subprocess.Popen(
        [*COMMAND.split(), str(seed)], cwd=clone, env=environment, stderr=subprocess.PIPE, text=True
    )


def runs(project: Path, seed: int) -> list[Run]:
    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    experiment = client.get_experiment_by_name("shapes")
    assert experiment is not None
    return client.search_runs([experiment.experiment_id], f"tags.seed = '{seed}'")


def assert_whole(project: Path, run: Run) -> None:
    """A run has ended and contains every step and epoch once."""
    assert run.info.status == "FINISHED"
    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    for key, count in (("step/loss", 2 * EPOCHS), ("epoch/loss", EPOCHS)):
        steps = [found.step for found in client.get_metric_history(run.info.run_id, key)]
        assert Counter(steps) == Counter(range(1, count + 1)), key


def test_the_second_waits_and_has_a_run_of_its_own(project: Path, tmp_path: Path) -> None:
    first = start(project, tmp_path / "first", 1)
    time.sleep(4)
    second = start(project, tmp_path / "second", 1)
    said = [process.communicate(timeout=300)[1] for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], said
    waited = [line for text in said for line in text.splitlines() if "waiting for it to end" in line]
    assert len(waited) == 1
    owner = first if waited[0] in said[1] else second
    assert f"process {owner.pid} on " in waited[0]
    assert len(runs(project, 1)) == 2
    for run in runs(project, 1):
        assert_whole(project, run)
    kept = [tmp_path / name / "models/shapes/mobilenetv2/attnfd/1" for name in ("first", "second")]
    for file in ("model.safetensors", "history.csv"):
        assert (kept[0] / file).read_bytes() == (kept[1] / file).read_bytes()
    assert not list((project / ".attnfd/checkpoints").rglob("*.*"))


def test_the_second_resumes_what_was_killed(project: Path, tmp_path: Path) -> None:
    first = start(project, tmp_path / "first", 2)
    checkpoints = project / ".attnfd/checkpoints"
    while not list(checkpoints.rglob("0*.pt")):
        assert first.poll() is None
        time.sleep(0.05)
    first.send_signal(signal.SIGSTOP)  # It still has the cell, but makes no progress.
    second = start(project, tmp_path / "second", 2)
    assert second.stderr is not None
    assert f"process {first.pid} on " in next(line for line in second.stderr if "waiting" in line)
    first.kill()
    first.communicate()
    _, said = second.communicate(timeout=300)
    assert second.returncode == 0, said
    (run,) = runs(project, 2)
    assert_whole(project, run)
    assert run.data.tags["attnfd.process"].endswith(f" {second.pid}")
    history = pd.read_csv(tmp_path / "second/models/shapes/mobilenetv2/attnfd/2/history.csv")
    assert list(history["epoch"]) == list(range(1, EPOCHS + 1))
