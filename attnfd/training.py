"""The one loop that trains teacher and students alike."""

import math
import time
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Protocol

import pandas as pd
import torch
from lightning_fabric import Fabric
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from attnfd import evaluation
from attnfd.config import Training
from attnfd.data.loaders import eval_loader, train_loader
from attnfd.data.prepared import Prepared
from attnfd.data.transforms import normalize
from attnfd.distillers.base import Distiller
from attnfd.errors import UserError
from attnfd.losses import cross_entropy
from attnfd.metrics import scores
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.taps import Output


class Log(Protocol):
    """Whoever wants the curves."""

    def metrics(self, values: Mapping[str, float], step: int) -> None: ...


class Objective(nn.Module):
    """What a step minimises: cross-entropy of a network, plus what a distiller adds.

    Args:
        model: the network in training, teacher or student.
        distiller: the method, unless the network learns from labels alone.
        teacher: the frozen teacher. It is kept out of `parameters()` and `state_dict()`, and does not run
            if the method reads nothing of it.
    """

    def __init__(
        self, model: DeepLabV3Plus, distiller: Distiller | None = None, teacher: DeepLabV3Plus | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.distiller = distiller
        self._teacher = (teacher,)  # a tuple hides it from nn.Module

    def forward(self, images: Tensor, target: Tensor, progress: float) -> dict[str, Tensor]:
        """Terms by name; their sum is the loss. Images are normalised (B, 3, H, W), see `cross_entropy`."""
        if self.distiller is None:
            return {"ce": cross_entropy(self.model(images).logits, target)}
        taught = self._teach(images)
        student = self.model(images, taps=self.distiller.student_taps)
        terms = self.distiller(student, taught, target, progress)
        return {"ce": cross_entropy(student.logits, target), **terms}

    @torch.no_grad()
    def _teach(self, images: Tensor) -> Output:
        teacher, method = self._teacher[0], self.distiller
        assert method is not None
        if not (method.teacher_taps or method.teacher_logits):
            return Output(None, {})
        assert teacher is not None, "this method needs a teacher"
        return teacher(images, taps=method.teacher_taps, logits=method.teacher_logits)

    def parameter_groups(self, config: Training) -> list[dict[str, Any]]:
        """The backbone at `lr`; head, connectors, projectors and attention at `lr · head_lr_factor`."""
        backbone = list(self.model.backbone.parameters())
        known = {id(parameter) for parameter in backbone}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in known]
        return [
            {"params": backbone, "lr": config.lr},
            {"params": rest, "lr": config.lr * config.head_lr_factor},
        ]


def decay(schedule: str, progress: float) -> float:
    """Factor of the learning rate at 0 ≤ progress ≤ 1: from 1 to 0."""
    if schedule == "poly":
        return (1 - progress) ** 0.9
    return (1 + math.cos(math.pi * progress)) / 2


def fit(
    objective: Objective,
    prepared: Prepared,
    config: Training,
    *,
    seed: int,
    fabric: Fabric,
    log: Log,
    title: str,
) -> pd.DataFrame:
    """Train `objective.model`, and leave it with the weights of its best validation.

    Returns:
        A row per epoch: mean of `loss` and of each term, `lr` of the backbone at its end, and the
        validation's `miou` in the epochs that have one.

    Raises:
        UserError: the loss is no longer finite; the message names epoch, step and term.
    """
    train = train_loader(prepared, config, seed, device=fabric.device)
    validation = eval_loader(prepared, "val", config.batch_size, device=fabric.device)
    steps = config.epochs * len(train)
    optimizer = torch.optim.SGD(
        objective.parameter_groups(config),
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: decay(config.schedule, step / steps))
    objective.to(memory_format=torch.channels_last)
    wrapped, wrapped_optimizer = fabric.setup(objective, optimizer)
    best, kept, history = -1.0, {}, []
    with _progress_bar() as bar:
        task = bar.add_task(title, total=steps, note="")
        for epoch in range(config.epochs):
            train.set_epoch(epoch)
            taken: list[dict[str, Tensor]] = []
            seen, start = 0, time.perf_counter()
            for images, target in train:
                images, target = fabric.to_device((images, target))
                progress = (epoch * len(train) + len(taken)) / steps
                terms = wrapped(normalize(images), target.long(), progress)
                wrapped_optimizer.zero_grad()
                fabric.backward(sum(terms.values()))
                wrapped_optimizer.step()
                schedule.step()
                taken.append({name: term.detach() for name, term in terms.items()})
                seen += len(target)
                bar.advance(task)
            curves = _read(taken, epoch)
            log.metrics(_speed(seen, time.perf_counter() - start, fabric.device), epoch + 1)
            for step, values in enumerate(curves.to_dict("records"), start=epoch * len(train) + 1):
                log.metrics({f"step/{name}": value for name, value in values.items()}, step)
            row = {**curves.mean().to_dict(), "lr": optimizer.param_groups[0]["lr"]}
            if (epoch + 1) % config.validate_every == 0 or epoch + 1 == config.epochs:
                bar.update(task, note="validating")
                row["miou"] = validate(objective.model, validation, len(prepared.card.classes), fabric)
                if row["miou"] > best:
                    best, kept = row["miou"], deepcopy(objective.state_dict())
            log.metrics({f"epoch/{name}": value for name, value in row.items()}, epoch + 1)
            history.append({"epoch": epoch + 1, **row})
            bar.update(task, note=f"loss {row['loss']:.3f}, best mIoU {100 * best:.1f} %")
    objective.load_state_dict(kept)
    return pd.DataFrame(history)


def _read(taken: list[dict[str, Tensor]], epoch: int) -> pd.DataFrame:
    """The epoch's terms and their sum, a row per step: the one transfer from the device in an epoch."""
    names = list(taken[0])
    values = torch.stack([torch.stack([terms[name].float() for name in names]) for terms in taken]).cpu()
    for step, name in (~values.isfinite()).nonzero().tolist():
        raise UserError(
            f"epoch {epoch + 1}, step {step + 1}: {names[name]} is {values[step, name].item()}; "
            f"try a lower lr, a lower weight of the method, or precision: 32-true"
        )
    curves = pd.DataFrame(values.numpy(), columns=names)
    curves.insert(0, "loss", curves.sum(axis=1))
    return curves


def _speed(images: int, seconds: float, device: torch.device) -> dict[str, float]:
    """For the log alone: an out of the pipeline must not differ between two runs."""
    speed = {"speed/images_per_second": images / seconds}
    if device.type == "cuda":
        speed["speed/peak_device_memory_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
    return speed


def validate(model: DeepLabV3Plus, loader: Any, classes: int, fabric: Fabric) -> float:
    """mIoU of a network on the batches of a split, in the arithmetic that it trains in."""
    with fabric.autocast():
        matrices = evaluation.confusion(model, loader, classes, device=fabric.device)
    return scores(matrices.sum(0))["miou"]


def _progress_bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[note]}"))
