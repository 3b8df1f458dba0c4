"""LAD: compares the direction of raw features, not their magnitude (Liu et al. 2024)."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from attnfd.config.schema import Weight
from attnfd.config.section import NonNegative
from attnfd.distillers.base import FeatureDistiller, FeatureMethod, Net
from attnfd.losses import full_precision, kd_loss, same_shape, unit_distance
from attnfd.models.taps import Output

Dimension = Literal["sample", "channel", "pixel"]


@full_precision
def lad_loss(student: Tensor, teacher: Tensor, *, dimension: Dimension) -> Tensor:
    r"""Angular distance of features at one layer, the mean of `‖s/‖s‖ − t/‖t‖‖² = 2 − 2 cos(s, t)`.

    Liu et al., "Rethinking Knowledge Distillation with Raw Features for Semantic Segmentation", WACV 2024.
    `dimension` chooses the vectors:

    | dimension | a vector is | mean over |
    |---|---|---|
    | sample | the C·H·W values of an image (the paper's layer-wise form) | B |
    | channel | the H·W values of a channel | B·C |
    | pixel | the C values of a position | B·H·W |

    All positions count, void ones too. A vector of zeros stays zero. A positive factor on any vector does
    not change the loss.

    Args:
        student: features (B, C, H, W).
        teacher: features (B, C, H, W).
        dimension: see the table.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> student, teacher = torch.tensor([3.0, 4.0]), torch.tensor([1.0, 0.0])
        >>> lad_loss(student.view(1, 2, 1, 1), teacher.view(1, 2, 1, 1), dimension="sample")
        tensor(0.8000)
    """
    same_shape(student, teacher)
    dims: dict[Dimension, tuple[int, ...]] = {"sample": (1, 2, 3), "channel": (2, 3), "pixel": (1,)}
    return unit_distance(student, teacher, dim=dims[dimension]).mean()


class LAD(FeatureDistiller):
    """Compares the direction of features at the chosen layers, the student's after a connector."""

    title = "LAD"

    class Config(FeatureMethod):
        weight: Weight = 10
        dimension: Dimension = Field(default="sample", description="one angle per sample, channel or pixel")
        kd_weight: NonNegative = Field(
            default=0, description="factor of an added KD term at temperature 1; 0: no such term"
        )

    config: Config

    def __init__(self, student: Net, teacher: Net, config: Config | None = None) -> None:
        super().__init__(student, teacher, config)
        config = self.config
        self.teacher_logits = config.kd_weight > 0

    def forward(self, student: Output, teacher: Output, target: Tensor, progress: float) -> dict[str, Tensor]:
        pairs = self.pairs(student, teacher)
        losses = [lad_loss(own, taught, dimension=self.config.dimension) for own, taught in pairs]
        terms = {"lad": self.config.weight * torch.stack(losses).sum()}
        if self.config.kd_weight:
            assert student.logits is not None
            assert teacher.logits is not None
            loss = kd_loss(student.logits, teacher.logits, target, temperature=1)
            terms["kd"] = self.config.kd_weight * loss
        return terms
