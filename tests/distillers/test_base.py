import pytest
import torch
from torch import Tensor

from attnfd.config.schema import Method
from attnfd.config.section import validate
from attnfd.distillers.base import Distiller, FeatureMethod
from attnfd.errors import UserError
from attnfd.losses import full_precision
from attnfd.models.taps import NetInfo, Output, Tap


@full_precision
def product(left: Tensor, right: Tensor) -> Tensor:
    return left @ right


@pytest.mark.parametrize(
    ("given", "computed"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_full_precision(given: torch.dtype, computed: torch.dtype) -> None:
    left, right = torch.full((2, 2), 1 / 3, dtype=given), torch.eye(2, dtype=given)
    with torch.autocast("cpu", torch.bfloat16):
        found = product(left, right=right)
    assert found.dtype == computed
    torch.testing.assert_close(found, left.to(computed), rtol=0, atol=0)


def section(layers: object) -> FeatureMethod:
    return validate(FeatureMethod, {"weight": 1, "layers": layers, "point": "post_relu"}, "methods.at")


def test_taps_keep_the_order_of_the_layers() -> None:
    assert section(["decoder", "backbone"]).taps == (
        Tap("decoder", "post_relu"),
        Tap("backbone", "post_relu"),
    )


@pytest.mark.parametrize("layers", [[], ["encoder", "encoder"], ["stage1"], "encoder"])
def test_layers_that_are_refused(layers: object) -> None:
    with pytest.raises(UserError, match=r"^methods\.at\.layers.*: found .*; allowed: [^\n]+$"):
        section(layers)


INFO = NetInfo(channels={}, classes=2)


def test_a_method_asks_for_nothing_of_the_teacher_unless_it_says_so() -> None:
    class Nothing(Distiller):
        def forward(self, student: Output, teacher: Output, target: Tensor, progress: float) -> dict:
            return {}

    distiller = Nothing(INFO, INFO, Method(weight=1))
    assert not distiller.teacher_logits
    assert not distiller.teacher_taps
    assert not distiller.student_taps


def test_a_method_without_a_loss_is_none() -> None:
    with pytest.raises(TypeError, match="forward"):
        Distiller(INFO, INFO, Method(weight=1))  # type: ignore[abstract]
