"""What would run, why, and for how long: told before it does, from what trainings before it took."""

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from attnfd.config.params import Params, load_params
from attnfd.paths import Cell
from attnfd.sweep.graph import Graph, Job

if TYPE_CHECKING:
    from mlflow.entities import Run


SECONDS = "speed/training_seconds"
CACHED = "in the run-cache"
# Stages that train, with the section of params that says how much.
TRAINS = {"train_teacher": "train_teacher", "distill": "distill", "ablate": "distill", "tune": "distill"}
# What a training has in common with one that was measured, from the same kind to the merely similar.
KINDS = (
    ("stage", "dataset", "student", "method", "variant"),
    ("dataset", "student", "method"),
    ("dataset", "student"),
    ("dataset",),
)


class Expected(NamedTuple):
    """How long a job takes; `measured` if trainings of its own kind were, on this machine."""

    seconds: float
    measured: bool


class Measured(NamedTuple):
    """A training in the store: its cell, its seconds, its `work`, and whether this machine did it."""

    cell: Cell
    seconds: float
    work: float
    here: bool


@dataclass(frozen=True)
class Stale:
    """A job that would run, why, and how long; None where nothing like it was measured."""

    job: Job
    why: str
    expected: Expected | None


def plan(graph: Graph) -> list[Stale]:
    """The jobs that `dvc repro` would run, with all that waits for them: fewer run if outs come out the same.

    Raises:
        UserError: the params do not hold, or the store does not answer.
    """
    params = load_params()
    why = reasons(graph)
    trained = {name: cell for name in why if (cell := _cell(graph.jobs[name]))}
    measured = measurements({cell.dataset for cell in trained.values()})
    found = []
    for name, reason in why.items():
        expected = None
        if reason == CACHED:
            expected = Expected(0, measured=True)
        elif cell := trained.get(name):
            expected = expect(cell, work(params, cell), measured)
        found.append(Stale(graph.jobs[name], reason, expected))
    return found


def reasons(graph: Graph) -> dict[str, str]:
    """Why each job is stale, of those that are, in the order in which they run."""
    why: dict[str, str] = {}
    for name, job in graph.jobs.items():
        upstream = [needed for needed in job.upstream if needed in why]
        if changes := graph.changes(name):
            cached = not upstream and graph.is_cached(name)
            why[name] = CACHED if cached else ", ".join(changes)
        elif upstream:
            why[name] = f"after {', '.join(upstream)}"
    return why


def work(params: Params, cell: Cell) -> float:
    """What a training's time grows with: its epochs, the pixels of a crop, its part of the images."""
    settings = params.resolve(cell)
    training = settings.distill or settings.train_teacher
    return _work(training.epochs, training.crop, settings.tune.share if settings.tune else 0)


def measurements(datasets: set[str]) -> list[Measured]:
    """Complete trainings on these datasets in the store.

    Raises:
        UserError: the store does not answer.
    """
    from attnfd.tracking import names, store

    if not datasets or store.is_new():
        return []
    with store.errors():
        client = store.connect_to_read("measured trainings")
        wanted = [names.experiment(dataset, local=store.is_local()) for dataset in sorted(datasets)]
        experiments = [client.get_experiment_by_name(name) for name in wanted]
        runs = client.search_runs(
            [experiment.experiment_id for experiment in experiments if experiment],
            f"metrics.`{SECONDS}` > 0 and attributes.status = 'FINISHED'",
        )
    return [_measured(run) for run in runs if run.data.tags.get("stage") in TRAINS]


def expect(cell: Cell, work: float, measured: Sequence[Measured]) -> Expected | None:
    """Seconds of a training: the mean over the nearest kind that was measured, here if it was; by work."""
    for kind in KINDS:
        near = [one for one in measured if _alike(cell, one.cell, kind)]
        if near:
            here = [one for one in near if one.here]
            seconds = mean(one.seconds * work / one.work for one in here or near)
            return Expected(seconds, measured=bool(here) and kind == KINDS[0])
    return None


def show(found: Sequence[Stale], console: Console) -> None:
    """Print what `plan` found: cells, then stages."""
    if not found:
        console.print("Nothing is stale: dvc repro would run nothing.")
        return
    cells = _table("cell", "why", "expected")
    for stale in found:
        cells.add_row(stale.job.name, stale.why, _shown([stale]))
    stages = _table("stage", "cells", "expected")
    by_stage: dict[str, list[Stale]] = {}
    for stale in found:
        by_stage.setdefault(stale.job.stage, []).append(stale)
    for stage, jobs in by_stage.items():
        stages.add_row(stage, str(len(jobs)), _shown(jobs))
    stages.add_row("all", str(len(found)), _shown(found), style="bold")
    console.print(cells, stages)
    console.print(
        "Time of the trainings on this machine, one cell after another. ≈: from similar trainings, "
        "or another machine; unknown: nothing similar is in the MLflow store; –: not measured, as it "
        "does not train."
    )


def _cell(job: Job) -> Cell | None:
    """The model that a job trains, if it trains one."""
    if job.stage not in TRAINS:
        return None
    method = {"method": "attnfd"} if job.stage == "ablate" else {}
    return Cell.of_tags({"stage": job.stage, **job.options, **method})


def _measured(run: "Run") -> Measured:
    from attnfd.tracking import store

    tags, params = run.data.tags, run.data.params
    cell = Cell.of_tags(tags)
    section = TRAINS[cell.stage]
    held_out = float(params.get("tune.share", 0))
    done = _work(int(params[f"{section}.epochs"]), json.loads(params[f"{section}.crop"]), held_out)
    here = tags.get(store.PROCESS, "").partition(" ")[0] == socket.gethostname()
    return Measured(cell, run.data.metrics[SECONDS], done, here)


def _work(epochs: int, crop: Sequence[int], held_out: float) -> float:
    height, width = crop
    return epochs * height * width * (1 - held_out)


def _alike(one: Cell, other: Cell, kind: tuple[str, ...]) -> bool:
    if (one.student is None) != (other.student is None):
        return False  # A teacher is no measure for a student.
    return all(getattr(one, name) == getattr(other, name) for name in kind)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE)
    for name in columns:
        left = name in ("cell", "why", "stage")
        table.add_column(name, justify="left" if left else "right", overflow="fold", no_wrap=not left)
    return table


def _shown(jobs: Sequence[Stale]) -> str:
    """The time of some jobs, `≈` before it unless measured, `+ unknown` behind it if some are."""
    known = [stale.expected for stale in jobs if stale.expected]
    unknown = any(stale.expected is None and stale.job.stage in TRAINS for stale in jobs)
    if not known:
        return "unknown" if unknown else "–"
    hours = sum(expected.seconds for expected in known) / 3600
    time = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
    sign = "" if all(expected.measured for expected in known) else "≈ "
    return f"{sign}{time}{' + unknown' if unknown else ''}"
