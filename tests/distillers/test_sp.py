import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.autograd import gradcheck

from attnfd.distillers.sp import sp_loss
from attnfd.models.taps import Output
from tests.distillers.helpers import batch, build, random, tiny_student, tiny_teacher

STUDENT, TEACHER = random(3, 2, 2, 2, seed=1), random(3, 4, 3, 1, seed=2)


def similarities(features: NDArray) -> list[list[float]]:
    images = [image.ravel() for image in features]
    rows = [[sum(a * b for a, b in zip(one, other, strict=True)) for other in images] for one in images]
    return [[value / math.sqrt(sum(v**2 for v in row)) for value in row] for row in rows]


def test_value() -> None:
    expected = (
        np.square(np.subtract(similarities(STUDENT.numpy()), similarities(TEACHER.numpy()))).sum() / 3**2
    )
    assert sp_loss(STUDENT, TEACHER).item() == pytest.approx(expected, rel=1e-12)


def test_gradient() -> None:
    assert gradcheck(lambda features: sp_loss(features, TEACHER), STUDENT.clone().requires_grad_())


def test_sees_no_rotation_and_no_scale_of_the_features() -> None:
    rotation, _ = torch.linalg.qr(random(8, 8))
    turned = 3 * (STUDENT.flatten(1) @ rotation).view_as(STUDENT)
    torch.testing.assert_close(sp_loss(turned, TEACHER), sp_loss(STUDENT, TEACHER))
    assert sp_loss(turned, STUDENT).item() == pytest.approx(0, abs=1e-28)


def test_one_image_gives_zero_and_a_single_warning() -> None:
    student, teacher = tiny_student(), tiny_teacher()
    distiller = build("sp", student.info, teacher.info)
    images, target = batch(1)
    with torch.no_grad():
        outputs = [Output(*net(images, distiller.student_taps)) for net in (student.eval(), teacher)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        terms = [distiller(*outputs, target, 0)["sp"].item() for _ in range(2)]
    assert terms == pytest.approx([0, 0], abs=1e-6)
    assert ["sp: the loss of a batch of one" in str(one.message) for one in caught] == [True]
    assert Path(caught[0].filename).name == "sp.py"


def test_several_images_give_no_warning() -> None:
    student, teacher = tiny_student(), tiny_teacher()
    distiller = build("sp", student.info, teacher.info)
    images, target = batch(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distiller(*(net(images, distiller.student_taps) for net in (student, teacher)), target, 0)


def test_other_batch_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="batch size, found 3, 2"):
        sp_loss(STUDENT, TEACHER[:2])
    with pytest.raises(ValueError, match="batch size, found 2, 3"):
        sp_loss(STUDENT[:2], TEACHER)
