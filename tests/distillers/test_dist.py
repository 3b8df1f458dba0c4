"""DIST compared with Pearson's formula in loops, and changes that a correlation ignores."""

import numpy as np
import pytest
import torch
from torch import Tensor

from attnfd.distillers.dist import dist_loss, pearson
from tests.distillers.helpers import random


def labels(*void: tuple[int, int, int]) -> Tensor:
    target = torch.zeros(2, 3, 4, dtype=torch.long)
    for index in void:
        target[index] = 255
    return target


def by_hand(student: Tensor, teacher: Tensor, target: Tensor, tau: float) -> tuple[float, float]:
    tables = []
    for logits in (student.numpy(), teacher.numpy()):
        rows = []
        for b, y, x in np.argwhere(target.numpy() != 255):
            powers = np.exp(logits[b, :, y, x] / tau)
            rows.append(powers / powers.sum())
        tables.append(np.array(rows))
    s, t = tables
    inter = [np.corrcoef(s[i], t[i])[0, 1] for i in range(len(s))]
    intra = [np.corrcoef(s[:, k], t[:, k])[0, 1] for k in range(s.shape[1])]
    return 1 - float(np.mean(inter)), 1 - float(np.mean(intra))


@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_values(tau: float) -> None:
    student, teacher = random(2, 5, 3, 4), random(2, 5, 3, 4, seed=1)
    target = labels((0, 0, 0), (1, 2, 1))
    found = dist_loss(student, teacher, target, tau=tau, ignore_void=True)
    np.testing.assert_allclose(found, by_hand(student, teacher, target, tau), rtol=1e-12)


def test_void_pixels_count_nowhere_unless_asked_for() -> None:
    student, teacher, target = random(2, 5, 3, 4), random(2, 5, 3, 4, seed=1), labels((1, 2, 1))
    changed = student.clone()
    changed[1, :, 2, 1] += random(5, seed=2)
    for ignore_void in (True, False):
        one, other = (
            dist_loss(s, teacher, target, tau=1, ignore_void=ignore_void) for s in (student, changed)
        )
        assert (one == other) == ignore_void
    np.testing.assert_allclose(
        dist_loss(student, teacher, target, tau=1, ignore_void=False),
        by_hand(student, teacher, labels(), tau=1),
        rtol=1e-12,
    )


def test_equal_predictions_cost_nothing() -> None:
    logits = random(2, 5, 3, 4)
    inter, intra = dist_loss(logits, logits + 7, labels(), tau=1, ignore_void=True)
    assert abs(inter) < 1e-12
    assert abs(intra) < 1e-12


def test_pearson_ignores_scale_and_shift_of_every_row() -> None:
    x, y = random(6, 5), random(6, 5, seed=1)
    scale, shift = random(6, 1, seed=2).exp(), random(6, 1, seed=3)
    torch.testing.assert_close(pearson(scale * x + shift, y, dim=1), pearson(x, y, dim=1))
    torch.testing.assert_close(pearson(-x, y, dim=1), -pearson(x, y, dim=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_rows_are_uncorrelated_and_without_gradient(dtype: torch.dtype) -> None:
    x = torch.full((2, 21), 1 / 21, dtype=dtype)
    x[1] = random(21).to(dtype)
    x.requires_grad_()
    found = pearson(x, random(2, 21, seed=1).to(dtype), dim=1)
    found.sum().backward()
    assert found[0] == 0
    assert found[1] != 0
    assert x.grad is not None
    assert not x.grad[0].any()
    assert x.grad[1].isfinite().all()
    assert x.grad[1].any()


def test_gradient() -> None:
    student, teacher = random(2, 4, 3, 4).requires_grad_(), random(2, 4, 3, 4, seed=1)
    target = labels((0, 1, 1))
    assert torch.autograd.gradcheck(
        lambda logits: dist_loss(logits, teacher, target, tau=2, ignore_void=True), student
    )


def test_a_batch_of_void_costs_nothing() -> None:
    logits = random(2, 4, 3, 4).requires_grad_()
    inter, intra = dist_loss(logits, random(2, 4, 3, 4), torch.full((2, 3, 4), 255), tau=1, ignore_void=True)
    (inter + intra).backward()
    assert inter == intra == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="same shape"):
        dist_loss(random(2, 4, 3, 4), random(1, 4, 3, 4), labels(), tau=1, ignore_void=True)


@pytest.mark.parametrize("level", [1e4, 1.0, 1e-4])
def test_what_varies_by_its_rounding_alone_is_constant_at_any_level(level: float) -> None:
    noise = torch.tensor([1.0, 1.0, 1.0 + 2e-7]) * level
    real = torch.tensor([1.0, 1.01, 1.02]) * level
    assert pearson(noise, real, dim=0).item() == 0
    assert pearson(real, real, dim=0).item() == pytest.approx(1)


def test_a_row_of_zeros_is_constant() -> None:
    assert pearson(torch.zeros(3), torch.tensor([1.0, 2.0, 3.0]), dim=0) == 0
