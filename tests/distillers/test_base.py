import pytest
import torch
from torch import Tensor

from attnfd.config import validate
from attnfd.distillers.base import FeatureMethod
from attnfd.errors import UserError
from attnfd.losses import full_precision
from attnfd.models.taps import Tap


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
    return validate(FeatureMethod, {"weight": 1, "layers": layers, "tap": "post_relu"}, "methods.at")


def test_taps_keep_the_order_of_the_layers() -> None:
    assert section(["decoder", "backbone"]).taps == (
        Tap("decoder", "post_relu"),
        Tap("backbone", "post_relu"),
    )


@pytest.mark.parametrize("layers", [[], ["encoder", "encoder"], ["stage1"], "encoder"])
def test_layers_that_are_refused(layers: object) -> None:
    with pytest.raises(UserError, match=r"^methods\.at\.layers.*: found .*; allowed: [^\n]+$"):
        section(layers)
