"""The loss of a network's logits against the labels."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from attnfd.config.schema import Training
from attnfd.discovery import one_of
from attnfd.losses import cross_entropy, dice_loss, hard_cross_entropy

if TYPE_CHECKING:
    from attnfd.data.prepared import Card


class LabelLoss(nn.Module):
    """Cross-entropy; optionally with class weights, of the hardest pixels only, and with a Dice term.

    Args:
        weights: class weights (K,); None: 1 for each class.
        hard_pixels: share of the pixels that count: those with the largest loss.
        dice: factor of the Dice term; 0: no such term.
    """

    weights: Tensor | None

    def __init__(self, weights: Tensor | None = None, *, hard_pixels: float = 1, dice: float = 0) -> None:
        super().__init__()
        self.register_buffer("weights", weights, persistent=False)
        self.hard_pixels, self.dice = hard_pixels, dice

    def forward(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Loss terms by name, for logits (B, K, H, W) and labels (B, H, W), 255 = void."""
        plain = self.weights is None and self.hard_pixels == 1
        terms = {
            "ce": cross_entropy(logits, target)
            if plain
            else hard_cross_entropy(logits, target, self.weights, share=self.hard_pixels)
        }
        if self.dice:
            terms["dice"] = self.dice * dice_loss(logits, target)
        return terms


def label_loss(config: Training, card: "Card") -> LabelLoss:
    """The loss that a training's settings describe.

    Raises:
        UserError: `class_weights` names a class that the dataset does not have.
    """
    return LabelLoss(_weights(config, card), hard_pixels=config.hard_pixels, dice=config.dice)


def _weights(config: Training, card: "Card") -> Tensor | None:
    if config.class_weights == "none":
        return None
    if isinstance(config.class_weights, Mapping):
        for name in config.class_weights:
            one_of(name, card.classes, "training.class_weights")
        return torch.tensor([float(config.class_weights.get(name, 1)) for name in card.classes])
    counts = [
        sum(card.splits[split].pixels[name] for split in config.splits if split in card.splits)
        for name in card.classes
    ]
    present = sum(count > 0 for count in counts)
    return torch.tensor([sum(counts) / (present * count) if count else 0.0 for count in counts])
