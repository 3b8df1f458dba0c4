import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.autograd import gradcheck

from attnfd.losses import kd_loss
from tests.distillers.helpers import random

STUDENT, TEACHER = random(2, 3, 2, 3, seed=1), random(2, 3, 2, 3, seed=2)
TARGET = torch.tensor([[[0, 1, 255], [2, 255, 0]], [[1, 1, 2], [0, 0, 255]]])


def by_loops(student: NDArray, teacher: NDArray, target: NDArray, T: float) -> float:
    losses = []
    for b, y, x in np.ndindex(target.shape):
        if target[b, y, x] == 255:
            continue
        p = [math.exp(v / T) for v in teacher[b, :, y, x]]
        q = [math.exp(v / T) for v in student[b, :, y, x]]
        terms = [pk / sum(p) * math.log((pk / sum(p)) / (qk / sum(q))) for pk, qk in zip(p, q, strict=True)]
        losses.append(T**2 * sum(terms))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [1, 4])
def test_value(temperature: float) -> None:
    found = kd_loss(STUDENT, TEACHER, TARGET, temperature=temperature).item()
    assert found == pytest.approx(
        by_loops(STUDENT.numpy(), TEACHER.numpy(), TARGET.numpy(), temperature), rel=1e-12
    )


def test_gradient() -> None:
    student = STUDENT.clone().requires_grad_()
    assert gradcheck(lambda logits: kd_loss(logits, TEACHER, TARGET, temperature=2), student)


def test_zero_for_logits_that_differ_by_a_constant_per_pixel() -> None:
    shifted = TEACHER + random(2, 1, 2, 3)
    assert kd_loss(shifted, TEACHER, TARGET, temperature=1).item() == pytest.approx(0, abs=1e-15)


def test_limit_of_high_temperature() -> None:
    """Hinton et al. 2015, eq. 4: half the mean squared difference of centred logits, for any T."""
    valid = TARGET != 255
    difference = (STUDENT - TEACHER).movedim(1, -1)[valid]
    expected = (difference - difference.mean(1, keepdim=True)).square().mean() / 2
    found = kd_loss(STUDENT, TEACHER, TARGET, temperature=1e4)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


def test_void_pixels_change_nothing() -> None:
    void = (TARGET == 255).unsqueeze(1)
    student = STUDENT.masked_fill(void, 50).requires_grad_()
    loss = kd_loss(student, TEACHER, TARGET, temperature=1)
    torch.testing.assert_close(loss, kd_loss(STUDENT, TEACHER, TARGET, temperature=1))
    (grad,) = torch.autograd.grad(loss, student)
    assert not grad.masked_select(void).any()
    assert grad.masked_select(~void).all()


def test_all_void_is_zero() -> None:
    student = STUDENT.clone().requires_grad_()
    loss = kd_loss(student, TEACHER, torch.full_like(TARGET, 255), temperature=1)
    loss.backward()
    assert loss == 0
    assert student.grad is not None
    assert not student.grad.any()


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 2, 3\) and teacher \(2, 3, 1, 3\)"):
        kd_loss(STUDENT, TEACHER[:, :, :1], TARGET, temperature=1)
