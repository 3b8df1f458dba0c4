"""The best students of a dataset as versions of its registered model, such as `attnfd-shapes`."""

import json
import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from attnfd import paths
from attnfd.analysis.tables import percent
from attnfd.paths import TEACHER, Cell
from attnfd.tracking import names, notes, runs, store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

logger = logging.getLogger(__name__)


def best(found: pd.DataFrame) -> pd.DataFrame:
    """One row of `tables.results` for every student, the best student first.

    The best method has the highest mean mIoU over its seeds, so that a lucky seed does not decide. Of its
    seeds, the one with the highest mIoU is taken. Ablations are left out.
    """
    students = found[(found["variant"] == "") & (found["student"] != TEACHER)]
    means = students.groupby(["student", "method"])["miou"].transform("mean")
    ranked = students.assign(mean=means).sort_values(["mean", "miou"], ascending=False, kind="stable")
    return ranked.drop_duplicates("student")


def register(client: "MlflowClient", experiment: str, chosen: Sequence[Cell], found: pd.DataFrame) -> None:
    """Give the best model of every student the alias `best-<student>`, and the best of all `best`.

    A model that is already a version stays that version; its card and tags are updated. A model without a run
    in the store is left out with a warning.

    Args:
        found: `tables.results(chosen)`.
    """
    cells = [chosen[place] for place in best(found).index]
    name = names.registered(cells[0].dataset, local=store.is_local())
    for cell in cells:
        version = _version(client, experiment, cell, name)
        if version is None:
            logger.warning(
                "%s: not registered: the store has no run with this model; log it with `dvc repro --force "
                "--single-item evaluate@%s-%s`", cell.name, cell.dataset, cell.name,
            )  # fmt: skip
            continue
        client.set_registered_model_alias(name, re.sub(r"[^\w-]", "_", f"best-{cell.student}"), version)
        if cell is cells[0]:
            client.set_registered_model_alias(name, "best", version)


def _version(client: "MlflowClient", experiment: str, cell: Cell, name: str) -> str | None:
    """The version with a cell's model, created if missing; None if no run has the model."""
    logged = _logged(client, experiment, cell)
    if logged is None:
        return None
    run, model = logged
    data = json.loads((paths.prepared(cell.dataset) / paths.CARD).read_bytes())
    metrics = json.loads((cell.results / paths.METRICS).read_bytes())
    origin = {
        "data": data["sha256"],
        "weights": json.loads((cell.model / paths.CARD).read_bytes())["sha256"],
        "commit": run.data.tags.get("mlflow.source.git.commit", "unknown"),
    }
    tags = {
        **{key: value for key, value in cell.tags.items() if key != "stage"},
        "miou": percent(metrics["miou"]),
        **{f"attnfd.{key}": store.short(value) for key, value in origin.items()},
    }
    _ensure(client, name, notes.registered(cell.dataset, data["classes"]))
    query = f"name = '{name}' AND tags.`attnfd.weights` = '{tags['attnfd.weights']}'"
    versions = client.search_model_versions(query) or [
        client.create_model_version(name, model.model_uri, run.info.run_id, model_id=model.model_id)
    ]
    version = str(versions[0].version)
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value)
    client.update_model_version(name, version, notes.version(cell, metrics, origin))
    return version


def _logged(client: "MlflowClient", experiment: str, cell: Cell) -> tuple["Run", "LoggedModel"] | None:
    """The newest run with a cell's model, and the model."""
    for run in runs.find(client, experiment, cell):
        for model in client.search_logged_models([experiment], f"source_run_id = '{run.info.run_id}'"):
            if model.status == "READY":
                return run, model
    return None


def _ensure(client: "MlflowClient", name: str, description: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        client.update_registered_model(name, description)
