"""How many epochs each method may train so that all take the same time on this machine."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from attnfd.bench import timing
from attnfd.bench.setting import Setting, make_teacher
from attnfd.bench.steps import training_step
from attnfd.bench.ways import OURS
from attnfd.config.params import Params
from attnfd.paths import Cell
from attnfd.runtime.fabric import chosen_precision

NONE = "none"
ROUNDS = 10


class Budget(NamedTuple):
    """Epochs of a method: now, in the time of the method that takes longest, in the time of `none`."""

    method: str
    seconds_per_step: float
    epochs: int
    as_the_longest: int
    as_none: int


def budgets(params: Params, dataset: str) -> list[Budget]:
    """Measure a step of every method of `run.methods` for every student, and share out the time.

    Raises:
        UserError: there is no such dataset.
    """
    methods = tuple(dict.fromkeys((NONE, *params.run.methods)))
    epochs = {}
    for method in methods:
        settings = params.resolve(Cell.distilled(dataset, params.run.students[0], method, seed=0)).distill
        assert settings is not None
        epochs[method] = settings.epochs
    return share(_seconds_per_step(params, dataset, methods), epochs)


def share(seconds: Mapping[str, float], epochs: Mapping[str, int]) -> list[Budget]:
    """The most epochs that fit into the time of the longest training, and into that of `none`; at least one.

    Args:
        seconds: of a step, by method.
        epochs: of every method now.
    """
    hours = {method: seconds[method] * epochs[method] for method in seconds}

    def fitting(method: str, time: float) -> int:
        # A billionth more, or rounding might take an epoch from the method whose time this is.
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


def show(dataset: str, found: list[Budget], console: Console) -> None:
    """Print the epochs, and which params take them."""
    table = Table(box=SIMPLE)
    columns = ("method", "ms/step", "× none", "epochs now", "in the longest time", "in the time of none")
    for name in columns:
        table.add_column(name, justify="left" if name == "method" else "right")
    none = next(one.seconds_per_step for one in found if one.method == NONE)
    for one in found:
        table.add_row(
            one.method,
            f"{1000 * one.seconds_per_step:.0f}",
            f"{one.seconds_per_step / none:.2f}",
            *(str(number) for number in one[2:]),
        )
    console.print(table)
    console.print(
        f"Mean over the students of run.students, each method alone. Set the epochs of a method in "
        f"params.yaml: methods.<method>.on.{dataset}.epochs."
    )


def _seconds_per_step(params: Params, dataset: str, methods: tuple[str, ...]) -> dict[str, float]:
    """By method, the mean over the students of a step's median time, in the arithmetic of the training."""
    total = dict.fromkeys(methods, 0.0)
    for student in params.run.students:
        given = Setting.load(dataset, student, NONE, rounds=ROUNDS)
        variant = OURS._replace(precision=chosen_precision(given.training.precision))
        teacher = make_teacher(given, frozen=True)
        calls = {method: training_step(given.by(method), variant, teacher=teacher) for method in methods}
        for method, taken in timing.take_turns(calls, rounds=ROUNDS, title=student).items():
            total[method] += float(torch.tensor(taken).median()) / len(params.run.students)
    return total
