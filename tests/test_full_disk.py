"""A disk that is really full: a small file system, and a limit of file sizes like that of a quota."""

import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.entities import Run

from attnfd.errors import UserError, full_disk
from attnfd.sweep import graph
from tests import miniature

STUDENT = "--dataset shapes --student mobilenetv2 --method attnfd --seed"
DISTILL, EVALUATE = (f"python -m attnfd {stage} {STUDENT}" for stage in ("distill", "evaluate"))
AGAIN = "free); free some space, then run the same command again, and it finishes\n"


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root of a separate file system in memory."""
    folder = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def project(disk: Path) -> Path:
    """A miniature with a trained student on that disk."""
    return trained(disk / "project")


def trained(folder: Path) -> Path:
    miniature.clone(folder)
    miniature.change(folder, {"recipes": {"shapes": {"train_teacher": {"backbone": "mobilenetv2"}}}})
    stages = [
        f"python -m attnfd {stage} --dataset shapes" for stage in ("prepare", "train_teacher", "freeze")
    ]
    for command in (*stages, f"{DISTILL} 0"):
        done = miniature.run(folder, *command.split())
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def filler(disk: Path) -> Iterator[Path]:
    """A file that fills the disk except for the bytes that a test leaves."""
    yield disk / "filler"
    (disk / "filler").unlink(missing_ok=True)


def fill(filler: Path, left: int) -> None:
    rest = shutil.disk_usage(filler.parent).free - left
    with filler.open("wb") as file:
        for _ in range(rest // 2**20):
            file.write(bytes(2**20))
        file.write(bytes(rest % 2**20))


def assert_said(error: str, folder: Path) -> None:
    """The message is one line about this folder, and perhaps another about what was not logged."""
    assert len(error.splitlines()) <= 3, error
    assert "Traceback" not in error
    assert f"{folder}: " in error
    assert error.endswith(AGAIN)
    assert "No space left on device (" in error or "database or disk is full (" in error


def newest(project: Path, seed: int) -> Run:
    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    experiment = client.get_experiment_by_name("shapes")
    assert experiment is not None
    query = f"tags.stage = 'distill' and tags.seed = '{seed}'"
    return client.search_runs([experiment.experiment_id], query, order_by=["attributes.start_time DESC"])[0]


# No file can be written; results can, but the run cannot; the run can in part.
@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 16_384, 204_800])
def test_an_evaluation_says_so_and_finishes_with_room(left: int, project: Path, filler: Path) -> None:
    fill(filler, left)
    done = miniature.run(project, *EVALUATE.split(), "0")
    assert done.returncode == 2
    assert_said(done.stderr, project)
    filler.unlink()
    again = miniature.run(project, *EVALUATE.split(), "0")
    assert again.returncode == 0, again.stderr
    run = newest(project, 0)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["miou"] >= 0
    files = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db").list_artifacts(
        run.info.run_id, "evaluation"
    )
    assert "evaluation/metrics.json" in {file.path for file in files}


# At the first checkpoint, and at the end when the student is written.
@pytest.mark.slow
@pytest.mark.parametrize(("seed", "seconds", "left"), [(1, 0, 2_000_000), (2, 100, 1_000_000)])
def test_a_training_says_so_and_finishes_with_room(
    seed: int, seconds: int, left: int, project: Path, filler: Path
) -> None:
    fill(filler, left)
    command = [*DISTILL.split(), str(seed)]
    done = miniature.run(project, *command, ATTNFD_CHECKPOINT_SECONDS=str(seconds))
    assert done.returncode == 2
    kept = next((project / ".attnfd/checkpoints").rglob(f"attnfd/{seed}/*"), None)
    assert_said(done.stderr, kept or project)
    filler.unlink()
    again = miniature.run(project, *command)
    assert again.returncode == 0, again.stderr
    assert newest(project, seed).info.status == "FINISHED"
    history = pd.read_csv(project / f"models/shapes/mobilenetv2/attnfd/{seed}/history.csv")
    assert list(history["epoch"]) == [1, 2]


@pytest.mark.slow
def test_a_limit_of_file_sizes_is_no_traceback(tmp_path: Path) -> None:
    project = trained(tmp_path / "project")
    limit = (project / "mlflow.db").stat().st_size
    done = subprocess.run(
        [*EVALUATE.split(), "0"],
        cwd=project,
        env=miniature.environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) <= 3, done.stderr
    assert "Traceback" not in done.stderr
    assert f"{project}: " in done.stderr
    assert done.stderr.endswith(AGAIN)


def test_the_fullest_of_the_folders_is_named(disk: Path, filler: Path, tmp_path: Path) -> None:
    fill(filler, 0)
    with pytest.raises(OSError, match="No space left") as raised:
        (disk / "more").write_bytes(b"x" * 10_000)
    said = full_disk(raised.value, tmp_path, disk / "not/yet/there")
    assert said is not None
    assert said.startswith(f"{disk}/not/yet/there: No space left on device (0 bytes free); free some space")
    assert full_disk(ValueError("another"), disk) is None
    with pytest.raises(UserError, match="No space left on device"), graph.errors():
        (disk / "more").write_bytes(b"x" * 10_000)
