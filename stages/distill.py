"""distill: train one student with one method and one seed; or several students with one teacher."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch

from attnfd import paths
from attnfd.config.task import Task
from attnfd.data.prepared import Prepared, open_prepared
from attnfd.errors import UserError
from attnfd.models import checkpoint
from attnfd.models.checkpoint import legend
from attnfd.models.kernels import cast_weights
from attnfd.models.taps import NetInfo
from attnfd.runtime import processes
from attnfd.runtime.fabric import start_fabric
from attnfd.students.student import Pair, make_student, save_student, start_from
from attnfd.training.labels import label_loss
from attnfd.training.loop import fit_together
from attnfd.training.objective import Objective, SharedTeacher
from attnfd.training.randomness import RandomState, random_state
from attnfd.training.state import Trainee


def distill(tasks: Sequence[Task]) -> list[str | UserError]:
    """Train students with the frozen teacher; write weights, card and history of each into its folder.

    Several students have the same dataset and seed, and so the same batches. The teacher computes each batch
    once for all of them.

    Returns:
        For each task, the fingerprint of the student's weights, or the error that ended its training.
    """
    prepared = open_prepared(tasks[0].params, tasks[0].cell.dataset)
    trained = train(tasks, prepared)
    card = legend(prepared.card).model_dump(mode="json")
    for task, (pair, history, started) in zip(tasks, trained, strict=True):
        if processes.rank() == 0 and not isinstance(history, UserError):
            save_student(task.cell, pair, history, card | started)
    processes.everyones(None)  # All processes wait here until the files are written.
    return [
        one.history if isinstance(one.history, UserError) else checkpoint.fingerprint(task.cell.model)
        for task, one in zip(tasks, trained, strict=True)
    ]


class Trained(NamedTuple):
    """A student and its distiller, the history of the training or the error that ended it, and the card's
    entry about the model that the student started from."""

    pair: Pair
    history: pd.DataFrame | UserError
    started: dict[str, Any]


def train(tasks: Sequence[Task], prepared: Prepared) -> list[Trained]:
    """Train students with the frozen teacher."""
    cell, config = tasks[0].cell, tasks[0].settings.distill
    assert config is not None
    assert cell.seed is not None
    fabric = start_fabric(config.precision, together=True, deterministic=config.deterministic)
    teacher = checkpoint.load(paths.frozen(cell.dataset))[0]
    prepared.check_classes(teacher.info.classes, paths.frozen(cell.dataset))
    cast_weights(teacher.to(fabric.device), fabric)

    made = [_make(task, prepared.card.classes, teacher.info) for task in tasks]
    distillers = [one.pair[1] for one in made]
    serving = teacher if len(tasks) == 1 else SharedTeacher(teacher, distillers)
    trainees = [
        Trainee(
            Objective(*one.pair, serving, label_loss(config, prepared.card)),
            task.log,
            task.cell.name,
            task.own_checkpoints,
            one.random,
            _epochs(task),
        )
        for task, one in zip(tasks, made, strict=True)
    ]
    histories = fit_together(trainees, prepared, config, seed=cell.seed, fabric=fabric)
    return [Trained(one.pair, history, one.started) for one, history in zip(made, histories, strict=True)]


def _epochs(task: Task) -> int:
    assert task.settings.distill is not None
    return task.settings.distill.epochs


class Made(NamedTuple):
    """A student and its distiller before training, the random states, and the card's entry on the start."""

    pair: Pair
    random: RandomState
    started: dict[str, Any]


def _make(task: Task, classes: Sequence[str], teacher: NetInfo) -> Made:
    """A student and its distiller, with random weights of the seed or with those of a model to start from."""
    config = task.settings.distill
    assert config is not None
    assert task.cell.seed is not None
    torch.manual_seed(task.cell.seed)
    student = task.settings.student
    assert student is not None
    weights = student.start(config.weights)
    pair = make_student(task.cell, task.settings, len(classes), teacher, weights=weights)
    if student.weights is None:
        return Made(pair, random_state(), {})
    key = f"{task.params.source}: students.{task.cell.student}"
    started = start_from(pair[0], student, key, classes, task.start)
    return Made(pair, random_state(), {"started_from": started})
