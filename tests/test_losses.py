"""Shared losses: cases that the tests of the methods do not cover."""

import pytest
import torch
from torch.nn import functional as F

from attnfd.losses import EPS, ROW, cross_entropy, kd_loss, unit_distance
from tests.distillers.helpers import random


def test_cross_entropy_of_one_pixel_is_its_own() -> None:
    logits = random(1, 3, 2, 2)
    target = torch.full((1, 2, 2), 255)
    target[0, 1, 0] = 2
    expected = -logits[0, :, 1, 0].log_softmax(0)[2]
    assert cross_entropy(logits, target).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("classes", [2, ROW - 1, ROW, ROW + 5])
def test_cross_entropy_in_either_order(classes: int, layout: torch.memory_format) -> None:
    logits = random(2, classes, 5, 7).float().contiguous(memory_format=layout).requires_grad_()
    target = torch.arange(70).view(2, 5, 7) % classes
    target[0, 2] = 255
    expected = F.cross_entropy(logits, target, ignore_index=255)
    (wanted,) = torch.autograd.grad(expected, logits)
    found = cross_entropy(logits, target)
    (gradient,) = torch.autograd.grad(found, logits)
    assert torch.allclose(found, expected)
    assert torch.allclose(gradient, wanted, atol=1e-8)


def test_a_vector_shorter_than_epsilon_keeps_its_share() -> None:
    short = torch.tensor([[EPS / 4, 0.0]], dtype=torch.float64)
    unit = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    # ‖(¼, 0) − (1, 0)‖², whichever vector is short.
    assert unit_distance(short, unit, 1).item() == pytest.approx(0.75**2)
    assert unit_distance(unit, short, 1).item() == pytest.approx(0.75**2)


@pytest.mark.parametrize("shapes", [((1, 3, 4, 4), (1, 3, 2, 2)), ((1, 3, 2, 2), (1, 3, 4, 4))])
def test_shapes_must_be_the_same_whichever_is_larger(shapes: tuple) -> None:
    target = torch.zeros(1, 2, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="must have the same shape"):
        kd_loss(torch.zeros(shapes[0]), torch.zeros(shapes[1]), target, temperature=1)


def test_kd_of_16_bit_logits_is_computed_in_32() -> None:
    student, teacher = random(2, 3, 4, 4, seed=1).bfloat16(), random(2, 3, 4, 4, seed=2).bfloat16()
    target = torch.zeros(2, 4, 4, dtype=torch.long)
    found = kd_loss(student, teacher, target, temperature=4)
    assert found.dtype == torch.float32
    logs = [(x.double() / 4).log_softmax(1) for x in (student, teacher)]
    expected = 16 * F.kl_div(logs[0], logs[1], reduction="none", log_target=True).sum(1).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_loss_keeps_its_name_and_its_documentation() -> None:
    assert kd_loss.__name__ == "kd_loss"
    assert "Hinton" in (kd_loss.__doc__ or "")
