"""ICKD, inter-channel correlation: which channels are active together (Liu et al. 2021)."""

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from attnfd.config.schema import Weight
from attnfd.config.section import Positive
from attnfd.distillers.base import FeatureDistiller, FeatureMethod
from attnfd.errors import UserError
from attnfd.losses import EPS, full_precision, same_shape
from attnfd.models.taps import Output


@full_precision
def ickd_loss(student: Tensor, teacher: Tensor, *, grid: int) -> Tensor:
    r"""`‖G_s − G_t‖² / C` at one layer, with G (C, C) = `F Fᵀ`, its rows L2-normalised.

    Liu et al., "Exploring Inter-Channel Correlation for Diversity-preserved Knowledge Distillation", ICCV
    2021, sec. 3. F (C, H·W) has the features of an image or of a cell: for segmentation, the map is divided
    into `grid × grid` cells, as equal as H and W allow. The loss is the mean over images and cells. All
    positions count, void ones too.

    Args:
        student: features (B, C, H, W).
        teacher: features (B, C, H, W).
        grid: cells per side; 1 = the whole map.

    Raises:
        ValueError: the shapes differ.
        UserError: `grid` is larger than the shorter side of the map.

    Example:
        >>> student, teacher = torch.eye(2), torch.ones(2, 2)
        >>> loss = ickd_loss(student.view(1, 2, 1, 2), teacher.view(1, 2, 1, 2), grid=1)
        >>> f"{loss:.4f}"  # rows (1, 0) and (0, 1) against (1, 1) / √2
        '0.5858'
    """
    same_shape(student, teacher)
    side = min(student.shape[-2:])
    if grid > side:
        raise UserError(
            f"methods.ickd.grid: found {grid}; allowed: up to {side}, the side of the feature map"
        )
    cells = zip(_cells(student, grid), _cells(teacher, grid), strict=True)
    distances = [(_correlation(own) - _correlation(taught)).square().sum(dim=(1, 2)) for own, taught in cells]
    return torch.stack(distances).mean() / student.shape[1]


def _cells(features: Tensor, grid: int) -> Iterator[Tensor]:
    for row in features.tensor_split(grid, dim=2):
        yield from row.tensor_split(grid, dim=3)


def _correlation(features: Tensor) -> Tensor:
    channels = features.flatten(2)
    return F.normalize(channels @ channels.mT, dim=2, eps=EPS)


class ICKD(FeatureDistiller):
    """Compares channel correlations at the chosen layers, the student's after a connector."""

    title = "ICKD"

    class Config(FeatureMethod):
        weight: Weight = 2.5
        grid: Positive = Field(
            default=1, description="the map is divided into grid × grid cells; 1: the whole map"
        )

    config: Config

    def forward(self, student: Output, teacher: Output, target: Tensor, progress: float) -> dict[str, Tensor]:
        pairs = self.pairs(student, teacher)
        losses = [ickd_loss(own, taught, grid=self.config.grid) for own, taught in pairs]
        return {"ickd": self.config.weight * torch.stack(losses).sum()}
