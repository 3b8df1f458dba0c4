"""distill: one student, taught by one method, from one seed; or several beside one teacher."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save_file

from attnfd import discovery, paths
from attnfd.config.params import Params
from attnfd.data.prepared import open_prepared
from attnfd.distillers.base import Distiller
from attnfd.errors import UserError
from attnfd.models import checkpoint
from attnfd.models.checkpoint import legend
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.kernels import settle_weights
from attnfd.models.taps import NetInfo
from attnfd.paths import DISTILLER, HISTORY, Cell
from attnfd.runtime import processes
from attnfd.runtime.fabric import start_fabric
from attnfd.training import loop
from attnfd.training.loop import Tracked, Trainee
from attnfd.training.objective import Objective, SharedTeacher
from attnfd.training.randomness import RandomState, random_state


def distill(params: Params, tracked: Sequence[Tracked]) -> list[str | UserError]:
    """Train students beside the frozen teacher; write weights, card and history of each into its folder.

    Several have dataset and seed in common, and so the batches: the teacher sees each batch once.

    A student is saved without connectors and attention; those lie beside it, for pictures alone.

    Returns:
        For each cell the fingerprint of the student's weights, or the error that ended its training.
    """
    dataset, seed = tracked[0].cell.dataset, tracked[0].cell.seed
    assert seed is not None
    config = params.distill(dataset)
    prepared = open_prepared(params, dataset)
    fabric = start_fabric(config.precision, together=True, deterministic=config.deterministic)
    teacher = checkpoint.load(paths.frozen(dataset))[0]
    prepared.check_classes(teacher.info.classes, paths.frozen(dataset))
    settle_weights(teacher.to(fabric.device), fabric)

    students = [_student(params, one.cell, len(prepared.card.classes), teacher.info) for one in tracked]
    distillers = [distiller for _, distiller, _ in students]
    serving = teacher if len(tracked) == 1 else SharedTeacher(teacher, distillers)
    trainees = [
        Trainee(Objective(student, distiller, serving), log, cell.name, checkpoints, random)
        for (cell, log, checkpoints), (student, distiller, random) in zip(tracked, students, strict=True)
    ]
    histories = loop.fit_together(trainees, prepared, config, seed=seed, fabric=fabric)
    card = legend(prepared.card).model_dump(mode="json")
    for one, trainee, history in zip(tracked, trainees, histories, strict=True):
        if processes.rank() == 0 and not isinstance(history, UserError):
            _save(one.cell, trainee.objective, history, card)
    fabric.barrier()
    return [
        history if isinstance(history, UserError) else checkpoint.fingerprint(one.cell.model)
        for one, history in zip(tracked, histories, strict=True)
    ]


def _student(
    params: Params, cell: Cell, classes: int, teacher: NetInfo
) -> tuple[DeepLabV3Plus, Distiller, RandomState]:
    """A student and its method as the seed has them, and the random states that its training begins with."""
    assert cell.student
    assert cell.method
    assert cell.seed is not None
    torch.manual_seed(cell.seed)
    config = params.student(cell.student)
    weights = params.distill(cell.dataset).weights
    student = DeepLabV3Plus(config.backbone, classes, dropout=config.dropout, weights=weights)
    settings = params.method(cell.method, cell.dataset, cell.variant)
    method = discovery.component("distillers", cell.method)
    return student, method(settings, student=student.info, teacher=teacher), random_state()


def _save(cell: Cell, objective: Objective, history: pd.DataFrame, card: Mapping[str, Any]) -> None:
    assert objective.distiller is not None
    checkpoint.save(cell.model, objective.model, {**card, "val_miou": history["miou"].max()})
    state = {name: tensor.contiguous() for name, tensor in objective.distiller.state_dict().items()}
    save_file(state, cell.model / DISTILLER)
    history.to_csv(cell.model / HISTORY, index=False)
