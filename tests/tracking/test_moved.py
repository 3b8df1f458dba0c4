"""A store that moves with its project, and projects that share a server."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attnfd import paths
from attnfd.analysis import tables
from attnfd.deploy.source import open_model
from attnfd.evaluation.inference import ClassMap
from attnfd.models import checkpoint
from attnfd.paths import Cell
from attnfd.tracking import names, registry, runs, store, views
from tests import miniature, servers
from tests.deploy.conftest import save
from tests.tracking import test_summary
from tests.tracking.conftest import FRESH
from tests.tracking.test_runs import write_card, write_outs

mlflow = store.library()
CELL = Cell.distilled("toy", "r18", "kd", 0)


def train() -> str:
    if not CELL.model.exists():
        write_outs(CELL)
    with runs.open_run(CELL, {}, FRESH) as run:
        run.trained("0" * 64)
    return run.id


@pytest.fixture
def moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, str]:
    """The old and the new folder of a project, and its run."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    old, new = tmp_path / "old place", tmp_path / "new"
    old.mkdir()
    monkeypatch.chdir(old)
    run = train()
    monkeypatch.chdir(tmp_path)
    return old, new, run


READ = """
import sys
from pathlib import Path
from attnfd.tracking import store
client = store.connect_to_read("run")
print(Path(client.download_artifacts(sys.argv[1], "training/history.csv")).read_text(), end="")
"""


def history(run: str) -> str:
    """Read a file of a run in a new process, because MLflow caches addresses."""
    root = str(Path(runs.__file__).parents[2])
    command = [sys.executable, "-c", READ, run]
    # MLflow also sets the address of the store in the environment.
    kept = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return subprocess.check_output(command, text=True, env={**kept, "PYTHONPATH": root})


def test_a_moved_project_finds_its_files(
    moved: tuple[Path, Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, run = moved
    text = (old / CELL.model / paths.HISTORY).read_text()
    old.rename(new)
    monkeypatch.chdir(new)
    assert history(run) == text
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = store.connect_to_read("run")
    assert client.get_run(run).info.artifact_uri.startswith(f"{new.as_uri()}/mlruns/toy/")
    again = train()
    assert client.get_run(again).info.artifact_uri.startswith(f"{new.as_uri()}/mlruns/toy/")


PYFUNC = """
import sys
import mlflow
import numpy as np
from PIL import Image
mlflow.set_tracking_uri("sqlite:///mlflow.db")
for number, uri in enumerate(sys.argv[1:]):
    model = mlflow.pyfunc.load_model(uri)
    np.save(f"classes{number}.npy", model.predict(np.asarray(Image.open("photo.png"))[None])[0])
"""
REGISTER = """
import sys
import mlflow
mlflow.set_tracking_uri("sqlite:///mlflow.db")
mlflow.register_model(sys.argv[1], "attnfd-toy")
mlflow.MlflowClient().set_registered_model_alias("attnfd-toy", "best", "1")
"""


@pytest.mark.slow
def test_models_of_a_moved_project_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    old, new = tmp_path / "old place", tmp_path / "new"
    old.mkdir()
    monkeypatch.chdir(old)
    write_outs(CELL)
    save(CELL.model)
    with runs.open_run(CELL, {}, FRESH) as run:
        run.model(np.zeros((1, 8, 8, 3), dtype=np.uint8))
        run.trained(checkpoint.fingerprint(CELL.model))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    by_run, registered = f"runs:/{run.id}/{CELL.name}", "models:/attnfd-toy@best"
    root = {"PYTHONPATH": str(Path(runs.__file__).parents[2])}

    def python(*words: str) -> None:
        done = miniature.run(Path.cwd(), sys.executable, *words, **root)
        assert done.returncode == 0, done.stderr

    python("-c", REGISTER, by_run)
    old.rename(new)
    monkeypatch.chdir(new)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(image).save("photo.png")
    local = open_model(CELL.model).network
    with torch.no_grad():
        expected = ClassMap(local)(torch.from_numpy(image[None])).numpy()[0]
    assert len(np.unique(expected)) > 1
    for number, name in enumerate((run.id, registered)):
        python("-m", "attnfd", "predict", name, "photo.png", "--out", f"out{number}")
        np.testing.assert_array_equal(np.asarray(Image.open(f"out{number}/classes/photo.png")), expected)
    python("-c", PYFUNC, by_run, registered)
    for number in range(2):
        np.testing.assert_array_equal(np.load(f"classes{number}.npy"), expected)


def test_a_copy_has_its_own_files_and_leaves_the_first_as_it_is(
    moved: tuple[Path, Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, run = moved
    subprocess.run(["cp", "-r", old, new], check=True)
    (file,) = new.glob("mlruns/toy/*/artifacts/training/history.csv")
    file.write_text("of the copy")
    monkeypatch.chdir(new)
    assert history(run) == "of the copy"
    monkeypatch.chdir(old)
    assert history(run) != "of the copy"


def test_a_database_without_its_files_keeps_their_addresses(
    moved: tuple[Path, Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, run = moved
    new.mkdir()
    (new / "mlflow.db").write_bytes((old / "mlflow.db").read_bytes())
    monkeypatch.chdir(new)
    assert "loss" in history(run)


def register(miou: float) -> str:
    """Train the cell and register it as the best one of its project; return its run."""
    write_card(CELL.dataset)
    test_summary.write([CELL], {CELL.name: miou})
    run = test_summary.train(CELL)
    client, experiment = store.connect("toy")
    registry.register(client, experiment, [CELL], tables.results([CELL]))
    return run


@pytest.mark.slow
def test_two_projects_on_one_server_have_experiments_and_models_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = servers.free_port()
    command, health = servers.mlflow_server(f"sqlite:///{tmp_path}/server.db", tmp_path, port)
    with servers.serving(command, health, tmp_path):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        found = {}
        for project, miou in (("wheat", 0.5), ("cars", 0.75)):
            (tmp_path / project).mkdir()
            monkeypatch.chdir(tmp_path / project)
            found[project] = register(miou)
        client = mlflow.MlflowClient()
        for project, run in found.items():
            experiment = client.get_experiment_by_name(f"{project}/toy")
            assert [one.info.run_id for one in client.search_runs([experiment.experiment_id])] == [run]
            assert experiment.tags[views.VERSION] == views.version()
            assert client.get_model_version_by_alias(f"{project}.toy", "best").run_id == run
        # An evaluation does not change the run's end, and so not its duration.
        before = client.get_run(found["cars"]).info.end_time
        runs.Run(client, found["cars"], CELL, again="", resumed=True, ended=before).close("FINISHED")
        assert client.get_run(found["cars"]).info.end_time == before


@pytest.mark.parametrize(
    ("origin", "folder", "given", "expected"),
    [
        (None, "my wheat", None, "my-wheat"),
        ("git@host:team/wheat.git", "clone", None, "wheat"),
        ("https://host/team/wheat/", "clone", None, "wheat"),
        ("https://host/team/wheat", "clone", "cars", "cars"),
        ("https://host/team/wheat", "clone", "", ""),
    ],
)
def test_a_project_is_called_as_git_or_its_folder_or_the_setting_says(
    origin: str | None, folder: str, given: str | None, expected: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    place = tmp_path / folder
    place.mkdir()
    monkeypatch.chdir(place)
    if origin:
        subprocess.run(["git", "init", "--quiet"], check=True)
        subprocess.run(["git", "remote", "add", "origin", origin], check=True)
    if given is not None:
        monkeypatch.setenv("ATTNFD_PROJECT", given)
    assert names.project(local=False) == expected
    assert names.project(local=True) == (given or "")


def test_projects_in_folders_of_one_repository_are_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    subprocess.run(["git", "-C", tmp_path, "remote", "add", "origin", "https://host/farm"], check=True)
    (tmp_path / "wheat").mkdir()
    monkeypatch.chdir(tmp_path / "wheat")
    assert names.project(local=False) == "farm-wheat"
