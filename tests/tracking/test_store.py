"""The address of the store, how it is shown, and the server of its pages."""

import os
import socket
from pathlib import Path

import pytest

from attnfd.errors import UserError
from attnfd.tracking import store, ui
from tests.tracking.conftest import PASSWORD


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://me:hunter2@host:5000/team", "http://host:5000/team"),
        ("http://me:hun/ter2@host", "http://host"),
        ("http://me:hun?ter2@host", "http://host"),
        ("postgresql://host/db?password=hunter2", "postgresql://host/db"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
    ],
)
def test_shown_address_has_no_secrets(uri: str, expected: str) -> None:
    assert store.shown(uri) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "sqlite:////main/mlflow.db"),
        ("sqlite:///runs/all.db", "sqlite:////main/runs/all.db"),
        ("sqlite:////elsewhere/all.db", "sqlite:////elsewhere/all.db"),
        ("http://host", "http://host"),
    ],
)
def test_store_is_at_the_main_root(given: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", "/main")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    if given:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    assert store.address() == expected


class TestUi:
    def test_hides_the_address_from_the_command_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = []
        monkeypatch.setattr(ui, "page", lambda: "")
        monkeypatch.setattr(ui.subprocess, "Popen", lambda command: calls.append((None, command, {})))
        monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://me:{PASSWORD}@host/db")
        ui.serve(5123)
        (_, waiting, _), (_, command, environment) = calls
        assert PASSWORD not in " ".join(waiting)
        assert "--host 127.0.0.1 --port 5123" in " ".join(command)
        assert PASSWORD not in " ".join(command)
        assert environment["MLFLOW_BACKEND_STORE_URI"] == os.environ["MLFLOW_TRACKING_URI"]
        assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"

    @pytest.mark.parametrize(
        ("uri", "message"),
        [
            ("sqlite:///none.db", r"none\.db: not found"),
            (f"http://me:{PASSWORD}@host", "MLflow store http://host: "),
        ],
    )
    def test_says_why_there_is_nothing_to_show(
        self, uri: str, message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(UserError, match=message):
            ui.serve(5123)

    def test_a_port_in_use_is_refused_with_one_that_is_free(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
        (tmp_path / "mlflow.db").touch()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(UserError, match=rf"^--port {port}: another program uses it") as error:
                ui.serve(port)
        advised = int(str(error.value).rpartition(" ")[2].rstrip("`"))
        assert advised != port
        socket.create_server(("127.0.0.1", advised)).close()
