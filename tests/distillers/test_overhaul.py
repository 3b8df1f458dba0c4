"""Overhaul compared with its formula in loops, and where it does not penalise the student."""

from typing import Any

import numpy as np
import pytest
import torch

from attnfd.config.section import validate
from attnfd.distillers.overhaul import Overhaul, overhaul_loss
from attnfd.errors import UserError
from attnfd.models.taps import NetInfo, Output, Tap
from tests.distillers.helpers import random

LAYERS = ("stage1", "stage2", "stage3", "backbone", "encoder", "decoder")
OPTIONS: dict[str, Any] = {
    "weight": 1e-5,
    "layers": LAYERS,
    "divisors": dict(zip(LAYERS, (8.0, 4.0, 2.0, 1.0, 1.0, 16.0), strict=True)),
}


def test_values() -> None:
    student, teacher, margin = (
        2 * random(2, 3, 4, 5),
        2 * random(2, 3, 4, 5, seed=1),
        -random(3, seed=2).abs(),
    )
    total, free = 0.0, 0
    for b, c, y, x in np.ndindex(*student.shape):
        s, t = student[b, c, y, x].item(), max(teacher[b, c, y, x].item(), margin[c].item())
        if s <= t <= 0:
            free += 1
        else:
            total += (s - t) ** 2
    assert 0 < free < student.numel()
    np.testing.assert_allclose(overhaul_loss(student, teacher, margin), total / 2, rtol=1e-12)


def test_negative_responses_need_only_be_negative_enough() -> None:
    """No penalty and no gradient where s ≤ max(t, m) ≤ 0."""
    teacher, margin = -random(1, 2, 3, 3).abs() - 0.1, torch.tensor([-0.5, -1.0]).double()
    wanted = torch.maximum(teacher, margin.view(2, 1, 1))
    student = (wanted - random(1, 2, 3, 3, seed=1).abs()).requires_grad_()
    loss = overhaul_loss(student, teacher, margin)
    loss.backward()
    assert loss == 0
    assert student.grad is not None
    assert not student.grad.any()


def test_without_a_margin_any_negative_response_will_do() -> None:
    student, teacher = torch.full((1, 1, 1, 1), -1.0), torch.full((1, 1, 1, 1), -2.0)
    assert overhaul_loss(student, teacher, torch.zeros(1)) == 0


def test_above_the_margin_the_student_is_pulled_down() -> None:
    student = torch.zeros(1, 1, 1, 1, requires_grad=True)
    overhaul_loss(student, torch.full((1, 1, 1, 1), -9.0), torch.tensor([-0.5])).backward()
    assert student.grad == 1  # d/ds (s − m)² at s = 0, m = -½


def test_equal_positive_responses_cost_nothing() -> None:
    features = random(2, 3, 4, 4).abs()
    assert overhaul_loss(features, features, torch.zeros(3)) == 0
    assert overhaul_loss(-features, -features, -torch.ones(3)) == 0


def test_gradient() -> None:
    student, teacher, margin = random(2, 3, 2, 2).requires_grad_(), random(2, 3, 2, 2, seed=1), -torch.ones(3)
    assert torch.autograd.gradcheck(lambda features: overhaul_loss(features, teacher, margin), student)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="same shape"):
        overhaul_loss(random(2, 3, 2, 2), random(2, 1, 2, 2), torch.zeros(3))


def test_layers_are_divided_and_summed() -> None:
    channels = dict(zip(LAYERS, range(2, 8), strict=True))
    student_info = NetInfo(channels=channels, classes=3)
    margins = {layer: -random(count).abs() for layer, count in channels.items()}
    distiller = Overhaul(
        student_info,
        NetInfo(channels=channels, classes=3, margins=margins),
        Overhaul.Config(**OPTIONS),
    ).double()
    student, teacher = (
        Output(None, {Tap(layer): random(2, count, 3, 3, seed=seed) for layer, count in channels.items()})
        for seed in (0, 1)
    )
    expected = 0.0
    for layer, divisor in zip(LAYERS, (8, 4, 2, 1, 1, 16), strict=True):
        connected = distiller.connectors[layer](student.taps[Tap(layer)])
        expected += overhaul_loss(connected, teacher.taps[Tap(layer)], margins[layer]).item() / divisor
    terms = distiller(student, teacher, torch.zeros(2, 3, 3, dtype=torch.long), 0)
    assert terms.keys() == {"overhaul"}
    np.testing.assert_allclose(terms["overhaul"].item(), 1e-5 * expected, rtol=1e-9)
    assert not [key for key in distiller.state_dict() if "margin" in key]


@pytest.mark.parametrize("margins", [None, {"stage1": torch.zeros(4)}])
def test_missing_margins_are_named(margins: dict[str, torch.Tensor] | None) -> None:
    channels = dict.fromkeys(LAYERS, 4)
    allowed = "stage1" if margins else "nothing"
    with pytest.raises(UserError, match=f"no margins for .*; allowed: {allowed}; freeze"):
        Overhaul(
            NetInfo(channels=channels, classes=3),
            NetInfo(channels=channels, classes=3, margins=margins),
            Overhaul.Config(**OPTIONS),
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"divisors": {"stage1": 8.0}}, "overhaul.divisors.stage2: missing"),
        ({"layers": ["stage1", "stage1"]}, "each layer once"),
        ({"layers": []}, "overhaul.layers"),
        ({"layers": ["stage5"]}, 'overhaul.layers.0: found "stage5"'),
        ({"divisors": dict.fromkeys(LAYERS, 0.0)}, "greater than 0"),
    ],
)
def test_impossible_options_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate(Overhaul.Config, OPTIONS | change, "overhaul")


def test_one_layer_is_enough() -> None:
    assert Overhaul.Config(**OPTIONS | {"layers": ("encoder",)}).layers == ("encoder",)
