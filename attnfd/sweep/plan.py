"""What would run, why, and for how long: estimated from the times of earlier trainings."""

import json
import math
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from attnfd.config.params import Params
from attnfd.paths import Cell
from attnfd.sweep.graph import Graph, Job

if TYPE_CHECKING:
    from mlflow.entities import Run


SECONDS = "speed/training_seconds"
CACHED = "in the run-cache"
AFTER = "after "
COLUMNS = ("stage", "dataset", "student", "method", "seed", "h:mm")
# Stages that train, with the section of params that determines their work.
TRAINS = {"train_teacher": "train_teacher", "distill": "distill", "ablate": "distill", "tune": "distill"}
# What a training must have in common with a measured one, from the most to the least similar.
KINDS = (
    ("stage", "dataset", "student", "method", "variant"),
    ("dataset", "student", "method"),
    ("dataset", "student"),
    ("dataset",),
)


class Expected(NamedTuple):
    """How long a job takes; `measured`: from trainings of the same kind on this machine."""

    seconds: float
    measured: bool


class Measured(NamedTuple):
    """A training in the store: its cell, its seconds, its `work`, and whether it ran on this machine."""

    cell: Cell
    seconds: float
    work: float
    here: bool


@dataclass(frozen=True)
class Stale:
    """A job that would run, why, and for how long; None if no similar training was measured."""

    job: Job
    why: str
    expected: Expected | None


def plan(graph: Graph, params: Params) -> list[Stale]:
    """The jobs that `dvc repro` would run, and all jobs that depend on them.

    Fewer jobs run if outs do not change.

    Raises:
        UserError: the params are invalid, or the store does not answer.
    """
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
    """The stale jobs in the order in which they run, each with the reason."""
    why: dict[str, str] = {}
    for name, job in graph.jobs.items():
        upstream = [needed for needed in job.upstream if needed in why]
        if changes := graph.changes(name):
            cached = not upstream and graph.is_cached(name)
            why[name] = CACHED if cached else ", ".join(changes)
        elif upstream:
            why[name] = AFTER + ", ".join(upstream)
    return why


def work(params: Params, cell: Cell) -> float:
    """A number proportional to a training's time: epochs × pixels of a crop × its share of the images."""
    settings = params.resolve(cell)
    training = settings.distill or settings.train_teacher
    return _work(training.epochs, training.crop, settings.tune.share if settings.tune else 0)


def measurements(datasets: set[str]) -> list[Measured]:
    """The finished trainings on these datasets in the store.

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
    """Seconds of a training: the mean over the most similar measured ones, scaled by work.

    If some of these ran on this machine, only those count.
    """
    for kind in KINDS:
        near = [one for one in measured if _alike(cell, one.cell, kind)]
        if near:
            here = [one for one in near if one.here]
            seconds = mean(one.seconds * work / one.work for one in here or near)
            return Expected(seconds, measured=bool(here) and kind == KINDS[0])
    return None


def show(found: Sequence[Stale], console: Console) -> None:
    """Print what `plan` found: cells grouped by cause, then totals by stage."""
    if not found:
        console.print("Nothing is stale: dvc repro would run nothing.")
        return
    cells = [(_cause(stale), (*_names(stale.job), _shown([stale]))) for stale in found]
    widths = [max(map(len, column)) for column in zip(COLUMNS, *(row for _, row in cells), strict=True)]
    console.print(_table(widths, [COLUMNS], style="bold"))
    for cause in dict.fromkeys(cause for cause, _ in cells):
        console.print(Text(cause, style="cyan"))
        console.print(_table(widths, [row for why, row in cells if why == cause]))
    by_stage: dict[str, list[Stale]] = {}
    for stale in found:
        by_stage.setdefault(stale.job.stage, []).append(stale)
    rows = [(stage, str(len(jobs)), _shown(jobs)) for stage, jobs in by_stage.items()]
    rows = [("stage", "cells", "h:mm"), *rows, ("all", str(len(found)), _shown(found))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    console.print()
    console.print(_table(widths, rows[:1], style="bold"), _table(widths, rows[1:]))
    console.print(
        "\nHours and minutes of the trainings on this machine, one cell after another. ≈: estimated from "
        "similar trainings or from another machine; unknown: the MLflow store has nothing similar; –: not "
        "measured, since it does not train."
    )


def _cause(stale: Stale) -> str:
    """Why a job would run; for the jobs before it, only their stages."""
    if not stale.why.startswith(AFTER):
        return stale.why
    jobs = stale.why.removeprefix(AFTER).split(", ")
    return AFTER + ", ".join(dict.fromkeys(job.partition("@")[0] for job in jobs))


def _names(job: Job) -> tuple[str, ...]:
    """The table cells of a job's row; a job of another pipeline has only its name."""
    named = job.options
    taught = named.get("method") or named.get("variant", "")
    stage = job.stage if "dataset" in named else job.name
    return stage, named.get("dataset", ""), named.get("student", ""), taught, named.get("seed", "")


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
        return False  # The time of a teacher says nothing about a student.
    return all(getattr(one, name) == getattr(other, name) for name in kind)


def _table(widths: Sequence[int], rows: Sequence[Sequence[str]], style: str = "") -> Table:
    """Rows in columns of these widths; the last column is aligned to the right."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    for place, width in enumerate(widths):
        last = place == len(widths) - 1
        table.add_column(justify="right" if last else "left", overflow="fold", width=width)
    for row in rows:
        table.add_row(*map(escape, row), style=style)
    return table


def _shown(jobs: Sequence[Stale]) -> str:
    """Hours and minutes of some jobs; `≈` unless all are measured, `+ unknown` if some are unknown."""
    known = [stale.expected for stale in jobs if stale.expected]
    unknown = any(stale.expected is None and stale.job.stage in TRAINS for stale in jobs)
    if not known:
        return "unknown" if unknown else "–"
    seconds = sum(expected.seconds for expected in known)
    hours, minutes = divmod(math.ceil(seconds / 60), 60)
    sign = "" if all(expected.measured for expected in known) else "≈ "
    return f"{sign}{hours}:{minutes:02}{' + unknown' if unknown else ''}"
