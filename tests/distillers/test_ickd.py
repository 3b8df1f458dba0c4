import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.autograd import gradcheck

from attnfd.distillers.ickd import ickd_loss
from attnfd.errors import UserError
from tests.distillers.helpers import random

STUDENT, TEACHER = random(2, 3, 5, 4, seed=1), random(2, 3, 5, 4, seed=2)


def correlations(image: NDArray) -> list[list[float]]:
    channels = [channel.ravel() for channel in image]
    rows = [[sum(a * b for a, b in zip(one, other, strict=True)) for other in channels] for one in channels]
    return [[value / math.sqrt(sum(v**2 for v in row)) for value in row] for row in rows]


@pytest.mark.parametrize(
    ("grid", "rows", "columns"),
    [
        (1, [slice(0, 5)], [slice(0, 4)]),
        (2, [slice(0, 3), slice(3, 5)], [slice(0, 2), slice(2, 4)]),
        (4, [slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 5)], [slice(i, i + 1) for i in range(4)]),
    ],
)
def test_value(grid: int, rows: list[slice], columns: list[slice]) -> None:
    student, teacher = STUDENT.numpy(), TEACHER.numpy()
    cells = [
        np.square(np.subtract(correlations(student[b, :, y, x]), correlations(teacher[b, :, y, x]))).sum() / 3
        for b in range(2)
        for y in rows
        for x in columns
    ]
    assert ickd_loss(STUDENT, TEACHER, grid=grid).item() == pytest.approx(np.mean(cells), rel=1e-12)


@pytest.mark.parametrize("grid", [1, 2])
def test_gradient(grid: int) -> None:
    student = STUDENT.clone().requires_grad_()
    assert gradcheck(lambda features: ickd_loss(features, TEACHER, grid=grid), student)


def test_sees_no_order_of_positions_and_no_scale() -> None:
    shuffled = 5 * STUDENT.flatten(2)[..., torch.randperm(20)].view_as(STUDENT)
    torch.testing.assert_close(ickd_loss(shuffled, TEACHER, grid=1), ickd_loss(STUDENT, TEACHER, grid=1))
    assert ickd_loss(shuffled, STUDENT, grid=1).item() == pytest.approx(0, abs=1e-28)
    assert ickd_loss(shuffled, STUDENT, grid=2).item() > 1e-3


def test_a_dead_channel_has_a_bounded_gradient() -> None:
    student = STUDENT.clone()
    student[:, 0] = 0
    student.requires_grad_()
    ickd_loss(student, TEACHER, grid=1).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_a_grid_finer_than_the_map_is_refused() -> None:
    with pytest.raises(UserError, match=r"methods\.ickd\.grid: found 5; allowed: up to 4"):
        ickd_loss(STUDENT, TEACHER, grid=5)
    with pytest.raises(UserError, match="up to 4"):
        ickd_loss(STUDENT.mT, TEACHER.mT, grid=5)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="same shape"):
        ickd_loss(STUDENT, TEACHER[:, :1], grid=1)
