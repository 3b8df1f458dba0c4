"""Scores as MLflow shows them: in per cent, as in the report and on the terminal, the headline at the top.

Files such as `metrics.json` and `history.csv` have parts of one instead.
"""

from collections.abc import Mapping
from typing import Any

from attnfd.evaluation.metrics import SCORES
from attnfd.tracking.keys import Names, leaves

HEADLINE = ("miou", "mean_accuracy")
# What an evaluation also counts: no scores of a split.
COUNTS = {
    "parameters": ("model", "parameters"),
    "multiply_adds": ("model", "macs"),
    "collapsed": ("model", "collapsed"),
}


def of_evaluation(metrics: Mapping[str, Any]) -> dict[Names, Any]:
    """The content of `metrics.json` by the names that MLflow has: `miou`, `test/iou/<class>`, `model/macs`.

    `miou` and `mean_accuracy` are those of the reported split. With a test split, `val/miou` and its like are
    those of the validation.
    """
    reported = {key: value for key, value in metrics.items() if key not in ("split", "val")}
    found = {_place(names, metrics["split"]): value for names, value in leaves(reported).items()}
    if metrics["split"] != "val":
        found |= leaves(metrics["val"], "val")
    return {names: _percent(names, value) for names, value in found.items()}


def of_training(values: Mapping[str, float]) -> dict[Names, float]:
    """Points of curves by names such as `epoch/miou`; scores are in per cent."""
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
