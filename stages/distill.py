"""distill: one student, taught by one method, from one seed; or several beside one teacher."""

from collections.abc import Sequence

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
from attnfd.students.student import Pair, make_student, save_student
from attnfd.training.loop import fit_together
from attnfd.training.objective import Objective, SharedTeacher
from attnfd.training.randomness import RandomState, random_state
from attnfd.training.state import Trainee


def distill(tasks: Sequence[Task]) -> list[str | UserError]:
    """Train students beside the frozen teacher; write weights, card and history of each into its folder.

    Several have dataset and seed in common, and so the batches: the teacher sees each batch once.

    Returns:
        For each task the fingerprint of the student's weights, or the error that ended its training.
    """
    prepared = open_prepared(tasks[0].params, tasks[0].cell.dataset)
    trained = train(tasks, prepared)
    card = legend(prepared.card).model_dump(mode="json")
    for task, (pair, history) in zip(tasks, trained, strict=True):
        if processes.rank() == 0 and not isinstance(history, UserError):
            save_student(task.cell, pair, history, card)
    processes.everyones(None)  # They wait here until the files are written.
    return [
        history if isinstance(history, UserError) else checkpoint.fingerprint(task.cell.model)
        for task, (_, history) in zip(tasks, trained, strict=True)
    ]


def train(tasks: Sequence[Task], prepared: Prepared) -> list[tuple[Pair, pd.DataFrame | UserError]]:
    """Train students beside the frozen teacher.

    Returns:
        For each task student and distiller, and the history of the training or the error that ended it.
    """
    cell, config = tasks[0].cell, tasks[0].settings.distill
    assert config is not None
    assert cell.seed is not None
    fabric = start_fabric(config.precision, together=True, deterministic=config.deterministic)
    teacher = checkpoint.load(paths.frozen(cell.dataset))[0]
    prepared.check_classes(teacher.info.classes, paths.frozen(cell.dataset))
    cast_weights(teacher.to(fabric.device), fabric)

    made = [_make(task, len(prepared.card.classes), teacher.info) for task in tasks]
    pairs = [pair for pair, _ in made]
    serving = teacher if len(tasks) == 1 else SharedTeacher(teacher, [distiller for _, distiller in pairs])
    trainees = [
        Trainee(
            Objective(*pair, serving), task.log, task.cell.name, task.own_checkpoints, random, _epochs(task)
        )
        for task, (pair, random) in zip(tasks, made, strict=True)
    ]
    histories = fit_together(trainees, prepared, config, seed=cell.seed, fabric=fabric)
    return list(zip(pairs, histories, strict=True))


def _epochs(task: Task) -> int:
    assert task.settings.distill is not None
    return task.settings.distill.epochs


def _make(task: Task, classes: int, teacher: NetInfo) -> tuple[Pair, RandomState]:
    """A student and its distiller as the seed makes them, and the random states when training begins."""
    config = task.settings.distill
    assert config is not None
    assert task.cell.seed is not None
    torch.manual_seed(task.cell.seed)
    pair = make_student(task.cell, task.settings, classes, teacher, weights=config.weights)
    return pair, random_state()
