"""CWD compared with its formula in loops, and changes that a spatial softmax ignores."""

import numpy as np
import pytest
import torch
from torch import Tensor

from attnfd.distillers.cwd import cwd_loss
from tests.distillers.helpers import random


def labels(*void: tuple[int, int, int]) -> Tensor:
    target = torch.zeros(2, 3, 4, dtype=torch.long)
    for index in void:
        target[index] = 255
    return target


def by_hand(student: Tensor, teacher: Tensor, target: Tensor, temperature: float) -> float:
    total = 0.0
    for b in range(student.shape[0]):
        keep = target[b].numpy() != 255
        for k in range(student.shape[1]):
            maps = [np.exp(logits[b, k].numpy()[keep] / temperature) for logits in (student, teacher)]
            s, t = (powers / powers.sum() for powers in maps)
            total += sum(t[i] * np.log(t[i] / s[i]) for i in range(len(t)))
    return temperature**2 * total / (student.shape[0] * student.shape[1])


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("void", [(), ((0, 0, 0), (1, 2, 3), (1, 0, 1))])
def test_values(temperature: float, void: tuple[tuple[int, int, int], ...]) -> None:
    student, teacher, target = random(2, 5, 3, 4), random(2, 5, 3, 4, seed=1), labels(*void)
    found = cwd_loss(student, teacher, target, temperature=temperature)
    np.testing.assert_allclose(found, by_hand(student, teacher, target, temperature), rtol=1e-12)


def test_shift_of_a_class_map_changes_nothing() -> None:
    student, teacher, target = random(2, 5, 3, 4), random(2, 5, 3, 4, seed=1), labels((1, 1, 1))
    shift = 3 * random(2, 5, 1, 1, seed=2)
    torch.testing.assert_close(
        cwd_loss(student + shift, teacher, target, temperature=4),
        cwd_loss(student, teacher, target, temperature=4),
    )
    assert abs(cwd_loss(teacher + shift, teacher, target, temperature=4)) < 1e-12


def test_void_pixels_count_nowhere() -> None:
    student, teacher, target = random(2, 5, 3, 4), random(2, 5, 3, 4, seed=1), labels((1, 2, 1))
    expected = cwd_loss(student, teacher, target, temperature=4)
    for logits in (student, teacher):
        logits[1, :, 2, 1] = 1e6
    assert cwd_loss(student, teacher, target, temperature=4) == expected


def test_an_image_of_void_adds_nothing() -> None:
    student, teacher, target = random(2, 5, 3, 4).requires_grad_(), random(2, 5, 3, 4, seed=1), labels()
    target[1] = 255
    loss = cwd_loss(student, teacher, target, temperature=4)
    loss.backward()
    alone = cwd_loss(student[:1], teacher[:1], target[:1], temperature=4)
    torch.testing.assert_close(loss, alone / 2)
    assert student.grad is not None
    assert student.grad[0].any()
    assert not student.grad[1].any()


def test_gradient() -> None:
    student, teacher, target = (
        random(2, 3, 3, 4).requires_grad_(),
        random(2, 3, 3, 4, seed=1),
        labels((0, 1, 1)),
    )
    assert torch.autograd.gradcheck(lambda logits: cwd_loss(logits, teacher, target, temperature=4), student)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="same shape"):
        cwd_loss(random(2, 1, 3, 4), random(2, 4, 3, 4), labels(), temperature=4)
