"""SP, similarity preservation: which images of a batch are similar (Tung and Mori 2019)."""

import warnings

import torch
from torch import Tensor
from torch.nn import functional as F

from attnfd.config.schema import Weight
from attnfd.distillers.base import FeatureDistiller, FeatureMethod
from attnfd.losses import EPS, full_precision
from attnfd.models.taps import Output


@full_precision
def sp_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""`‖G_s − G_t‖² / B²` at one layer, with G (B, B) = `Q Qᵀ`, its rows L2-normalised.

    Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, sec. 3. Q (B, C·H·W) is the
    flattened batch. All positions count, void ones too. A batch of one image gives 0.

    Args:
        student: features (B, C, H, W).
        teacher: features (B, C', H', W').

    Raises:
        ValueError: B differs.

    Example:
        >>> student, teacher = torch.eye(2), torch.ones(2, 2)
        >>> loss = sp_loss(student.view(2, 2, 1, 1), teacher.view(2, 2, 1, 1))
        >>> f"{loss:.4f}"  # rows (1, 0) and (0, 1) against (1, 1) / √2
        '0.2929'
    """
    if len(student) != len(teacher):
        raise ValueError(
            f"student and teacher must have one batch size, found {len(student)}, {len(teacher)}"
        )
    return F.mse_loss(_similarity(student), _similarity(teacher))


def _similarity(features: Tensor) -> Tensor:
    images = features.flatten(1)
    return F.normalize(images @ images.T, dim=1, eps=EPS)


class SP(FeatureDistiller):
    """Compares similarities at the chosen layers. The distiller has no weights to train."""

    title = "SP"

    class Config(FeatureMethod):
        weight: Weight = 3000

    config: Config

    connects = False

    def forward(self, student: Output, teacher: Output, target: Tensor, progress: float) -> dict[str, Tensor]:
        if len(target) == 1:  # shown once: the default filter of `warnings` drops repetitions
            warnings.warn("sp: the loss of a batch of one image is 0; raise batch_size", stacklevel=1)
        losses = [sp_loss(own, taught) for own, taught in self.pairs(student, teacher)]
        return {"sp": self.config.weight * torch.stack(losses).sum()}
