import numpy as np
import pytest
from torch.autograd import gradcheck

from attnfd.distillers.fitnet import fitnet_loss
from tests.distillers.helpers import random

STUDENT, TEACHER = random(2, 3, 2, 2, seed=1), random(2, 3, 2, 2, seed=2)


def test_value() -> None:
    expected = sum((STUDENT[i] - TEACHER[i]).item() ** 2 for i in np.ndindex(2, 3, 2, 2)) / 24
    assert fitnet_loss(STUDENT, TEACHER).item() == pytest.approx(expected, rel=1e-12)


def test_gradient() -> None:
    assert gradcheck(lambda features: fitnet_loss(features, TEACHER), STUDENT.clone().requires_grad_())


def test_zero_for_equal_features() -> None:
    assert fitnet_loss(TEACHER, TEACHER) == 0


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="same shape"):
        fitnet_loss(STUDENT, TEACHER[:, :1])
