"""Trainings as the commands run them: each with its checkpoints and its own run."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from attnfd import paths
from attnfd.config.task import Task
from attnfd.data.prepared import Card
from attnfd.errors import PartlyError, UserError
from attnfd.runtime import processes
from attnfd.runtime.fabric import chosen_precision
from attnfd.tracking import inputs, runs, starts

if TYPE_CHECKING:
    from attnfd.results.write import Evaluated

Outcome = str | tuple[str, "Evaluated | None"] | UserError
"""What a stage that trains returns for a task: the fingerprint of the weights, with the evaluation if there
is one; or the error that ended the training.
"""
Stage = Callable[[Sequence[Task]], Sequence[Outcome]]


def train(tasks: Sequence[Task], stage: Stage) -> None:
    """Train cells by their stage. A failed training does not stop the others.

    Raises:
        UserError: the training failed, or the cells cannot be trained together.
        PartlyError: some of several trainings failed; the others are complete.
    """
    if len({task.cell for task in tasks}) < len(tasks):
        raise UserError(f"{_names(tasks)}: found one twice; allowed: each once")
    if len(tasks) > 1 and processes.count() > 1:
        raise UserError(f"torchrun: found {len(tasks)} trainings in one command; allowed: one")
    failed: dict[Task, UserError] = {}
    with ExitStack() as claimed:
        begun = [claimed.enter_context(starts.fetched(task.settings.student)) for task in tasks]
        checkpoints = [
            inputs.checkpoints(task.params, task.cell, starts.fingerprint(task.settings.student, start))
            for task, start in zip(tasks, begun, strict=True)
        ]
        # Always in the same order: if not, two groups of trainings could wait for each other.
        for kept in sorted(checkpoints, key=lambda kept: kept.folder):
            claimed.enter_context(kept.alone())
        with ExitStack() as opened:
            tracks = [
                opened.enter_context(runs.open_run(task.cell, tracked_settings(task), kept))
                for task, kept in zip(tasks, checkpoints, strict=True)
            ]
            for task, run in zip(tasks, tracks, strict=True):
                run.data(Card.load(paths.prepared(task.cell.dataset)))
            tracked = zip(tasks, tracks, checkpoints, begun, strict=True)
            outcomes = stage(
                [replace(task, log=run, checkpoints=kept, start=start) for task, run, kept, start in tracked]
            )
            for task, run, outcome in zip(tasks, tracks, outcomes, strict=True):
                if isinstance(outcome, UserError):
                    run.close("FAILED")
                    failed[task] = outcome
                    continue
                weights, evaluated = outcome if isinstance(outcome, tuple) else (outcome, None)
                run.trained(weights)
                if evaluated is not None:
                    run.evaluated(evaluated)
        for task, kept in zip(tasks, checkpoints, strict=True):
            if task not in failed:
                kept.clear()
    if failed and len(tasks) == 1:
        raise failed[tasks[0]]
    if failed:
        reasons = "; ".join(f"{task.cell.name}: {error}" for task, error in failed.items())
        raise PartlyError(f"{len(failed)} of {len(tasks)} failed, the others are complete: {reasons}")


def tracked_settings(task: Task) -> dict[str, dict[str, Any]]:
    """The settings of a cell's model, with the precision that `auto` chooses on this machine."""
    settings = task.settings.of_the_model()
    training = settings["distill" if task.cell.student else "train_teacher"]
    training["precision"] = chosen_precision(training["precision"])
    return settings


def _names(tasks: Sequence[Task]) -> str:
    return ", ".join(task.cell.name for task in tasks)
