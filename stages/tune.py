"""tune: run one trial of a method's weight: train on some of the training images, score on the others."""

import json
from collections.abc import Sequence

import pandas as pd

from attnfd.config.task import Task
from attnfd.data.prepared import Prepared, open_prepared
from attnfd.errors import UserError
from attnfd.models import checkpoint
from attnfd.paths import CARD, HISTORY
from attnfd.runtime import processes
from stages.distill import train


def tune(tasks: Sequence[Task]) -> list[str | UserError]:
    """Train like `distill`, on some of the training images; write the score on the others into the folder.

    A trial reads no image of another split, so that reported images choose nothing. The seed decides which
    images are left out of the training: all trials of a seed have the same ones. Several tasks work as in
    `distill`.

    Returns:
        For each task, the fingerprint of its history, or the error that ended its training.
    """
    first = tasks[0]
    assert first.settings.distill is not None
    assert first.settings.tune is not None
    assert first.cell.seed is not None
    whole = open_prepared(first.params, first.cell.dataset)
    config = first.settings.distill
    prepared = whole.held_out(config.splits, first.settings.tune.share, first.cell.seed, config.unlabelled)
    outcomes: list[str | UserError] = []
    for task, trained in zip(tasks, train(tasks, prepared), strict=True):
        history = trained.history
        if isinstance(history, UserError):
            outcomes.append(history)
            continue
        if processes.rank() == 0:
            _save(task, prepared, history)
        processes.everyones(None)  # All processes wait here until the files are written.
        outcomes.append(checkpoint.digest(task.cell.model / HISTORY))
    return outcomes


def _save(task: Task, prepared: Prepared, history: pd.DataFrame) -> None:
    """Write the history, and a card with the trial's settings and its score after the last epoch."""
    cell = task.cell
    images = prepared.index["split"].value_counts()
    card = {
        **cell.tags,
        "weight": task.settings.method.weight,
        "trained_on": int(images.sum() - images["val"]),
        "scored_on": int(images["val"]),
        "miou": float(history["miou"].iloc[-1]),
    }
    cell.model.mkdir(parents=True, exist_ok=True)
    history.to_csv(cell.model / HISTORY, index=False)
    (cell.model / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
