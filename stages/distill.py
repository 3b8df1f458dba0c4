"""distill: one student, taught by one method, from one seed."""

import torch
from safetensors.torch import save_file

from attnfd import discovery, paths, processes, training
from attnfd.accelerator import start_fabric
from attnfd.config import Params
from attnfd.data.legend import legend
from attnfd.data.prepared import open_prepared
from attnfd.models import checkpoint
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.paths import DISTILLER, HISTORY, Cell
from attnfd.resume import Checkpoints


def distill(params: Params, cell: Cell, log: training.Log, checkpoints: Checkpoints) -> str:
    """Train a student beside the frozen teacher; write its weights, card and history into its folder.

    The student is saved without connectors and attention; those lie beside it, for pictures alone.

    Returns:
        The fingerprint of the student's weights.
    """
    assert cell.student
    assert cell.method
    assert cell.seed is not None
    config = params.distill(cell.dataset)
    student_config = params.student(cell.student)
    prepared = open_prepared(params, cell.dataset)
    fabric = start_fabric(config.precision, together=True, deterministic=config.deterministic)
    teacher = checkpoint.load(paths.frozen(cell.dataset))[0].to(memory_format=torch.channels_last)
    prepared.check_classes(teacher.info.classes, paths.frozen(cell.dataset))

    torch.manual_seed(cell.seed)
    student = DeepLabV3Plus(
        student_config.backbone,
        len(prepared.card.classes),
        dropout=student_config.dropout,
        weights=config.weights,
    )
    distiller = discovery.component("distillers", cell.method)(
        params.method(cell.method, cell.dataset, cell.variant), student=student.info, teacher=teacher.info
    )
    objective = training.Objective(student, distiller, teacher.to(fabric.device))
    history = training.fit(
        objective,
        prepared,
        config,
        seed=cell.seed,
        fabric=fabric,
        log=log,
        title=cell.name,
        checkpoints=checkpoints,
    )
    card = {**legend(prepared.card).model_dump(mode="json"), "val_miou": history["miou"].max()}
    if processes.rank() == 0:
        checkpoint.save(cell.model, student, card)
        state = {name: tensor.contiguous() for name, tensor in distiller.state_dict().items()}
        save_file(state, cell.model / DISTILLER)
        history.to_csv(cell.model / HISTORY, index=False)
    fabric.barrier()
    return checkpoint.fingerprint(cell.model)
