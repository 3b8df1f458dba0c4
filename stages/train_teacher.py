"""train_teacher: train the teacher, DeepLabV3+ with CBAM at the three taps in its forward path."""

from collections.abc import Callable, Sequence
from math import nan
from typing import Any

import pandas as pd
import torch
from lightning_fabric import Fabric

from attnfd.config.schema import TrainTeacher
from attnfd.config.task import Log, Task
from attnfd.data.loaders import eval_loader
from attnfd.data.prepared import Prepared, open_prepared
from attnfd.models import checkpoint
from attnfd.models.checkpoint import legend
from attnfd.models.network import Network
from attnfd.networks.base import make_network
from attnfd.paths import HISTORY
from attnfd.runtime import processes
from attnfd.runtime.fabric import start_fabric
from attnfd.teachers import imported
from attnfd.training.labels import label_loss
from attnfd.training.loop import fit
from attnfd.training.objective import Objective
from attnfd.training.randomness import random_state
from attnfd.training.state import Trainee, validate


def train_teacher(tasks: Sequence[Task]) -> list[str]:
    """Train each teacher on cross-entropy, or import it; write weights, card and history into its folder.

    Returns:
        The fingerprints of the weights.
    """
    return [_train(task) for task in tasks]


def _train(task: Task) -> str:
    cell, config = task.cell, task.settings.train_teacher
    prepared = open_prepared(task.params, cell.dataset)
    classes = len(prepared.card.classes)
    fabric = start_fabric(config.precision, together=True, deterministic=config.deterministic)
    torch.manual_seed(config.seed)

    def train(model: Network, config: TrainTeacher) -> pd.DataFrame:
        objective = Objective(model, labels=label_loss(config, prepared.card))
        trainee = Trainee(objective, task.log, cell.name, task.own_checkpoints, random_state())
        return fit(trainee, prepared, config, seed=config.seed, fabric=fabric)

    card: dict[str, Any] = legend(prepared.card).model_dump(mode="json")
    if config.checkpoint is None:
        model = make_network(config, classes, attention=config.attention, weights=config.weights)
        history = train(model, config)
        card["attention"] = _attention(model, "in the path, trained")
    else:
        model, new_attention = imported.import_teacher(config, classes, prepared.card.classes)
        history = _score(model, prepared, config, fabric, task.log)
        if processes.rank() == 0:
            imported.compare(config, prepared.card.classes, history["miou"].item())
        made = "in the path, from the checkpoint"
        if new_attention:
            made = "in the path, fitted alone" if config.fit_epochs else "in the path, untrained"
            if config.fit_epochs and list(model.attention.parameters()):
                history = pd.concat([history, _fit_attention(model, config, train)], ignore_index=True)
        card |= {"imported_sha256": imported.fingerprint(config), "attention": _attention(model, made)}
    # After a fit, the earlier score of an imported teacher is no longer valid.
    trained = history[history["epoch"] > 0] if len(history) > 1 else history
    if processes.rank() == 0:
        checkpoint.save(cell.model, model, {"val_miou": trained["miou"].max(), **card})
        history.to_csv(cell.model / HISTORY, index=False)
    fabric.barrier()
    return checkpoint.fingerprint(cell.model)


def _attention(model: Network, made: str) -> dict[str, str]:
    """The origin of the attention at each layer, for the card: `made` for gates that have weights."""
    return {
        layer: made if list(cbam.parameters()) else "beside the path, without weights"
        for layer, cbam in model.attention.items()
    }


def _score(
    model: Network, prepared: Prepared, config: TrainTeacher, fabric: Fabric, log: Log
) -> pd.DataFrame:
    """Epoch 0 of a history: the score of an imported teacher."""
    share = processes.rank(), processes.count()
    validation = eval_loader(prepared, "val", config.batch_size, device=fabric.device, share=share)
    miou = validate(model.to(fabric.device), validation, len(prepared.card.classes), fabric)
    log.metrics({"epoch/miou": miou}, 0)
    return pd.DataFrame([{"epoch": 0, "loss": nan, "ce": nan, "lr": nan, "miou": miou}])


def _fit_attention(
    model: Network, config: TrainTeacher, train: Callable[[Network, TrainTeacher], pd.DataFrame]
) -> pd.DataFrame:
    """Train only the new CBAMs: all other weights and all BN statistics stay as imported."""
    model.eval().requires_grad_(False)
    model.attention.train().requires_grad_(True)
    return train(model, config.model_copy(update={"epochs": config.fit_epochs}))
