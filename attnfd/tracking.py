"""Everything MLflow: one run is one trained model, found again by the tags of its cell.

The store is `MLFLOW_TRACKING_URI` if set, else `mlflow.db` with `mlruns/` beside it at the main root. A store
that does not answer stops a stage before it starts; one lost on the way only costs what was to be logged.
"""

import copy
import http.client
import json
import logging
import math
import os
import re
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attnfd.errors import UserError
from attnfd.paths import CARD, HISTORY, METRICS, MODEL, Cell, main_root

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from torch import nn

    from attnfd.results import Evaluated

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
SQLITE = "sqlite:///"
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
PROBE_SECONDS = 3
FLUSH_SECONDS = 5.0
FIRST_PAUSE_SECONDS = 60.0
BATCH = 1000
LONGEST_PARAM = 6000
EXAMPLE_SIDE = 64

logger = logging.getLogger(__name__)


class Run:
    """An open run; nothing that it does raises for the store's sake, or holds up the caller for long.

    Metrics are sent in batches. After a failed call the store is left alone for a minute, then for two, and
    so on; metrics wait meanwhile, everything else is given up and counted.

    Args:
        again: how to log what was lost after all; ends the warning about it.
    """

    def __init__(self, client: "MlflowClient", run_id: str, cell: Cell, *, again: str) -> None:
        self.id = run_id
        self._cell = cell
        self._again = again
        self._client = client
        self._buffer: list[Metric] = []
        self._next_flush = time.monotonic() + FLUSH_SECONDS
        self._pause = FIRST_PAUSE_SECONDS
        self._paused_until = 0.0
        self._lost: Counter[str] = Counter()
        self._reason = ""
        self._weights: str | None = None

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log metrics; characters that MLflow refuses in a name become `_`."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for key, value in values.items():
            self._buffer.append(Metric(re.sub(r"[^\w\-./: ]", "_", key), float(value), now, step))
        if time.monotonic() >= self._next_flush:
            self._flush()

    def trained(self, weights: str) -> None:
        """Name the model of this run by the SHA-256 of its weights, by which `resume_run` finds it.

        That tag is set when the run ends, and only if nothing was lost: a run with gaps is not resumed, so
        that evaluating the model logs it anew.
        """
        self._weights = weights
        for name in (HISTORY, CARD):
            self._log_file(self._cell.model / name, "training")

    def evaluated(self, evaluated: "Evaluated") -> None:
        """Log the results of the cell's model, its pictures, and the model itself."""
        from attnfd.models import checkpoint

        self.metrics(_numbers("val", evaluated.metrics), step=0)
        for file in sorted(self._cell.results.iterdir()):
            if file.suffix != ".safetensors":  # An ablation's weights lie beside its results.
                self._log_file(file, "evaluation")
        network, _ = checkpoint.load(self._cell.model)
        corners = evaluated.images[[0, -1], :, :EXAMPLE_SIDE, :EXAMPLE_SIDE]
        self.model(network, corners.permute(0, 2, 3, 1).numpy())

    def model(self, network: "nn.Module", example: "np.ndarray") -> None:
        """Log a network so that it can be loaded without this package; see `ClassMap`.

        Args:
            example: RGB images (B, H, W, 3), uint8, B ≥ 2 (torch.export takes a size of 1 for a constant).
        """
        assert len(example) >= 2
        self._give_up_on("model", lambda: _log_model(network, example))

    def close(self, status: str) -> None:
        """End the run, and say in one line what was lost, if anything."""
        self._paused_until = 0.0
        self._flush()
        self._lost["metric value"] += len(self._buffer)
        if self._weights and not self._lost.total():
            self._give_up_on("tag", lambda: self._client.set_tag(self.id, "model", self._weights))
        try:
            _mlflow().end_run(status)
        except Exception as error:
            self._lost["end of the run"] += 1
            self._reason = self._reason or _reason(error)
        lost = ", ".join(f"{count} × {what}" for what, count in self._lost.items() if count)
        if lost:
            where = shown(address())
            logger.warning("MLflow at %s: %s; not logged: %s; %s", where, self._reason, lost, self._again)

    def _log_file(self, path: Path, folder: str) -> None:
        assert path.exists(), path
        self._give_up_on("file", lambda: self._client.log_artifact(self.id, str(path), folder))

    def _flush(self) -> None:
        while self._buffer and self._attempt(lambda: self._client.log_batch(self.id, self._buffer[:BATCH])):
            del self._buffer[:BATCH]
        self._next_flush = time.monotonic() + FLUSH_SECONDS

    def _give_up_on(self, what: str, call: Callable[[], object]) -> None:
        if not self._attempt(call):
            self._lost[what] += 1

    def _attempt(self, call: Callable[[], object]) -> bool:
        if time.monotonic() < self._paused_until:
            return False
        try:
            call()
        except Exception as error:
            self._reason = _reason(error)
            self._paused_until = time.monotonic() + self._pause
            self._pause *= 2
            return False
        self._pause = FIRST_PAUSE_SECONDS
        return True


@contextmanager
def open_run(cell: Cell, params: Mapping[str, Any]) -> Iterator[Run]:
    """Track the training of a cell in a run of its own; it ends with `Run.trained`.

    Runs of this cell that a dead process of this machine left open are marked as killed.

    Args:
        params: the cell's resolved settings, nested as they are.

    Raises:
        UserError: the store does not answer.
    """
    with _store_errors():
        client, experiment = _connect(cell.dataset)
        for left in _search(client, experiment, cell.tags, "attributes.status = 'RUNNING'"):
            if _process_is_gone(left.data.tags.get("process", "")):
                client.set_terminated(left.info.run_id, "KILLED")
        run = _create(client, experiment, cell, params, again="evaluating the model logs it anew")
    with _ending(run):
        yield run


@contextmanager
def resume_run(cell: Cell, params: Mapping[str, Any]) -> Iterator[Run]:
    """Go on with the newest run of a cell's trained model, or log it anew if the store has none.

    Args:
        params: the cell's resolved settings, for a new run.

    Raises:
        UserError: the store does not answer, or there is no model.
    """
    import pandas as pd

    from attnfd.models import checkpoint

    weights = checkpoint.fingerprint(cell.model)
    stage = os.environ.get("DVC_STAGE")
    again = f"run `dvc repro --force --single-item {stage}` to log it" if stage else "evaluate it again"
    with _store_errors():
        client, experiment = _connect(cell.dataset)
        found = _search(client, experiment, {**cell.tags, "model": weights})
        if found:
            _mlflow().start_run(run_id=found[0].info.run_id, log_system_metrics=True)
            run = Run(client, found[0].info.run_id, cell, again=again)
        else:
            run = _create(client, experiment, cell, params, again=again)
    with _ending(run):
        if not found:
            run.trained(weights)
            for row in pd.read_csv(cell.model / HISTORY).to_dict("records"):
                epoch = int(row.pop("epoch"))
                run.metrics(_numbers("epoch", row), epoch)
        yield run


def fetch(name: str, folder: Path) -> None:
    """Write a logged model into a folder as its stages did: card, weights, and metrics if it was evaluated.

    Args:
        name: id of a run, a registered model's name (for its alias `best`), or a `models:/` or `runs:/` URI.

    Raises:
        UserError: the store does not answer, or has no such model.
    """
    uri = address()
    if uri.startswith(SQLITE) and not _database(uri).exists():
        raise UserError(
            f"{name}: no such folder, and no {_database(uri)} to look it up; run `dvc repro` first"
        )
    if re.fullmatch("[0-9a-f]{32}", name):
        name = f"runs:/{name}/model"
    elif ":/" not in name:
        name = f"models:/{name}@best"
    with _store_errors():
        _probe(uri)
        mlflow = _mlflow()
        mlflow.set_tracking_uri(uri)
        from mlflow.exceptions import MlflowException

        try:
            _fetch(name, folder)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            allowed = "allowed: an id or a model that `attnfd ui` shows"
            raise UserError(f"{name}: {_reason(error)}; {allowed}") from None


def check_store() -> None:
    """Make sure that the store answers.

    Raises:
        UserError: it does not.
    """
    with _store_errors():
        _probe(address())


def ui(port: int) -> None:
    """Become MLflow's server of the store's pages, on this machine only.

    Raises:
        UserError: there is no store yet, or it is a server with pages of its own.
    """
    uri = address()
    if urlsplit(uri).scheme.startswith("http"):
        raise UserError(f"MLFLOW_TRACKING_URI: {shown(uri)} serves pages itself; open it in a browser")
    if uri.startswith(SQLITE) and not _database(uri).exists():
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


def shown(uri: str) -> str:
    """A URI without user, password and query."""
    if uri.startswith(SQLITE):
        return uri
    return re.sub("//.*@", "//", uri).partition("?")[0]


def flatten(nested: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested mappings, by dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _fetch(name: str, folder: Path) -> None:
    import mlflow.pytorch
    import safetensors.torch

    client = mlflow.MlflowClient()
    run = mlflow.models.get_model_info(name).run_id
    logged = {file.path for kind in ("training", "evaluation") for file in client.list_artifacts(run, kind)}
    for file in {f"training/{CARD}", f"evaluation/{METRICS}"} & logged:
        Path(client.download_artifacts(run, file, str(folder))).replace(folder / Path(file).name)
    state = mlflow.pytorch.load_model(name).state_dict()
    # What `ClassMap` holds is the network.
    network = {key.removeprefix("network."): value.contiguous() for key, value in state.items()}
    safetensors.torch.save_file(network, folder / MODEL)


def _mlflow() -> ModuleType:
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    import mlflow

    for chatty in ("alembic", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    return mlflow


def _database(uri: str) -> Path:
    return Path(uri.removeprefix(SQLITE))


def _connect(dataset: str) -> tuple["MlflowClient", str]:
    """Client of the store and id of the data set's experiment, both created where missing."""
    from filelock import FileLock

    uri = address()
    _probe(uri)
    mlflow = _mlflow()
    mlflow.set_tracking_uri(uri)
    # Two processes that create the tables of one SQLite file at once leave it broken.
    lock = FileLock(f"{_database(uri)}.lock", timeout=60) if uri.startswith(SQLITE) else nullcontext()
    with lock:
        client = mlflow.MlflowClient()
        return client, _experiment(client, dataset, uri)


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
            return client.create_experiment(dataset, _artifacts(dataset, uri))
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


def _search(client: "MlflowClient", experiment: str, tags: Mapping[str, str], *more: str) -> list[Any]:
    """Runs with these tags, the newest first."""
    query = " and ".join([*(f"tags.{key} = '{value}'" for key, value in tags.items()), *more])
    return client.search_runs([experiment], query, order_by=["attributes.start_time DESC"])


def _create(
    client: "MlflowClient", experiment: str, cell: Cell, params: Mapping[str, Any], again: str
) -> Run:
    tags = {**cell.tags, "process": f"{socket.gethostname()} {os.getpid()}"}
    with suppress(OSError, subprocess.CalledProcessError):  # No git here, or no repository.
        commit = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True, stderr=subprocess.DEVNULL)
        tags["mlflow.source.git.commit"] = commit.strip()
    if name := os.environ.get("DVC_EXP_NAME"):
        tags["dvc_experiment"] = name
    mlflow = _mlflow()
    started = mlflow.start_run(
        experiment_id=experiment, run_name=cell.name, tags=tags, log_system_metrics=True
    )
    mlflow.log_params({key: _text(value)[:LONGEST_PARAM] for key, value in flatten(params).items()})
    return Run(client, started.info.run_id, cell, again=again)


def _process_is_gone(process: str) -> bool:
    """Whether `<host> <pid>` is of this machine and runs no more."""
    import psutil  # type: ignore[import-untyped]

    host, _, pid = process.partition(" ")
    return host == socket.gethostname() and not psutil.pid_exists(int(pid))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _numbers(group: str, nested: Mapping[Any, Any]) -> dict[str, float]:
    """The numbers among the leaves of a mapping; NaN stands for "there is none"."""
    return {
        f"{group}/{key.replace('.', '/')}": value
        for key, value in flatten(nested).items()
        if isinstance(value, int | float) and not math.isnan(value)
    }


@contextmanager
def _ending(run: Run) -> Iterator[None]:
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        run.close(status)


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name}: not installed; run `pip install 'attnfd[pipeline]'`") from None
    except Exception as error:
        mend = "start or mend it, or set MLFLOW_TRACKING_URI to another"
        raise UserError(f"MLflow store {shown(address())}: {_reason(error)}; {mend}") from None


def _reason(error: Exception) -> str:
    """The first line of an error, fit to be shown."""
    text = str(getattr(error, "reason", None) or error) or type(error).__name__
    text = text.replace(address(), shown(address()))
    return re.sub(r"//\S*@", "//", text.splitlines()[0])[:200]


def _log_model(network: "nn.Module", example: "np.ndarray") -> None:
    import mlflow.pytorch
    import numpy as np
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from attnfd.classmap import ClassMap

    # On the CPU: MLflow loads an exported model only on the kind of device that it was exported on.
    model = ClassMap(copy.deepcopy(network).cpu()).eval()
    mlflow.pytorch.log_model(
        model,
        name="model",
        signature=ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))]),
            outputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1))]),
        ),
        input_example=example,
        # Given, because MLflow would load the model in another process to find out.
        pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}", f"numpy=={np.__version__}"],
        serialization_format="pt2",
        # A trial of the example takes as long as half the export.
        validate_serving_input=False,
    )
