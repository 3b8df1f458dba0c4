"""Writes the weights that the trials chose into `params.yaml`, and changes nothing else in the file."""

from pathlib import Path
from typing import NamedTuple

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from attnfd.analysis import trials
from attnfd.analysis.editing import Key, edited
from attnfd.config.params import PARAMS_FILE, load_params, parse_params
from attnfd.errors import UserError


class Choice(NamedTuple):
    """A method's weight on a dataset: the old one, the one that its trials choose, and their mean mIoU.

    `at_end`: the factor is the smallest or largest of several, so a better one may be outside their range.
    """

    method: str
    before: float
    weight: float
    miou: float
    trials: int
    at_end: bool


def choose(dataset: str) -> list[Choice]:
    """Set `methods.<method>.on.<dataset>.weight` of every method of `run.tune` to what its trials choose.

    The file keeps its comments and its order.

    Raises:
        UserError: a trial has not run, or there are no trials.
    """
    file = Path(PARAMS_FILE)
    params = load_params(file)
    cells = trials.cells(params, dataset)
    if not cells:
        raise UserError(
            f"{file}: run.tune.methods: found no method; list the methods to tune, then dvc repro tune"
        )
    chosen = trials.table(trials.scores(cells)).query("chosen")
    ends = {min(params.tune.factors), max(params.tune.factors)} if len(params.tune.factors) > 1 else set()
    choices = [
        Choice(
            row["method"],
            params.method(row["method"], dataset).weight,
            row["weight"],
            row["miou"],
            row["trials"],
            at_end=float(row["factor"]) in ends,
        )
        for row in chosen.to_dict("records")
    ]
    changed: dict[Key, float] = {
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
    if ends := [one.method for one in choices if one.at_end]:
        console.print(
            f"The best factor is at an end of tune.factors for {', '.join(ends)}: add one beyond it, run dvc "
            "repro tune, then choose again"
        )
