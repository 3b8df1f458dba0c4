"""The epochs and hours of a report's trainings, and the students that are trained in equal time."""

from collections.abc import Mapping

import pandas as pd

from attnfd.config.params import Params
from attnfd.data.batches import batches_of
from attnfd.data.prepared import Card
from attnfd.paths import TEACHER


def with_hours(history: pd.DataFrame, params: Params, card: Card) -> pd.DataFrame:
    """The history of all methods with `hours` at the end of each epoch: the time of the steps alone.

    A training is left out if `report.step_ms` has no time for it.

    Args:
        history: of `attnfd.analysis.tables.curves`.
    """
    measured = params.report.step_ms.get(card.name, {})
    steps = _steps(params, card) if measured else 0
    rows = history[history["variant"] == ""]
    keys = zip(rows["student"], rows["method"], strict=True)
    times = [measured.get(student, {}).get(method) for student, method in keys]
    hours = rows["epoch"] * steps * pd.Series(times, rows.index, dtype=float) / 3.6e6
    return rows.assign(hours=hours).dropna(subset="hours")


def _steps(params: Params, card: Card) -> int:
    """Steps per epoch of a student."""
    training = params.distill(card.name)
    labelled, unlabelled = (
        sum(card.splits[split].images for split in splits)
        for splits in (training.splits, training.unlabelled)
    )
    return batches_of(labelled, unlabelled, training.batch_size)


def beside(comparison: pd.DataFrame, history: pd.DataFrame, timed: pd.DataFrame) -> pd.DataFrame:
    """`comparison` with the `epochs` of every row, and its `hours`, empty without a measured time.

    Args:
        comparison: of `attnfd.analysis.tables.comparison`.
        timed: of `with_hours`, from this history.
    """
    by = ["student", "method"]
    table = comparison
    for frame, column, name in (
        (history[history["variant"] == ""], "epoch", "epochs"),
        (timed, "hours", "hours"),
    ):
        table = table.merge(
            frame.groupby(by)[column].max().rename(name), "left", left_on=by, right_index=True
        )
    return table


def in_a_unit(hours: pd.Series) -> tuple[str, pd.Series]:
    """The unit that suits the longest training, `hours` or `minutes`, and the times in it."""
    return ("hours", hours) if hours.max() >= 1 else ("minutes", 60 * hours)


def split(comparison: pd.DataFrame, params: Params, dataset: str) -> Mapping[str, pd.DataFrame]:
    """The students with epochs of their own as `equal_time`, all others as `comparison`.

    If all students have such epochs, or none has, all are in `comparison`.
    """
    students = comparison["student"]
    own = students.map(lambda key: key != TEACHER and dataset in params.student(key).epochs)
    if not own.any() or own[students != TEACHER].all():
        return {"comparison": comparison}
    return {"comparison": comparison[~own], "equal_time": comparison[own | (students == TEACHER)]}
