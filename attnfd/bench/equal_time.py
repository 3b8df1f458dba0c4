"""How many epochs each method may train so that all methods take the same time on this machine."""

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from attnfd.analysis.editing import Key, edited
from attnfd.bench import timing
from attnfd.bench.setting import Setting, make_teacher
from attnfd.bench.steps import training_step
from attnfd.bench.ways import OURS
from attnfd.config.params import PARAMS_FILE, Params, load_params, parse_params
from attnfd.data.prepared import Card
from attnfd.errors import UserError
from attnfd.paths import Cell, prepared
from attnfd.runtime.fabric import chosen_precision

NONE = "none"
ROUNDS = 10
SUFFIX = "_equal_time"
"""Ends the name of a student that is trained in equal time."""


class Budget(NamedTuple):
    """Epochs of a method: now, in the time of the longest training, and in the time of `none`."""

    method: str
    seconds_per_step: float
    epochs: int
    as_the_longest: int
    as_none: int


def budgets(params: Params, dataset: str) -> dict[str, list[Budget]]:
    """Measure a step of every method in `run.methods`, and compute the epochs; by student.

    Students that have epochs of their own on the dataset are left out, since `write` made them.

    Raises:
        UserError: there is no such dataset, it is not prepared, or no student is left.
    """
    methods = tuple(dict.fromkeys((NONE, *params.run.methods)))
    params.distill(dataset)
    Card.load(prepared(dataset))  # Without it, a step would be measured with another number of classes.
    students = [name for name in params.run.students if dataset not in params.student(name).epochs]
    if not students:
        raise UserError(
            f"{params.source}: run.students: found only students with epochs of their own on {dataset}; "
            "add a student without"
        )
    found = {}
    for student in students:
        epochs = {}
        for method in methods:
            settings = params.resolve(Cell.distilled(dataset, student, method, seed=0)).distill
            assert settings is not None
            epochs[method] = settings.epochs
        found[student] = share(_seconds_per_step(dataset, student, methods), epochs)
    return found


def share(seconds: Mapping[str, float], epochs: Mapping[str, int]) -> list[Budget]:
    """The most epochs that fit into the time of the longest training, and into that of `none`; at least one.

    Args:
        seconds: seconds of a step, by method.
        epochs: current epochs, by method.
    """
    hours = {method: seconds[method] * epochs[method] for method in seconds}

    def fitting(method: str, time: float) -> int:
        # The factor 1 + 10⁻⁹ prevents that rounding removes an epoch from the method whose time this is.
        return max(1, math.floor(time / seconds[method] * (1 + 1e-9)))

    return [
        Budget(
            method,
            seconds[method],
            epochs[method],
            fitting(method, max(hours.values())),
            fitting(method, hours[NONE]),
        )
        for method in seconds
    ]


def show(dataset: str, found: Mapping[str, list[Budget]], console: Console) -> None:
    """Print the epochs, and how to train with them."""
    for student, budgets in found.items():
        table = Table(box=SIMPLE, title=student, title_justify="left")
        columns = ("method", "ms/step", "× none", "epochs now", "in the longest time", "in the time of none")
        for name in columns:
            table.add_column(name, justify="left" if name == "method" else "right")
        none = next(one.seconds_per_step for one in budgets if one.method == NONE)
        for one in budgets:
            table.add_row(
                one.method,
                f"{1000 * one.seconds_per_step:.0f}",
                f"{one.seconds_per_step / none:.2f}",
                *(str(number) for number in one[2:]),
            )
        console.print(table)
    console.print(
        "Each method was timed alone. --write adds a student for each student above, with the epochs of the "
        f"longest time. To replace the current epochs, set methods.<method>.on.{dataset}.epochs."
    )


def write(dataset: str, found: Mapping[str, list[Budget]], console: Console) -> None:
    """For each student, write a student in equal time and the milliseconds of a step into `params.yaml`.

    Print what changed, and what you still have to do.
    """
    file = Path(PARAMS_FILE)
    params = load_params(file)
    changes: dict[Key, Any] = {}
    for student, budgets in found.items():
        timed = f"{student}{SUFFIX}"
        own = params.student(timed).epochs if timed in params.raw["students"] else {}
        epochs = {**own, dataset: {one.method: one.as_the_longest for one in budgets}}
        changes["students", timed] = {**params.raw["students"][student], "epochs": epochs}
        for name in (student, timed):  # Both are the same network, so their steps take the same time.
            changes["report", "step_ms", dataset, name] = {
                one.method: float(f"{1000 * one.seconds_per_step:.4g}") for one in budgets
            }
    text = edited(file.read_text(encoding="utf-8"), changes)
    parse_params(text, file.name)
    file.write_text(text, encoding="utf-8")
    for key in changes:
        console.print(f"{PARAMS_FILE}: {'.'.join(key)}")
    timed_students = ", ".join(f"{student}{SUFFIX}" for student in found)
    console.print(f"To train in equal time, too, add these to run.students: {timed_students}")


def _seconds_per_step(dataset: str, student: str, methods: tuple[str, ...]) -> dict[str, float]:
    """The median time of a step in the training's precision, by method."""
    given = Setting.load(dataset, student, NONE, rounds=ROUNDS)
    variant = OURS._replace(precision=chosen_precision(given.training.precision))
    teacher = make_teacher(given, frozen=True)
    calls = {method: training_step(given.by(method), variant, teacher=teacher) for method in methods}
    taken = timing.take_turns(calls, rounds=ROUNDS, title=student)
    return {method: median(seconds) for method, seconds in taken.items()}
