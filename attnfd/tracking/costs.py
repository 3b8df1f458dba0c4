"""The cost of every training, from the runs of the store: outputs of the pipeline contain no durations."""

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

import pandas as pd

from attnfd.analysis import tables
from attnfd.paths import Cell
from attnfd.tracking import runs

if TYPE_CHECKING:
    from mlflow import MlflowClient

PER_EPOCH = ("seconds_per_step", "images_per_second")
PEAKS = ("peak_memory_mib", "peak_device_memory_mib")
TOTAL = "training_seconds"
TEXT = ("student", "method")


def collect(client: "MlflowClient", experiment: str, chosen: Sequence[Cell]) -> pd.DataFrame:
    """A row per cell: its labels, median `seconds_per_step` and `images_per_second` over the epochs, peaks of
    memory in MiB, and `training_seconds`; empty if the store has no run that trained the cell's model.
    """
    rows = []
    for cell in chosen:
        row: dict[str, str | float] = {**tables.labels(cell)}
        trained = (run for run in runs.find(client, experiment, cell) if f"speed/{TOTAL}" in run.data.metrics)
        if run := next(trained, None):
            for key in PER_EPOCH:
                points = client.get_metric_history(run.info.run_id, f"speed/{key}")
                row[key] = median(point.value for point in points)
            for key in (*PEAKS, TOTAL):
                row[key] = run.data.metrics.get(f"speed/{key}", float("nan"))
        rows.append(row)
    return pd.DataFrame(rows, columns=[*tables.labels(chosen[0]), *PER_EPOCH, *PEAKS, TOTAL])


def table(collected: pd.DataFrame) -> pd.DataFrame:
    """A row per student, method and variant: numbers of `seeds` and of `runs`, means over the runs, the
    highest peaks, and `vs_none`, the seconds of a step divided by those of the undistilled student.
    """
    by = ["student", "method", "variant"]
    costs = collected.groupby(by, sort=False, as_index=False).agg(
        seeds=("seed", "size"),
        runs=(TOTAL, "count"),
        seconds_per_step=("seconds_per_step", "mean"),
        images_per_second=("images_per_second", "mean"),
        peak_memory_mib=("peak_memory_mib", "max"),
        peak_device_memory_mib=("peak_device_memory_mib", "max"),
        training_seconds=(TOTAL, "mean"),
    )
    none = costs[costs["method"] == "none"].set_index("student")["seconds_per_step"]
    costs.insert(6, "vs_none", costs["seconds_per_step"] / costs["student"].map(none))
    return costs


def markdown(costs: pd.DataFrame) -> str:
    """`table` in Markdown."""
    columns = _shown(costs)
    dashes = [":--" if name in TEXT else "--:" for name in columns]
    lines = [list(columns), dashes, *zip(*columns.values(), strict=True)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def gaps(costs: pd.DataFrame) -> str:
    """A sentence about the trainings that have no run in the store, or nothing."""
    missing, of = (costs["seeds"] - costs["runs"]).sum(), costs["seeds"].sum()
    if not missing:
        return ""
    return f"The store has no run for {missing} of {of} trainings: they ran elsewhere, or logged no costs."


def _shown(costs: pd.DataFrame) -> dict[str, list[str]]:
    """The table's columns as text, without GPU memory if no GPU was used."""
    method = costs["method"] + (" " + costs["variant"]).where(costs["variant"] != "", "")
    columns = {
        "student": list(costs["student"]),
        "method": list(method),
        "ms/step": _text(1000 * costs["seconds_per_step"], "{:.0f}"),
        "× none": _text(costs["vs_none"], "{:.2f}"),
        "images/s": _text(costs["images_per_second"], "{:.1f}"),
        "RAM, MiB": _text(costs["peak_memory_mib"], "{:.0f}"),
        "GPU, MiB": _text(costs["peak_device_memory_mib"], "{:.0f}"),
        "total, s": _text(costs["training_seconds"], "{:.0f}"),
        "runs": [f"{runs} of {seeds}" for runs, seeds in zip(costs["runs"], costs["seeds"], strict=True)],
    }
    if costs["peak_device_memory_mib"].isna().all():
        del columns["GPU, MiB"]
    return columns


def _text(values: pd.Series, pattern: str) -> list[str]:
    return ["–" if pd.isna(value) else pattern.format(value) for value in values]
