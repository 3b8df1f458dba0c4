"""Writes the weights that trials have chosen into `params.yaml`, and nothing else of the file."""

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from attnfd.analysis import trials
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
    changed = {choice.method: choice.weight for choice in choices if choice.weight != choice.before}
    if changed:
        text = with_weights(file.read_text(encoding="utf-8"), dataset, changed)
        parse_params(text, file.name)
        file.write_text(text, encoding="utf-8")
    return choices


def with_weights(text: str, dataset: str, weights: Mapping[str, float]) -> str:
    """The text of a params file with other weights for a dataset.

    Example:
        >>> print(with_weights("methods:\\n  kd: {weight: 1} # Hinton\\n", "shapes", {"kd": 3.0}), end="")
        methods:
          kd: {weight: 1, on: {shapes: {weight: 3}}} # Hinton
    """
    editor = YAML(typ="rt")
    editor.preserve_quotes = True
    editor.width = 4096  # Lines stay as long as they are.
    editor.representer.add_representer(type(None), _null)
    params = editor.load(text)
    for method, weight in weights.items():
        on = _inside(params["methods"][method], "on")
        _inside(on, dataset)["weight"] = int(weight) if weight == int(weight) else weight
    written = StringIO()
    editor.dump(params, written)
    return written.getvalue()


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


def _inside(parent: CommentedMap, key: str) -> Any:
    """The mapping under a key; a new one is written in one line."""
    if not isinstance(parent.get(key), dict):
        parent[key] = CommentedMap()
        parent[key].fa.set_flow_style()
    return parent[key]


def _null(representer: Any, _: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")
