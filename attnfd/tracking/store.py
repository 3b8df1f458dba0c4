"""The tracking store: where it is, whether it answers, and how MLflow is opened on it.

The store is `MLFLOW_TRACKING_URI` if set, else `mlflow.db` with `mlruns/` beside it at the main root.
"""

import http.client
import logging
import os
import re
import socket
import sqlite3
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attnfd.errors import UserError, full_disk
from attnfd.paths import main_root

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow reads these when it is imported; what the user has set stands.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # MLflow would retry for minutes, with training waiting for it.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # A run shorter than one interval leaves no system metrics.
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "2",
}
# Shows an experiment as training runs, not as traces of language models, mIoU first among its charts.
EXPERIMENT = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.experiment.primaryMetric.name": "val/miou",
    "mlflow.experiment.primaryMetric.greaterIsBetter": "True",
}
SQLITE = "sqlite:///"
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
PROBE_SECONDS = 3


def check() -> None:
    """Make sure that the store answers.

    Raises:
        UserError: it does not.
    """
    with errors():
        _probe(address())


def ui(port: int) -> None:
    """Become MLflow's server of the store's pages, on this machine only.

    Raises:
        UserError: there is no store yet, or it is a server with pages of its own.
    """
    uri = address()
    if urlsplit(uri).scheme.startswith("http"):
        raise UserError(f"MLFLOW_TRACKING_URI: {shown(uri)} serves pages itself; open it in a browser")
    if is_new():
        raise UserError(f"{_database(uri)}: not found; nothing is tracked yet, run `dvc repro` first")
    # By the environment, because a command line is open for every user of the machine to read.
    environment = {**ENVIRONMENT, **os.environ, "MLFLOW_BACKEND_STORE_URI": uri}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    command = [sys.executable, "-m", "mlflow", "server"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    os.execve(sys.executable, command, environment)


def address() -> str:
    """URI of the store. A relative SQLite path starts at the main root, as temporary clones do not last."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    if uri.startswith(SQLITE):
        return SQLITE + str(main_root().absolute() / uri.removeprefix(SQLITE))
    return uri


def is_new() -> bool:
    """Whether the store is a file that nothing has been written to."""
    uri = address()
    return uri.startswith(SQLITE) and not _database(uri).exists()


def shown(uri: str) -> str:
    """A URI without user, password and query."""
    if uri.startswith(SQLITE):
        return uri
    return re.sub("//.*@", "//", uri).partition("?")[0]


def library() -> ModuleType:
    """MLflow, imported with the settings of `ENVIRONMENT`."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    import mlflow

    for chatty in ("alembic", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    # What fails here is raised as well, and said in a line by `errors` or by the run.
    for doubled in ("mlflow.store.db.utils", "mlflow.system_metrics.system_metrics_monitor"):
        logging.getLogger(doubled).setLevel(logging.CRITICAL)
    return mlflow


def _database(uri: str) -> Path:
    return Path(uri.removeprefix(SQLITE))


def connect(dataset: str) -> tuple["MlflowClient", str]:
    """Client of the store and id of the data set's experiment, both created where missing."""
    from filelock import FileLock

    uri = address()
    _probe(uri)
    mlflow = library()
    mlflow.set_tracking_uri(uri)
    # Two processes that create the tables of one SQLite file at once leave it broken.
    lock = FileLock(f"{_database(uri)}.lock", timeout=60) if uri.startswith(SQLITE) else nullcontext()
    with lock:
        client = mlflow.MlflowClient()
        return client, _experiment(client, dataset, uri)


def connect_to_read(wanted: str) -> "MlflowClient":
    """Client of the store, which is not created for it.

    Raises:
        UserError: there is no store to look `wanted` up in.
    """
    uri = address()
    if is_new():
        raise UserError(
            f"{wanted}: no such folder, and no {_database(uri)} to look it up; run `dvc repro` first"
        )
    _probe(uri)
    mlflow = library()
    mlflow.set_tracking_uri(uri)
    return mlflow.MlflowClient()


def _probe(uri: str) -> None:
    """Raise an error within seconds where MLflow would retry for minutes."""
    parts = urlsplit(uri)
    if uri.startswith(SQLITE):
        path = _database(uri)
        if path.exists():
            with closing(sqlite3.connect(path)) as database:
                database.execute("PRAGMA schema_version").fetchone()
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise PermissionError(f"cannot write {path}")
    elif parts.scheme in ("http", "https"):
        try:
            urllib.request.urlopen(f"{shown(uri).rstrip('/')}/health", timeout=PROBE_SECONDS).close()
        except urllib.error.HTTPError:
            pass  # An answer all the same: not every proxy lets /health through.
        except urllib.error.URLError as error:
            # Certificates are for MLflow to judge, which has settings of its own for them.
            if not isinstance(error.reason, ssl.SSLError):
                raise
        except http.client.HTTPException as error:
            raise OSError(f"no HTTP server: {type(error).__name__}") from None
    elif parts.hostname:
        port = parts.port or DATABASE_PORTS.get(parts.scheme.partition("+")[0])
        if port:
            socket.create_connection((parts.hostname, port), PROBE_SECONDS).close()


def _experiment(client: "MlflowClient", dataset: str, uri: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(dataset)
    if found is None:
        try:
            return client.create_experiment(dataset, _artifacts(dataset, uri), EXPERIMENT)
        except MlflowException:  # Another process may have been first on a server.
            found = client.get_experiment_by_name(dataset)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        restore = f"mlflow experiments restore --experiment-id {found.experiment_id}"
        raise UserError(f"MLflow experiment {dataset!r}: it was deleted; run `{restore}`")
    return found.experiment_id


def _artifacts(dataset: str, uri: str) -> str | None:
    """Where files of an experiment go: a server decides itself; else absolute, MLflow would take the cwd."""
    if urlsplit(uri).scheme in ("http", "https", "databricks"):
        return None
    root = _database(uri).parent if uri.startswith(SQLITE) else main_root().absolute()
    return (root / "mlruns" / dataset).as_uri()


def origin() -> dict[str, str]:
    """Tags that say where a run comes from: git commit and DVC experiment, where there are any."""
    tags = {}
    with suppress(OSError, subprocess.CalledProcessError):  # No git here, or no repository.
        commit = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True, stderr=subprocess.DEVNULL)
        tags["mlflow.source.git.commit"] = commit.strip()
    if name := os.environ.get("DVC_EXP_NAME"):
        tags["dvc_experiment"] = name
    return tags


def search(client: "MlflowClient", experiment: str, tags: Mapping[str, str], *more: str) -> list[Any]:
    """Runs with these tags, the newest first."""
    query = " and ".join([*(f"tags.{key} = '{value}'" for key, value in tags.items()), *more])
    return client.search_runs([experiment], query, order_by=["attributes.start_time DESC"])


@contextmanager
def errors() -> Iterator[None]:
    """Whatever goes wrong with the store inside is raised as one line for the user.

    Raises:
        UserError: the store does not answer, or MLflow is not installed.
    """
    try:
        yield
    except UserError:
        raise
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name}: not installed; run `pip install 'attnfd[pipeline]'`") from None
    except Exception as error:
        full = no_room(error)
        remedy = "start or fix it, or set MLFLOW_TRACKING_URI to another"
        raise UserError(f"MLflow store {shown(address())}: {full or f'{reason(error)}; {remedy}'}") from None


def no_room(error: Exception) -> str | None:
    """What to say where a store on this machine has no room for what is to be logged; else None."""
    uri = address()
    home = _database(uri).parent if uri.startswith(SQLITE) else main_root()
    scratch = [] if _of_database(error) else [Path(os.environ.get("TMPDIR", "/tmp"))]
    return full_disk(error, home, *scratch)


def _of_database(error: Exception) -> Exception | None:
    """The database's own error, which MLflow wraps twice."""
    return getattr(error.__cause__, "orig", None)


def reason(error: Exception) -> str:
    """The first line of an error, fit to be shown."""
    text = str(_of_database(error) or getattr(error, "reason", None) or error) or type(error).__name__
    text = text.replace(address(), shown(address()))
    return re.sub(r"//\S*@", "//", text.splitlines()[0])[:200]
