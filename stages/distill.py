"""distill: one student, taught by one method, from one seed; or several beside one teacher."""

from collections.abc import Sequence

import torch

from attnfd import paths
from attnfd.config.task import Task
from attnfd.data.prepared import open_prepared
from attnfd.errors import UserError
from attnfd.models import checkpoint
from attnfd.models.checkpoint import legend
from attnfd.models.kernels import cast_weights
from attnfd.models.taps import NetInfo
from attnfd.runtime import processes
from attnfd.runtime.fabric import start_fabric
from attnfd.students.student import Pair, make_student, save_student
from attnfd.training.labels import label_loss
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
    cell, config = tasks[0].cell, tasks[0].settings.distill
    assert config is not None
    assert cell.seed is not None
    prepared = open_prepared(tasks[0].params, cell.dataset)
    fabric = start_fabric(config.precision, together=True, deterministic=config.deterministic)
    teacher = checkpoint.load(paths.frozen(cell.dataset))[0]
    prepared.check_classes(teacher.info.classes, paths.frozen(cell.dataset))
    cast_weights(teacher.to(fabric.device), fabric)

    made = [_make(task, len(prepared.card.classes), teacher.info) for task in tasks]
    pairs = [pair for pair, _ in made]
    serving = teacher if len(tasks) == 1 else SharedTeacher(teacher, [distiller for _, distiller in pairs])
    trainees = [
        Trainee(
            Objective(*pair, serving, label_loss(config, prepared.card)),
            task.log,
            task.cell.name,
            task.own_checkpoints,
            random,
        )
        for task, (pair, random) in zip(tasks, made, strict=True)
    ]
    histories = fit_together(trainees, prepared, config, seed=cell.seed, fabric=fabric)
    card = legend(prepared.card).model_dump(mode="json")
    for task, pair, history in zip(tasks, pairs, histories, strict=True):
        if processes.rank() == 0 and not isinstance(history, UserError):
            save_student(task.cell, pair, history, card)
    fabric.barrier()
    return [
        history if isinstance(history, UserError) else checkpoint.fingerprint(task.cell.model)
        for task, history in zip(tasks, histories, strict=True)
    ]


def _make(task: Task, classes: int, teacher: NetInfo) -> tuple[Pair, RandomState]:
    """A student and its distiller as the seed makes them, and the random states when training begins."""
    config = task.settings.distill
    assert config is not None
    assert task.cell.seed is not None
    torch.manual_seed(task.cell.seed)
    pair = make_student(task.cell, task.settings, classes, teacher, weights=config.weights)
    return pair, random_state()
