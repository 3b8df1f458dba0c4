"""One store for all tests of a process, because MLflow takes seconds to create one."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from attnfd.training.checkpoints import Checkpoints

if find_spec("mlflow") is None:
    collect_ignore_glob = ["test_*.py"]

PASSWORD = "hunter2"
FRESH = Checkpoints(Path("none"))
"""Of a training that was never interrupted."""


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture(autouse=True)
def surroundings(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.chdir(tmp_path)
