"""The tracking store: its address, whether it answers, and its MLflow client.

The store is `MLFLOW_TRACKING_URI` if set, else `mlflow.db` and `mlruns/` in the main root.
"""

import http.client
import logging
import os
import re
import socket
import sqlite3
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attnfd.errors import UserError, full_disk
from attnfd.paths import main_root
from attnfd.tracking import moved, names, views

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

# MLflow reads these when it is imported. Variables that the user has set are not changed.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # By default MLflow would retry for minutes while the training waits.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # A run that is shorter than one interval has no system metrics.
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "2",
}
# These tags say that an experiment has training runs, not traces of language models.
EXPERIMENT = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.experiment.primaryMetric.name": "miou",
    "mlflow.experiment.primaryMetric.greaterIsBetter": "True",
}
SQLITE = "sqlite:///"
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
PROBE_SECONDS = 3
# Tags of runs: the first characters of a SHA-256, and the process that runs it.
MODEL, INPUTS, CONTENT, PROCESS = (f"attnfd.{name}" for name in ("model", "inputs", "content", "process"))


def check() -> None:
    """Make sure that the store answers.

    Raises:
        UserError: it does not.
    """
    with errors():
        _probe(address())


def address() -> str:
    """URI of the store. A relative SQLite path starts at the main root: temporary clones are deleted."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    if uri.startswith(SQLITE):
        return SQLITE + str(main_root().absolute() / uri.removeprefix(SQLITE))
    return uri


def is_local() -> bool:
    """Whether the store is a file of this project."""
    return address().startswith(SQLITE)


def is_new() -> bool:
    """Whether the store is a file that does not exist yet."""
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
    # These also raise their errors, which `errors` or the run then reports in one line.
    for doubled in ("mlflow.store.db.utils", "mlflow.system_metrics.system_metrics_monitor"):
        logging.getLogger(doubled).setLevel(logging.CRITICAL)
    return mlflow


def _database(uri: str) -> Path:
    return Path(uri.removeprefix(SQLITE))


def connect(name: str, *, models: bool = True) -> tuple["MlflowClient", str]:
    """Client of the store and id of an experiment; both are created if they are missing.

    Args:
        name: of the experiment, without the project; for a dataset's models it is the dataset.
        models: whether the experiment has a dataset's models, and so their views.
    """
    uri = address()
    _probe(uri)
    mlflow = library()
    mlflow.set_tracking_uri(uri)
    # Two processes that create the tables of one SQLite file at the same time would break it.
    with alone() if is_local() else nullcontext():
        client = mlflow.MlflowClient()
        return client, _experiment(client, name, uri, models)


def alone() -> AbstractContextManager[object]:
    """A lock between the processes of this project, for work that only one may do at a time."""
    from filelock import FileLock

    if is_local():
        return FileLock(f"{_database(address())}.lock", timeout=60)
    folder = main_root() / ".attnfd"
    folder.mkdir(exist_ok=True)
    return FileLock(folder / "mlflow.lock", timeout=60)


def connect_to_read(wanted: str) -> "MlflowClient":
    """Client of an existing store; it is not created.

    Raises:
        UserError: there is no store in which to look for `wanted`.
    """
    uri = address()
    if is_new():
        raise UserError(
            f"{wanted}: no such folder, and no {_database(uri)} to look in; run `dvc repro` first"
        )
    _probe(uri)
    mlflow = library()
    mlflow.set_tracking_uri(uri)
    return mlflow.MlflowClient()


def _probe(uri: str) -> None:
    """Raise an error within seconds if the store does not answer; MLflow would retry for minutes."""
    parts = urlsplit(uri)
    if uri.startswith(SQLITE):
        path = _database(uri)
        if path.exists():
            with closing(sqlite3.connect(path)) as database:
                database.execute("PRAGMA schema_version").fetchone()
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise PermissionError(f"cannot write {path}")
        if path.exists():
            moved.follow(path)
    elif parts.scheme in ("http", "https"):
        try:
            urllib.request.urlopen(f"{shown(uri).rstrip('/')}/health", timeout=PROBE_SECONDS).close()
        except urllib.error.HTTPError:
            pass  # The server answers: not every proxy forwards /health.
        except urllib.error.URLError as error:
            # MLflow checks certificates itself, with its own settings.
            if not isinstance(error.reason, ssl.SSLError):
                raise
        except http.client.HTTPException as error:
            raise OSError(f"not an HTTP server: {type(error).__name__}") from None
    elif parts.hostname:
        port = parts.port or DATABASE_PORTS.get(parts.scheme.partition("+")[0])
        if port:
            socket.create_connection((parts.hostname, port), PROBE_SECONDS).close()


def _experiment(client: "MlflowClient", name: str, uri: str, models: bool) -> str:
    full = names.experiment(name, local=is_local())
    found = client.get_experiment_by_name(full) or _made(client, full, uri)
    if found.lifecycle_stage == "deleted":
        restore = f"mlflow experiments restore --experiment-id {found.experiment_id}"
        raise UserError(f"MLflow experiment {full!r}: was deleted; run `{restore}`")
    if models and found.tags.get(views.VERSION) != views.version():
        for key, value in (EXPERIMENT | views.tags(name, found.experiment_id)).items():
            client.set_experiment_tag(found.experiment_id, key, value)
    return found.experiment_id


def _made(client: "MlflowClient", full: str, uri: str) -> "Experiment":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_experiment(client.create_experiment(full, _artifacts(full, uri), EXPERIMENT))
    except MlflowException:  # Another process may have been first on a server.
        found = client.get_experiment_by_name(full)
        if found is None:
            raise
        return found


def _artifacts(experiment: str, uri: str) -> str | None:
    """Where an experiment stores files: a server decides itself; else an absolute path, not MLflow's cwd."""
    if urlsplit(uri).scheme in ("http", "https", "databricks"):
        return None
    root = _database(uri).parent if uri.startswith(SQLITE) else main_root().absolute()
    return moved.files(root, experiment).as_uri()


def origin() -> dict[str, str]:
    """Tags for the origin of a run: Git commit and DVC experiment, if there are any."""
    tags = {}
    with suppress(OSError, subprocess.CalledProcessError):  # No git here, or no repository.
        commit = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True, stderr=subprocess.DEVNULL)
        tags["mlflow.source.git.commit"] = commit.strip()
    if name := os.environ.get("DVC_EXP_NAME"):
        tags["dvc_experiment"] = name
    return tags


def described(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags of a new run, with its origin and the user who started it."""
    from mlflow.tracking.context.registry import resolve_tags

    return resolve_tags({**tags, **origin()})


def short(sha256: str) -> str:
    """The part of a SHA-256 that tags have: a whole one would fill a table."""
    return sha256[:12]


def search(client: "MlflowClient", experiment: str, tags: Mapping[str, str], *more: str) -> list[Any]:
    """Runs with these tags, the newest first."""
    query = " and ".join([*(f"tags.`{key}` = '{value}'" for key, value in tags.items()), *more])
    return client.search_runs([experiment], query, order_by=["attributes.start_time DESC"])


@contextmanager
def errors() -> Iterator[None]:
    """Raise any error of the store in this context as one line for the user.

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
    """The message if a store on this machine has no room for what is logged; else None."""
    uri = address()
    home = _database(uri).parent if uri.startswith(SQLITE) else main_root()
    scratch = [] if _of_database(error) else [Path(os.environ.get("TMPDIR", "/tmp"))]
    return full_disk(error, home, *scratch)


def _of_database(error: Exception) -> Exception | None:
    """The database's own error, which MLflow wraps twice."""
    return getattr(error.__cause__, "orig", None)


def reason(error: Exception) -> str:
    """The first line of an error, without secrets and not too long."""
    text = str(_of_database(error) or getattr(error, "reason", None) or error) or type(error).__name__
    text = text.replace(address(), shown(address()))
    return re.sub(r"//\S*@", "//", text.splitlines()[0])[:200]
