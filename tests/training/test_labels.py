"""The loss of the labels: weights, hard pixels and Dice, and a rare class that plain training never finds."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnfd.config.params import load_params
from attnfd.config.schema import Training
from attnfd.config.section import typed
from attnfd.errors import UserError
from attnfd.losses import cross_entropy, dice_loss, hard_cross_entropy
from attnfd.training.labels import LabelLoss, label_loss
from attnfd.training.objective import Objective
from tests.data.trees import training
from tests.test_house import PROJECT


def card(**pixels: int) -> Any:
    split = SimpleNamespace(pixels=pixels)
    return SimpleNamespace(classes=tuple(pixels), splits={"train": split})


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 3, (2, 4, 5), generator=generator)
    target[0, 0] = 255
    return logits, target


def test_off_it_is_cross_entropy_to_the_bit() -> None:
    logits, target = batch()
    loss = label_loss(training(), card(a=1, b=2, c=3))
    terms = loss(logits.float(), target)
    assert terms.keys() == {"ce"}
    assert torch.equal(terms["ce"], cross_entropy(logits.float(), target))
    assert not loss.state_dict()


def test_weights_and_hard_pixels_by_hand() -> None:
    logits, target = batch()
    weights = torch.tensor([1.0, 5.0, 0.5], dtype=torch.float64)
    expected = nn.functional.cross_entropy(logits, target, weights, ignore_index=255)
    assert torch.isclose(hard_cross_entropy(logits, target, weights), expected)
    single = nn.functional.cross_entropy(logits, target, ignore_index=255, reduction="none")
    hardest = single.flatten().topk(9).values.mean()  # a quarter of 35 pixels, rounded up
    assert torch.isclose(hard_cross_entropy(logits, target, share=0.25), hardest)
    void = torch.full_like(target, 255)
    assert hard_cross_entropy(logits, void, weights, share=0.25) == dice_loss(logits, void) == 0


def test_dice_by_hand() -> None:
    logits, target = batch()
    target[target == 2] = 1  # a class that does not occur has no term
    valid = target != 255
    terms = []
    for k in range(2):
        p, y = logits.softmax(1)[:, k][valid], (target == k)[valid]
        terms.append(1 - 2 * p[y].sum() / (p.sum() + y.sum()))
    assert torch.isclose(dice_loss(logits, target), torch.stack(terms).mean())


def test_balanced_weights_are_those_of_the_card() -> None:
    loss = label_loss(training(class_weights="balanced"), card(a=900, b=100, c=0))
    assert loss.weights is not None
    assert loss.weights.tolist() == [pytest.approx(1000 / 1800), pytest.approx(5.0), 0.0]
    named = label_loss(training(class_weights={"b": 3.0}), card(a=900, b=100))
    assert named.weights is not None
    assert named.weights.tolist() == [1.0, 3.0]
    with pytest.raises(UserError, match=r"training.class_weights: unknown name 'bb'; did you mean 'b'"):
        label_loss(training(class_weights={"bb": 3.0}), card(a=900, b=100))


class PixelNet(nn.Module):
    """A network that classifies every pixel alone."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(1, 2, 1)
        nn.init.zeros_(self.backbone.weight)
        nn.init.zeros_(self.backbone.bias)

    def forward(self, images: Tensor) -> Any:
        return SimpleNamespace(logits=self.backbone(images))


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, False),
        ({"class_weights": "balanced"}, True),
        ({"class_weights": {"rare": 500.0}}, True),
        ({"hard_pixels": 0.01}, True),
        ({"dice": 1.0}, True),
    ],
)
def test_a_class_of_a_thousandth_of_the_pixels(settings: dict[str, Any], found: bool) -> None:
    """Its values differ, but it has so few pixels that plain training does not learn it in these steps."""
    generator = torch.Generator().manual_seed(0)
    target = torch.zeros(4, 100, 100, dtype=torch.long)
    target.view(-1)[torch.randperm(target.numel(), generator=generator)[:40]] = 1
    images = torch.randn(4, 1, 100, 100, generator=generator) + 4 * target[:, None]
    config = training(**settings)
    model = PixelNet()
    labels = label_loss(config, card(common=int((target == 0).sum()), rare=40))
    objective = Objective(model, labels=labels)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1, momentum=0.9)
    for _ in range(150):
        optimizer.zero_grad()
        sum(objective(images, target, 0.0).values()).backward()  # type: ignore[union-attr]
        optimizer.step()
    predicted = model(images).logits.argmax(1)
    recall = (predicted[target == 1] == 1).float().mean()
    assert recall > 0.6 if found else recall == 0
    assert (predicted[target == 0] == 1).float().mean() < 0.03


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_weights": "some"}, "class_weights"),
        ({"hard_pixels": 0}, "hard_pixels"),
        ({"dice": -1}, "dice"),
    ],
)
def test_bad_values_are_refused(change: dict[str, Any], message: str) -> None:
    raw = load_params(PROJECT / "params.yaml").raw["training"]
    with pytest.raises(ValueError, match=message):
        typed(Training, {**raw, **change})


def test_the_loss_has_no_state_of_its_own() -> None:
    objective = Objective(PixelNet(), labels=LabelLoss(torch.ones(2)))  # type: ignore[arg-type]
    assert not [key for key in objective.state_dict() if key.startswith("labels")]
