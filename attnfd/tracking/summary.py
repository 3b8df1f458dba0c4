"""One run is one report: its files, the mean mIoU of every method, and the cost of the trainings."""

import hashlib
import json
from collections.abc import Mapping
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd

from attnfd import paths
from attnfd.analysis import tables
from attnfd.config.schema import Run
from attnfd.paths import Cell
from attnfd.tracking import costs, keys, names, notes, registry, seeds, store, views

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

NAME = "report"
BENCHMARK = "benchmark"


def publish(axes: Run, dataset: str) -> None:
    """Log a dataset's report and newest benchmark, unless a run has both, and register its best students.

    A DVC experiment registers nothing: its results do not belong to the workspace until they are applied.

    Raises:
        UserError: the store does not answer.
    """
    chosen = Cell.all(axes, dataset)
    found = tables.results(chosen)
    with store.errors():
        client, experiment = store.connect(dataset)
        cost = costs.table(costs.collect(client, experiment, chosen))
        seeds.group(client, experiment, chosen, found)
        _, reports = store.connect(names.reports(dataset), models=False)
        _log(client, reports, dataset, notes.report(dataset, registry.best(found), found), cost)
        if "dvc_experiment" not in store.origin():
            registry.register(client, experiment, chosen, found)


def log_benchmark(dataset: str, content: Mapping[str, Any], figure: "Figure | None") -> None:
    """Log the results of `attnfd benchmark models` as a run; the dataset's next report includes them.

    Args:
        content: of `attnfd.deploy.benchmark.describe`.
        figure: mIoU over latency.

    Raises:
        UserError: the store does not answer.
    """
    with store.errors():
        client, experiment = store.connect(names.reports(dataset), models=False)
        tags = store.described({"stage": BENCHMARK, "dataset": dataset})
        run = client.create_run(experiment, tags=tags, run_name=BENCHMARK).info.run_id
        client.log_dict(run, dict(content), "benchmark.json")
        if figure is not None:
            client.log_figure(run, figure, "miou-over-latency.png")
        timings = {
            (key, *cost["model"].split("/"), cost["runtime"]): cost[key]
            for cost in content["costs"]
            for key in ("p50_ms", "p95_ms", "images_per_second")
        }
        for name, value in keys.encode(timings, "/").items():
            client.log_metric(run, name, value)
        client.set_terminated(run)


def _log(client: "MlflowClient", experiment: str, dataset: str, note: str, cost: pd.DataFrame) -> None:
    texts = {
        "tables/costs.csv": cost.to_csv(index=False, lineterminator="\n"),
        "tables/costs.md": f"{costs.markdown(cost)}\n{costs.gaps(cost)}".rstrip() + "\n",
    }
    tags = {"stage": NAME, "dataset": dataset}
    benchmarks = store.search(client, experiment, {**tags, "stage": BENCHMARK})
    timed = benchmarks[0].info.run_id if benchmarks else ""
    content = store.short(_hash(dataset, {**texts, BENCHMARK: timed}))
    if store.search(client, experiment, {**tags, store.CONTENT: content}):
        return
    run = client.create_run(experiment, tags=store.described({**tags, views.NOTE: note}), run_name=NAME)
    number = run.info.run_id
    try:
        client.log_artifacts(number, str(paths.report(dataset)))
        for file, text in texts.items():
            client.log_text(number, text, file)
        if timed:
            with TemporaryDirectory() as folder:
                for kept in client.list_artifacts(timed):
                    client.download_artifacts(timed, kept.path, folder)
                client.log_artifacts(number, folder, BENCHMARK)
        for name, value in _mious(dataset).items():
            client.log_metric(number, name, value)
    except BaseException:
        client.set_terminated(number, "FAILED")
        raise
    # Last, so that an incomplete report is logged again.
    client.set_tag(number, store.CONTENT, content)
    client.set_terminated(number)


def _mious(dataset: str) -> dict[str, float]:
    """Mean mIoU in per cent, by `miou/teacher` and `miou/<student>/<method>`."""
    means = keys.leaves(json.loads(paths.summary(dataset).read_bytes()), "miou")
    return keys.encode({names[:-1]: mean for names, mean in means.items() if names[-1] == "miou"}, "/")


def _hash(dataset: str, texts: dict[str, str]) -> str:
    """SHA-256 of all that a report's run contains."""
    folder = paths.report(dataset)
    files = [paths.summary(dataset), *sorted(path for path in folder.rglob("*") if path.is_file())]
    parts = [(file.as_posix(), file.read_bytes()) for file in files]
    parts += [(name, text.encode()) for name, text in texts.items()]
    digest = hashlib.sha256()
    for name, content in parts:
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()
