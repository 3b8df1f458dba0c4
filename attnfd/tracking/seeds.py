"""A parent run for each student and method: it groups the runs of the seeds and has their mean scores.

The report creates these runs. It is one process per dataset, so no parent run is created twice.
"""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from attnfd.evaluation.metrics import SCORES
from attnfd.paths import Cell
from attnfd.tracking import keys, runs, scores, store

if TYPE_CHECKING:
    from mlflow import MlflowClient

STAGE = "seeds"
PARENT = "mlflow.parentRunId"
BY = ["student", "method", "variant"]


def group(client: "MlflowClient", experiment: str, chosen: Sequence[Cell], found: pd.DataFrame) -> None:
    """Put the runs of cells that differ only in their seed below one run, with the means of their scores.

    Args:
        found: `tables.results(chosen)`.
    """
    for _, rows in found.groupby(BY, sort=False):
        cells = [chosen[place] for place in rows.index]
        if len(cells) < 2:
            continue
        tags = {key: value for key, value in cells[0].tags.items() if key != "seed"} | {"stage": STAGE}
        with store.alone():
            parent = _parent(client, experiment, tags, cells[0].name.rpartition("-")[0])
        _log_means(client, parent, rows)
        for cell in cells:
            for run in runs.find(client, experiment, cell)[:1]:
                if run.data.tags.get(PARENT) != parent:
                    client.set_tag(run.info.run_id, PARENT, parent)


def _parent(client: "MlflowClient", experiment: str, tags: Mapping[str, str], name: str) -> str:
    """Id of the oldest run with these tags, created if there is none."""
    variant = [] if "variant" in tags else ["tags.variant IS NULL"]
    if known := store.search(client, experiment, tags, *variant):
        return known[-1].info.run_id
    run = client.create_run(experiment, tags=store.described(tags), run_name=name)
    client.set_terminated(run.info.run_id)
    return run.info.run_id


def _log_means(client: "MlflowClient", run: str, rows: pd.DataFrame) -> None:
    from mlflow.entities import Metric

    means: dict[str, Any] = {name: rows[name].mean() for name in SCORES}
    means |= {"split": rows["split"].iloc[0], "val": {"miou": rows["val_miou"].mean()}}
    now = int(time.time() * 1000)
    metrics = [
        Metric(key, value, now, 0) for key, value in keys.encode(scores.of_evaluation(means), "/").items()
    ]
    client.log_batch(run, metrics=metrics)
