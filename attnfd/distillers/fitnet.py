"""FitNet, hints: the student's features approach the teacher's (Romero et al. 2015)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from attnfd.distillers.base import FeatureDistiller
from attnfd.losses import full_precision, same_shape
from attnfd.models.taps import Output


@full_precision
def fitnet_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean over B·C·H·W of `(s − t)²`, at one layer.

    Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, eq. 3. All positions count, void ones too.

    Args:
        student: features (B, C, H, W).
        teacher: features (B, C, H, W).

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> fitnet_loss(torch.zeros(1, 2, 1, 1), torch.tensor([1.0, 3.0]).view(1, 2, 1, 1))
        tensor(5.)
    """
    same_shape(student, teacher)
    return F.mse_loss(student, teacher)


class FitNet(FeatureDistiller):
    """Compares features at the chosen layers, the student's after a connector."""

    title = "FitNet"

    def forward(self, student: Output, teacher: Output, target: Tensor, progress: float) -> dict[str, Tensor]:
        losses = [fitnet_loss(own, taught) for own, taught in self.pairs(student, teacher)]
        return {"fitnet": self.config.weight * torch.stack(losses).sum()}
