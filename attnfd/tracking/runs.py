"""One run is one trained model; the tags of its cell find it again.

If the store does not answer at the start, the stage does not start. If it stops answering later, the stage
continues, and only what it could not log is lost.
"""

import json
import logging
import math
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from attnfd import paths
from attnfd.errors import StoppedError, UserError
from attnfd.paths import CARD, HISTORY, Cell
from attnfd.tracking import datasets, keys, notes, scores, store, views
from attnfd.tracking.exported import log_model

if TYPE_CHECKING:
    import mlflow
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    from attnfd.data.prepared import Card
    from attnfd.results.write import Evaluated
    from attnfd.training.checkpoints import Checkpoints

FLUSH_SECONDS = 5.0
FIRST_PAUSE_SECONDS = 60.0
BATCH = 1000
LONGEST_PARAM = 6000
EXAMPLE_SIDE = 64

Name = TypeVar("Name", str, keys.Names)

logger = logging.getLogger(__name__)


class Run:
    """An open run. A problem of the store raises no error here, and delays the caller only for a short time.

    Metrics are sent in batches. After a failed call, the run does not use the store for a minute, then for
    two, and so on. In this time, metrics wait, and everything else is counted as lost.

    Args:
        again: how to log what was lost; it is the end of the warning about it.
        resumed: whether the run was open before.
        ended: when its training ended, in milliseconds. The run then keeps that end, so that its duration is
            the training's, and no system metrics are logged.
    """

    def __init__(
        self,
        client: "MlflowClient",
        run_id: str,
        cell: Cell,
        *,
        again: str,
        resumed: bool = False,
        ended: int | None = None,
    ) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        # This uses the client, because MLflow allows only one active run at a time.
        if resumed:
            client.update_run(run_id, status="RUNNING")
        self._monitor = None if ended else SystemMetricsMonitor(run_id, resume_logging=resumed)
        if self._monitor:
            self._monitor.start()
        self._ended = ended
        self._is_open = True
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
        self._no_room: str | None = None
        self._model: str | None = None
        self._logged: dict[str, int] = {}

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log metrics by names such as `step/loss`; see `attnfd.tracking.keys` and `scores`."""
        self._log(scores.of_training(values), step)

    def _log(self, values: Mapping[keys.Names, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for key, value in keys.encode(values, "/").items():
            if step > self._logged.get(key, -1):
                self._buffer.append(Metric(key, float(value), now, step))
        if time.monotonic() >= self._next_flush:
            self.flush()

    def data(self, card: "Card") -> None:
        """Name the dataset, and log what `prepare` counted in every split: images, void, pixels per class."""
        counts = {name: split.model_dump() for name, split in card.splits.items()}
        self._log(_numbers(keys.leaves(counts, "data")), step=0)
        self._give_up_on("dataset", lambda: self._client.log_inputs(self.id, datasets.inputs(card)))

    def go_on(self) -> None:
        """From now on, do not log again what a training logged between its last checkpoint and its end."""
        for key in self._client.get_run(self.id).data.metrics:
            self._logged[key] = max(found.step for found in self._client.get_metric_history(self.id, key))

    def flush(self) -> None:
        """Send the waiting metrics, unless the run does not use the store at the moment."""
        while self._buffer and self._attempt(lambda: self._client.log_batch(self.id, self._buffer[:BATCH])):
            del self._buffer[:BATCH]
        self._next_flush = time.monotonic() + FLUSH_SECONDS

    def trained(self, weights: str) -> None:
        """Tag this run with the SHA-256 of its model's weights; `resume_run` finds it by this tag.

        The tag is set when the run ends, and only if nothing was lost. A run with gaps is not resumed:
        evaluating the model then logs a new run.
        """
        self._model = store.short(weights)
        self._paused_until = 0.0  # The last chance to log these files: the store may be back.
        for name in (HISTORY, CARD):
            self._log_file(self._cell.model / name, "training")

    def evaluated(self, evaluated: "Evaluated") -> None:
        """Log the results of the cell's model, its pictures, and the model itself.

        Pictures are not in a folder, because *Compare* shows only those at the top level.
        """
        self._log(_numbers(scores.of_evaluation(evaluated.metrics)), step=0)
        note = f"{notes.title(self._cell)}\n\n{notes.scores(evaluated.metrics)}"
        self._give_up_on("tag", lambda: self._client.set_tag(self.id, views.NOTE, note))
        for file in sorted(self._cell.results.iterdir()):
            if file.suffix == ".png":
                self._log_file(file)
            elif file.suffix != ".safetensors":  # An ablation has its weights in the folder of its results.
                self._log_file(file, "evaluation")
            if file.suffix == ".png" and file.stem in views.PICTURES:
                self._log_chart(file)
        corner = evaluated.images[:1, :, :EXAMPLE_SIDE, :EXAMPLE_SIDE]
        self.model(corner.permute(0, 2, 3, 1).numpy())

    def model(self, example: "np.ndarray") -> None:
        """Log the cell's network so that it can be loaded without this package; see `ClassMaps`.

        Args:
            example: RGB images (B, H, W, 3), uint8.
        """
        self._give_up_on("model", lambda: log_model(self.id, self._cell.name, self._cell.model, example))

    def close(self, status: str) -> None:
        """End the run, unless it has ended. If something was lost, a warning of one line says what.

        Raises:
            UserError: a full disk lost something. Without this error the cell would count as done, and DVC
                would not run it again.
        """
        if not self._is_open:
            return
        self._is_open = False
        self._paused_until = 0.0
        self.flush()
        self._lost["metric value"] += len(self._buffer)
        done = status == "FINISHED"
        if self._no_room and self._lost.total():
            status = "FAILED"
        if self._model and not self._lost.total():
            self._give_up_on("tag", lambda: self._client.set_tag(self.id, store.MODEL, self._model))
        try:
            if self._monitor:
                self._monitor.finish()
            self._client.set_terminated(self.id, status, self._ended)
        except Exception as error:
            self._lost["end of the run"] += 1
            self._reason = self._reason or store.reason(error)
            self._no_room = self._no_room or store.no_room(error)
        lost = ", ".join(f"{count} × {what}" for what, count in self._lost.items() if count)
        if lost and self._no_room and done:
            raise UserError(f"not logged: {lost}: {self._no_room}")
        if lost:
            where = store.shown(store.address())
            logger.warning("MLflow at %s: %s; not logged: %s; %s", where, self._reason, lost, self._again)

    def _log_chart(self, path: Path) -> None:
        from PIL import Image

        with Image.open(path, formats=("PNG",)) as image:
            picture = image.convert("RGB")
        self._give_up_on("picture", lambda: self._client.log_image(self.id, picture, key=path.stem, step=0))

    def _log_file(self, path: Path, folder: str | None = None) -> None:
        if not path.exists():
            raise UserError(f"{path}: not found; write it again with `dvc repro`, or get it with `dvc pull`")
        self._give_up_on("file", lambda: self._client.log_artifact(self.id, str(path), folder))

    def _give_up_on(self, what: str, call: Callable[[], object]) -> None:
        if not self._attempt(call):
            self._lost[what] += 1

    def _attempt(self, call: Callable[[], object]) -> bool:
        if time.monotonic() < self._paused_until:
            return False
        try:
            call()
        except Exception as error:
            self._reason = store.reason(error)
            self._no_room = store.no_room(error)
            self._paused_until = time.monotonic() + self._pause
            self._pause *= 2
            return False
        self._pause = FIRST_PAUSE_SECONDS
        return True


class Silent(Run):
    """The run of a process that is not the first one: it logs nothing."""

    def __init__(self) -> None:
        """Needs no store."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Not logged."""

    def data(self, card: "Card") -> None:
        """Not logged."""

    def flush(self) -> None:
        """Nothing to send."""

    def trained(self, weights: str) -> None:
        """Not logged."""

    def close(self, status: str) -> None:
        """Nothing to end."""


@contextmanager
def open_run(cell: Cell, params: Mapping[str, Any], checkpoints: "Checkpoints") -> Iterator[Run]:
    """Track the training of a cell in its own run, until `Run.trained`.

    Of several processes, only the first one has a run. A training with checkpoints continues in the run in
    which it began. Other runs of this cell that a dead process of this machine left open are marked killed.

    Args:
        params: the cell's resolved settings, nested.
        checkpoints: those of this training.

    Raises:
        UserError: the store does not answer.
    """
    from attnfd.runtime import processes

    if processes.rank() > 0:
        yield Silent()
        return
    with store.errors():
        client, experiment = store.connect(cell.dataset)
        for left in store.search(client, experiment, cell.tags, "attributes.status = 'RUNNING'"):
            if _process_is_gone(left.data.tags.get(store.PROCESS, "")):
                client.set_terminated(left.info.run_id, "KILLED")
        again = "evaluate the model to log it again"
        begun = _begun(client, experiment, cell, checkpoints)
        if begun:
            client.set_tag(begun, store.PROCESS, _process())
            run = Run(client, begun, cell, again=again, resumed=True)
            run.go_on()
        else:
            run = _create(
                client, experiment, cell, params, again, {store.INPUTS: store.short(checkpoints.key)}
            )
    with _ending(run):
        yield run


@contextmanager
def resume_run(cell: Cell, params: Mapping[str, Any]) -> Iterator[Run]:
    """Continue the newest run of a cell's trained model, or log the model in a new run if the store has none.

    Args:
        params: the cell's resolved settings, for a new run.

    Raises:
        UserError: the store does not answer, or there is no model.
    """
    import pandas as pd

    from attnfd.data.prepared import Card
    from attnfd.models import checkpoint

    weights = checkpoint.fingerprint(cell.model)
    stage = os.environ.get("DVC_STAGE")
    again = f"run `dvc repro --force --single-item {stage}` to log it" if stage else "evaluate it again"
    with store.errors():
        client, experiment = store.connect(cell.dataset)
        found = store.search(client, experiment, {**cell.tags, store.MODEL: store.short(weights)})
        if found:
            info = found[0].info
            run = Run(client, info.run_id, cell, again=again, resumed=True, ended=info.end_time)
        else:
            run = _create(client, experiment, cell, params, again, {})
    with _ending(run):
        if not found:
            run.data(Card.load(paths.prepared(cell.dataset)))
            run.trained(weights)
            for row in pd.read_csv(cell.model / HISTORY).to_dict("records"):
                epoch = int(row.pop("epoch"))
                run.metrics(_numbers({f"epoch/{name}": value for name, value in row.items()}), epoch)
        yield run


def find(client: "MlflowClient", experiment: str, cell: Cell) -> list["mlflow.entities.Run"]:
    """Complete runs of the model in a cell's folder, the newest first."""
    card = json.loads((cell.model / CARD).read_bytes())
    return store.search(client, experiment, {**cell.tags, store.MODEL: store.short(card["sha256"])})


def _begun(client: "MlflowClient", experiment: str, cell: Cell, checkpoints: "Checkpoints") -> str | None:
    """Id of the run in which a training with checkpoints began."""
    if not checkpoints.files():
        return None
    tags = {**cell.tags, store.INPUTS: store.short(checkpoints.key)}
    runs = store.search(client, experiment, tags, "attributes.status != 'FINISHED'")
    return runs[0].info.run_id if runs else None


def _create(
    client: "MlflowClient",
    experiment: str,
    cell: Cell,
    params: Mapping[str, Any],
    again: str,
    more: Mapping[str, str],
) -> Run:
    from mlflow.entities import Param

    tags = {**cell.tags, store.PROCESS: _process(), views.NOTE: notes.title(cell), **more}
    created = client.create_run(experiment, tags=store.described(tags), run_name=cell.name)
    settings = [
        Param(key, _text(value)[:LONGEST_PARAM])
        for key, value in keys.encode(keys.leaves(params), ".").items()
    ]
    client.log_batch(created.info.run_id, params=settings)
    return Run(client, created.info.run_id, cell, again=again)


def _process() -> str:
    """A name of this process, by which other processes can look for it."""
    return f"{socket.gethostname()} {os.getpid()}"


def _process_is_gone(process: str) -> bool:
    """Whether `<host> <pid>` was a process of this machine and no longer runs."""
    import psutil  # type: ignore[import-untyped]

    host, _, pid = process.partition(" ")
    return host == socket.gethostname() and not psutil.pid_exists(int(pid))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _numbers(values: Mapping[Name, Any]) -> dict[Name, float]:
    """The numbers among values; NaN means that there is none."""
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, int | float) and not math.isnan(value)
    }


@contextmanager
def _ending(run: Run) -> Iterator[None]:
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except (KeyboardInterrupt, StoppedError):
        status = "KILLED"
        raise
    finally:
        run.close(status)
