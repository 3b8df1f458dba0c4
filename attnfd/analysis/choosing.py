"""Writes the weights that trials have chosen into `params.yaml`, and nothing else of the file."""

from pathlib import Path
from typing import NamedTuple

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from attnfd.analysis import trials
from attnfd.analysis.editing import edited
from attnfd.config.params import PARAMS_FILE, load_params, parse_params
from attnfd.errors import UserError


class Choice(NamedTuple):
    """A method's weight on a dataset: as it was, as its trials choose it, and their mean mIoU."""

    method: str
    before: float
    weight: float
    miou: float
    trials: int


def choose(dataset: str) -> list[Choice]:
    """Set `methods.<method>.on.<dataset>.weight` of every method of `run.tune` to what its trials choose.

    Comments and order of the file stay.

    Raises:
        UserError: a trial has not run, or there is none.
    """
    file = Path(PARAMS_FILE)
    params = load_params(file)
    cells = trials.cells(params, dataset)
    if not cells:
        raise UserError(
            f"{file}: run.tune.methods: found no method; list the methods to tune, then dvc repro tune"
        )
    chosen = trials.table(trials.scores(cells)).query("chosen")
    choices = [
        Choice(method, params.method(method, dataset).weight, weight, miou, count)
        for method, weight, miou, count in zip(
            chosen["method"], chosen["weight"], chosen["miou"], chosen["trials"], strict=True
        )
    ]
    changed = {
        ("methods", choice.method, "on", dataset, "weight"): choice.weight
        for choice in choices
        if choice.weight != choice.before
    }
    if changed:
        text = edited(file.read_text(encoding="utf-8"), changed)
        parse_params(text, file.name)
        file.write_text(text, encoding="utf-8")
    return choices


def show(dataset: str, choices: list[Choice], console: Console) -> None:
    """Print what `choose` chose, and what it changed."""
    table = Table(box=SIMPLE)
    for name in ("method", "weight before", "weight now", "mIoU of its trials, %", "trials"):
        table.add_column(name, justify="left" if name == "method" else "right")
    for one in choices:
        now = "the same" if one.weight == one.before else f"{one.weight:g}"
        table.add_row(one.method, f"{one.before:g}", now, f"{100 * one.miou:.2f}", str(one.trials))
    console.print(table)
    changed = [one for one in choices if one.weight != one.before]
    for one in changed:
        console.print(f"{PARAMS_FILE}: methods.{one.method}.on.{dataset}.weight: {one.weight:g}")
    if not changed:
        console.print(f"{PARAMS_FILE}: nothing to change")
