"""train_teacher: the teacher, DeepLabV3+ with CBAM at the three taps in its forward path."""

import torch

from attnfd import training
from attnfd.accelerator import start_fabric
from attnfd.config import Params
from attnfd.data.prepared import Prepared, open_prepared
from attnfd.models import checkpoint
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.paths import HISTORY, Cell
from attnfd.resume import Checkpoints


def train_teacher(params: Params, cell: Cell, log: training.Log, checkpoints: Checkpoints) -> str:
    """Train the teacher on cross-entropy; write weights, card and history into its folder.

    Returns:
        The fingerprint of the weights.
    """
    config = params.train_teacher(cell.dataset)
    prepared: Prepared = open_prepared(params, cell.dataset)
    fabric = start_fabric(config.precision)
    torch.manual_seed(config.seed)
    model = DeepLabV3Plus(
        config.backbone,
        len(prepared.card.classes),
        dropout=config.dropout,
        attention=config.attention,
        weights=config.weights,
    )
    objective = training.Objective(model)
    history = training.fit(
        objective,
        prepared,
        config,
        seed=config.seed,
        fabric=fabric,
        log=log,
        title=cell.name,
        checkpoints=checkpoints,
    )
    checkpoint.save(cell.model, model, {"val_miou": history["miou"].max()})
    history.to_csv(cell.model / HISTORY, index=False)
    return checkpoint.fingerprint(cell.model)
