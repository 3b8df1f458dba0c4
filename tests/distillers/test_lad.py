"""LAD compared with its formula in loops; only directions count."""

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from attnfd.distillers.lad import LAD, Dimension, lad_loss
from attnfd.losses import kd_loss
from attnfd.models.taps import NetInfo, Output, Tap
from tests.distillers.helpers import random

AXES: dict[Dimension, tuple[int, ...]] = {"sample": (1, 2, 3), "channel": (2, 3), "pixel": (1,)}
every_dimension = pytest.mark.parametrize("dimension", get_args(Dimension))


def vectors(features: Tensor, dimension: Dimension) -> list[np.ndarray]:
    array, (b, c, h, w) = features.numpy(), features.shape
    if dimension == "sample":
        return [array[i].ravel() for i in range(b)]
    if dimension == "channel":
        return [array[i, j].ravel() for i in range(b) for j in range(c)]
    return [array[i, :, y, x] for i in range(b) for y in range(h) for x in range(w)]


@every_dimension
def test_values(dimension: Dimension) -> None:
    student, teacher = random(2, 3, 4, 5), random(2, 3, 4, 5, seed=1)
    distances = [
        np.sum((s / np.linalg.norm(s) - t / np.linalg.norm(t)) ** 2)
        for s, t in zip(vectors(student, dimension), vectors(teacher, dimension), strict=True)
    ]
    np.testing.assert_allclose(
        lad_loss(student, teacher, dimension=dimension), np.mean(distances), rtol=1e-12
    )


@every_dimension
def test_positive_factors_change_nothing(dimension: Dimension) -> None:
    student, teacher = random(2, 3, 4, 5), random(2, 3, 4, 5, seed=1)
    shape = [1 if axis in AXES[dimension] else size for axis, size in enumerate(student.shape)]
    factor = random(*shape, seed=2).exp()
    torch.testing.assert_close(
        lad_loss(factor * student, teacher, dimension=dimension),
        lad_loss(student, teacher, dimension=dimension),
    )
    assert abs(lad_loss(factor * teacher, teacher, dimension=dimension)) < 1e-12
    torch.testing.assert_close(lad_loss(-teacher, teacher, dimension=dimension).item(), 4.0)


@every_dimension
def test_gradient(dimension: Dimension) -> None:
    student, teacher = random(2, 3, 2, 2).requires_grad_(), random(2, 3, 2, 2, seed=1)
    assert torch.autograd.gradcheck(
        lambda features: lad_loss(features, teacher, dimension=dimension), student
    )


@every_dimension
def test_zeros_are_finite(dimension: Dimension) -> None:
    student = torch.zeros(2, 3, 2, 2, requires_grad=True)
    loss = lad_loss(student, random(2, 3, 2, 2).float(), dimension=dimension)
    loss.backward()
    torch.testing.assert_close(loss.item(), 1.0)
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="same shape"):
        lad_loss(random(2, 3, 2, 2), random(2, 1, 2, 2), dimension="sample")


def test_kd_is_added_by_its_own_weight() -> None:
    info = NetInfo(channels={"encoder": 3}, classes=4)
    config = LAD.Config(weight=10.0, layers=("encoder",), point="pre_relu", dimension="sample", kd_weight=2.0)
    distiller = LAD(info, info, config).double()
    student, teacher = (
        Output(random(2, 4, 3, 3, seed=seed), {Tap("encoder"): random(2, 3, 3, 3, seed=seed + 1)})
        for seed in (0, 2)
    )
    target = torch.zeros(2, 3, 3, dtype=torch.long)
    terms = distiller(student, teacher, target, 0)
    assert distiller.teacher_logits
    assert terms.keys() == {"lad", "kd"}
    assert student.logits is not None
    assert teacher.logits is not None
    torch.testing.assert_close(
        terms["kd"], 2 * kd_loss(student.logits, teacher.logits, target, temperature=1)
    )
    without = LAD(info, info, config.model_copy(update={"kd_weight": 0.0})).double()
    assert not without.teacher_logits
    assert without(student, teacher._replace(logits=None), target, 0).keys() == {"lad"}
