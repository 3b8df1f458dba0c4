"""Scores as MLflow shows them: in per cent, as in the report and on the terminal, the main scores first.

Files such as `metrics.json` and `history.csv` have scores from 0 to 1 instead.
"""

from collections.abc import Mapping
from typing import Any

from attnfd.evaluation.metrics import SCORES
from attnfd.tracking.keys import Names, leaves

HEADLINE = ("miou", "mean_accuracy")
# An evaluation also counts these; they are not scores of a split.
COUNTS = {
    "parameters": ("model", "parameters"),
    "multiply_adds": ("model", "macs"),
    "collapsed": ("model", "collapsed"),
}


def of_evaluation(metrics: Mapping[str, Any]) -> dict[Names, Any]:
    """The content of `metrics.json` by its names in MLflow: `miou`, `test/iou/<class>`, `model/macs`.

    `miou` and `mean_accuracy` are from the reported split. If that is a test split, `val/miou` and similar
    names are from the validation split.
    """
    reported = {key: value for key, value in metrics.items() if key not in ("split", "val")}
    found = {_place(names, metrics["split"]): value for names, value in leaves(reported).items()}
    if metrics["split"] != "val":
        found |= leaves(metrics["val"], "val")
    return {names: _percent(names, value) for names, value in found.items()}


def of_training(values: Mapping[str, float]) -> dict[Names, float]:
    """Points of curves by names such as `epoch/miou`, with scores in per cent."""
    found = {tuple(name.split("/")): value for name, value in values.items()}
    return {names: _percent(names, value) for names, value in found.items()}


def _place(names: Names, split: str) -> Names:
    if names[0] == "images":
        return "data", f"{split}_images"
    if names[0] in COUNTS:
        return COUNTS[names[0]]
    return names if names[0] in HEADLINE else (split, *names)


def _percent(names: Names, value: Any) -> Any:
    is_score = names[-1] in SCORES or "iou" in names[:-1]
    return 100 * value if is_score and isinstance(value, int | float) else value
