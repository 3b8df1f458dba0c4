import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.autograd import gradcheck

from attnfd.distillers.at import at_loss
from tests.distillers.helpers import random

STUDENT, TEACHER = random(2, 3, 2, 4, seed=1), random(2, 5, 2, 4, seed=2)


def attention(features: NDArray) -> list[float]:
    """The attention map of one image, flattened."""
    channels, height, width = features.shape
    energy = [
        sum(features[c, y, x] ** 2 for c in range(channels)) / channels
        for y in range(height)
        for x in range(width)
    ]
    norm = math.sqrt(sum(value**2 for value in energy))
    return [value / norm for value in energy]


def test_value() -> None:
    pairs = [
        pair
        for b in range(2)
        for pair in zip(attention(STUDENT[b].numpy()), attention(TEACHER[b].numpy()), strict=True)
    ]
    expected = np.mean([(s - t) ** 2 for s, t in pairs])
    assert at_loss(STUDENT, TEACHER).item() == pytest.approx(expected, rel=1e-12)


def test_gradient() -> None:
    assert gradcheck(lambda features: at_loss(features, TEACHER), STUDENT.clone().requires_grad_())


def test_sees_neither_order_nor_sign_nor_scale_of_channels() -> None:
    flips = torch.tensor([-1.0, 1.0, 1.0]).view(1, 3, 1, 1)
    scales = torch.tensor([0.1, 7.0]).view(2, 1, 1, 1)
    changed = STUDENT[:, [2, 0, 1]] * flips * scales
    torch.testing.assert_close(at_loss(changed, TEACHER), at_loss(STUDENT, TEACHER))


def test_zero_for_equal_attention_whatever_the_channels() -> None:
    assert at_loss(torch.cat([TEACHER, TEACHER], dim=1), TEACHER).item() == pytest.approx(0, abs=1e-30)


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="same shape"):
        at_loss(STUDENT, TEACHER[..., :1])
