"""train_teacher: the teacher, DeepLabV3+ with CBAM at the three taps in its forward path."""

from math import nan
from typing import Any

import pandas as pd
import torch
from lightning_fabric import Fabric

from attnfd import training
from attnfd.accelerator import start_fabric
from attnfd.config import Params, TrainTeacher
from attnfd.data.legend import legend
from attnfd.data.loaders import eval_loader
from attnfd.data.prepared import Prepared, open_prepared
from attnfd.models import checkpoint, imported
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.paths import HISTORY, Cell


def train_teacher(params: Params, cell: Cell, log: training.Log) -> str:
    """Train the teacher on cross-entropy, or import it; write weights, card and history into its folder.

    Returns:
        The fingerprint of the weights.
    """
    config = params.train_teacher(cell.dataset)
    prepared: Prepared = open_prepared(params, cell.dataset)
    fabric = start_fabric(config.precision)
    torch.manual_seed(config.seed)
    card: dict[str, Any] = legend(prepared.card).model_dump(mode="json")
    if config.checkpoint is None:
        model, history = _train(config, prepared, fabric, log, cell.name)
    else:
        model, history = _import(config, prepared, fabric, log, cell.name)
        card["imported_sha256"] = imported.fingerprint(config)
    # What an imported teacher scored before a fit is not its score any more.
    trained = history[history["epoch"] > 0] if len(history) > 1 else history
    checkpoint.save(cell.model, model, {"val_miou": trained["miou"].max(), **card})
    history.to_csv(cell.model / HISTORY, index=False)
    return checkpoint.fingerprint(cell.model)


def _train(
    config: TrainTeacher, prepared: Prepared, fabric: Fabric, log: training.Log, title: str
) -> tuple[DeepLabV3Plus, pd.DataFrame]:
    model = DeepLabV3Plus(
        config.backbone,
        len(prepared.card.classes),
        dropout=config.dropout,
        attention=config.attention,
        weights=config.weights,
    )
    objective = training.Objective(model)
    return model, training.fit(
        objective, prepared, config, seed=config.seed, fabric=fabric, log=log, title=title
    )


def _import(
    config: TrainTeacher, prepared: Prepared, fabric: Fabric, log: training.Log, title: str
) -> tuple[DeepLabV3Plus, pd.DataFrame]:
    """The imported teacher; its history starts with the score that it comes with, as epoch 0."""
    classes = len(prepared.card.classes)
    model, new_attention = imported.import_teacher(config, classes)
    validation = eval_loader(prepared, "val", config.batch_size, device=fabric.device)
    miou = training.validate(model.to(fabric.device), validation, classes, fabric)
    log.metrics({"epoch/miou": miou}, 0)
    history = pd.DataFrame([{"epoch": 0, "loss": nan, "ce": nan, "lr": nan, "miou": miou}])
    if not (new_attention and config.fit_epochs and list(model.attention.parameters())):
        return model, history
    # The rest is as good as it came: neither weights nor BN statistics of it move.
    model.eval().requires_grad_(False)
    model.attention.train().requires_grad_(True)
    fitted = training.fit(
        training.Objective(model),
        prepared,
        config.model_copy(update={"epochs": config.fit_epochs}),
        seed=config.seed,
        fabric=fabric,
        log=log,
        title=title,
    )
    return model, pd.concat([history, fitted], ignore_index=True)
