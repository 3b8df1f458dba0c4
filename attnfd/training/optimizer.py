"""The optimizer and the learning-rate schedule of a training."""

import math
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from attnfd.config.schema import Training
from attnfd.training.objective import Objective


def make_optimizer(objective: Objective, config: Training, *, fused: bool = True) -> Optimizer:
    """SGD with momentum (paper sec. 4.2) or AdamW, over all parameters of an objective.

    The backbone learns at `config.lr`; the head, connectors, projectors and attention learn at
    `config.lr · config.head_lr_factor`.

    Args:
        fused: use one kernel for all weights instead of several for each. Gradient clipping turns it off,
            because a fused optimizer cannot clip float16 gradients.
    """
    fused = fused and not config.clip_norm
    if config.optimizer == "adamw":
        groups = _parameter_groups(objective, config)
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=fused)
    return torch.optim.SGD(
        _parameter_groups(objective, config),
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
        fused=fused,
    )


def make_schedule(optimizer: Optimizer, config: Training, steps: int) -> LambdaLR:
    """The learning rate over the `steps` of a whole training: its first value times `decay` and `rise`."""
    return LambdaLR(
        optimizer, lambda step: decay(config.schedule, step / steps) * rise(config.warmup * steps, step)
    )


def rise(warmup: float, step: int) -> float:
    """Factor of the learning rate in the first `warmup` steps: linear, to 1 in the last of them."""
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


def decay(schedule: str, progress: float) -> float:
    """Factor of the learning rate at 0 ≤ progress ≤ 1: from 1 to 0."""
    if schedule == "poly":
        return (1 - progress) ** 0.9
    return (1 + math.cos(math.pi * progress)) / 2


def _parameter_groups(objective: Objective, config: Training) -> list[dict[str, Any]]:
    backbone = list(objective.model.pretrained.parameters())
    known = {id(parameter) for parameter in backbone}
    rest = [parameter for parameter in objective.parameters() if id(parameter) not in known]
    groups: list[dict[str, Any]] = [
        {"params": backbone, "lr": config.lr},
        {"params": rest, "lr": config.lr * config.head_lr_factor},
    ]
    return groups if config.decay_all else [part for group in groups for part in _apart(group)]


def _apart(group: dict[str, Any]) -> list[dict[str, Any]]:
    """Split a group of parameters: weights, and norms and biases, which have no weight decay."""
    weights = [parameter for parameter in group["params"] if parameter.ndim > 1]
    others = [parameter for parameter in group["params"] if parameter.ndim <= 1]
    return [{**group, "params": weights}, {**group, "params": others, "weight_decay": 0.0}]
