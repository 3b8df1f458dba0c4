"""Sharing results with colleagues as in docs/teams.md: remotes, experiments, one server for all."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from tests import miniature, servers

AWS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "us-east-1"}


def succeed(folder: Path, *command: str, **environment: str) -> str:
    done = miniature.run(folder, *command, **AWS, **environment)
    assert done.returncode == 0, (command, done.stdout + done.stderr)
    return done.stdout


def clone(source: Path, target: Path) -> Path:
    succeed(source.parent, "git", "clone", "--quiet", "--branch", "main", str(source), str(target))
    return target


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3 server on loopback with the bucket `team`."""
    with servers.s3("team") as address:
        yield address


@pytest.fixture(params=["folder", "s3"])
def ours(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A clone with a default remote; its branch is in a bare repository beside it."""
    folder = tmp_path / "ours"
    folder.mkdir()
    miniature.clone(folder)
    if request.param == "s3":
        add_s3(folder, request.getfixturevalue("s3"), f"s3://team/{tmp_path.name}")
    else:
        succeed(folder, "dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    succeed(tmp_path, "git", "init", "--quiet", "--bare", "hub.git")
    succeed(folder, "git", "remote", "add", "origin", str(tmp_path / "hub.git"))
    return folder


def add_s3(folder: Path, address: str, url: str) -> None:
    succeed(folder, "dvc", "remote", "add", "--default", "store", url)
    succeed(folder, "dvc", "remote", "modify", "store", "endpointurl", address)


def publish(folder: Path) -> None:
    miniature.commit(folder, "results")
    succeed(folder, "dvc", "push")
    succeed(folder, "git", "push", "--quiet", "origin", "main")


def test_what_one_made_another_does_not_make_again(ours: Path, tmp_path: Path) -> None:
    succeed(ours, "dvc", "repro", "prepare")
    publish(ours)
    theirs = clone(tmp_path / "hub.git", tmp_path / "theirs")
    succeed(theirs, "dvc", "pull", "prepare@shapes")
    assert "up to date" in succeed(theirs, "dvc", "repro", "prepare")
    images = Path("data/shapes/images")
    found = {file.name: file.read_bytes() for file in (theirs / images).iterdir()}
    assert found == {file.name: file.read_bytes() for file in (ours / images).iterdir()}
    assert len(found) == 20
    assert not succeed(theirs, "git", "status", "--short")


@pytest.mark.parametrize("ours", ["folder"], indirect=True)
def test_an_experiment_travels_with_its_results(ours: Path, tmp_path: Path) -> None:
    succeed(ours, "dvc", "repro", "prepare")
    publish(ours)
    change = ("--set-param", "recipes.shapes.prepare.train=9")
    succeed(ours, "dvc", "exp", "run", "--name", "more", *change, "prepare")
    succeed(ours, "dvc", "exp", "push", "origin", "more")

    theirs = clone(tmp_path / "hub.git", tmp_path / "theirs")
    assert "more" in succeed(theirs, "dvc", "exp", "list", "origin")
    succeed(theirs, "dvc", "exp", "pull", "origin", "more")
    # `dvc exp apply` needs the results of every stage.
    succeed(theirs, "dvc", "exp", "branch", "more", "more")
    succeed(theirs, "git", "checkout", "--quiet", "more")
    succeed(theirs, "dvc", "pull", "prepare@shapes")
    assert "up to date" in succeed(theirs, "dvc", "repro", "prepare")
    index = pd.read_csv(theirs / "data/shapes/index.csv")
    assert (index["split"] == "train").sum() == 9


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """The URI of an empty database on loopback."""
    # PostgreSQL refuses to run as root.
    user = "postgres" if os.getuid() == 0 else None
    folder.mkdir(mode=0o755)
    for above in (folder, *folder.parents):
        if user and above.owner() == "root" and above != Path("/tmp"):
            above.chmod(above.stat().st_mode | 0o011)
    if user:
        shutil.chown(folder, user)
    port = servers.free_port()
    data = folder / "data"

    def call(*command: object) -> None:
        words = [str(word) for word in command]
        subprocess.run(words, cwd=folder, user=user, check=True, stdout=subprocess.DEVNULL)

    call("initdb", "-D", data, "-A", "trust", "-U", "attnfd")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    call("pg_ctl", "-D", data, "-l", folder / "log", "-w", "-o", options, "start")
    try:
        call("createdb", "-h", "127.0.0.1", "-p", port, "-U", "attnfd", "mlflow")
        yield f"postgresql://attnfd@127.0.0.1:{port}/mlflow"
    finally:
        call("pg_ctl", "-D", data, "-m", "fast", "stop")


@contextmanager
def tracking_server(folder: Path, database: str) -> Iterator[str]:
    """The URI of an MLflow server on loopback, started as in the document."""
    folder.mkdir()
    command, health = servers.mlflow_server(database, folder, servers.free_port())
    with servers.serving(command, health, folder):
        yield health.removesuffix("/health")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("initdb") is None, reason="PostgreSQL is not on this machine")
def test_a_team_with_a_bucket_and_a_server(s3: str, tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.mkdir()
    miniature.clone(ours)
    add_s3(ours, s3, "s3://team/whole")
    with postgresql(tmp_path / "database") as database, tracking_server(tmp_path / "server", database) as uri:
        succeed(ours, "dvc", "repro", MLFLOW_TRACKING_URI=uri)
        miniature.commit(ours, "results")
        succeed(ours, "dvc", "push", "--run-cache")

        theirs = clone(ours, tmp_path / "theirs")
        succeed(theirs, "dvc", "pull", "--run-cache")
        assert "Running stage" not in succeed(theirs, "dvc", "repro", MLFLOW_TRACKING_URI=uri)
        succeed(theirs, "python", "-m", "attnfd", "report", "--dataset", "shapes", MLFLOW_TRACKING_URI=uri)
        client = mlflow.MlflowClient(uri)
        reports = client.get_experiment_by_name(
            "ours/shapes-reports"
        )  # Git gives the same project name to both.
        assert reports is not None
        newest = client.search_runs([reports.experiment_id], order_by=["attributes.start_time DESC"])[0]
        costs = Path(client.download_artifacts(newest.info.run_id, "tables/costs.md", str(tmp_path)))
        assert costs.read_text().count("1 of 1") == 4  # The server has all trainings, although none ran here.
        assert not (theirs / "mlflow.db").exists()

        change = ("--set-param", "report.title=Theirs")
        succeed(theirs, "dvc", "exp", "run", "--name", "titled", *change, MLFLOW_TRACKING_URI=uri)
        succeed(theirs, "dvc", "exp", "push", "origin", "titled")
        # Its ref is now in our repository, its files are on the remote.
        succeed(ours, "dvc", "exp", "pull", str(theirs), "titled")
        succeed(ours, "dvc", "exp", "apply", "titled")
        assert "Running stage" not in succeed(ours, "dvc", "repro", MLFLOW_TRACKING_URI=uri)
        assert (ours / "reports/shapes/report.md").read_text().startswith("# Theirs")
