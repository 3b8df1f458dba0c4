"""AT, attention transfer: compares where the activations are strong (Zagoruyko and Komodakis 2017)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from attnfd.config.schema import Weight
from attnfd.distillers.base import FeatureDistiller, FeatureMethod
from attnfd.losses import full_precision, same_shape
from attnfd.models.taps import Output


@full_precision
def at_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean squared difference of attention maps `Q / ‖Q‖`, `Q = mean_c A_c²`, at one layer.

    Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, sec. 3.1, eq. 2 (p = 2). The
    norm is over the positions of an image, the mean over images and positions. All positions count, void
    ones too.

    Args:
        student: features (B, C, H, W).
        teacher: features (B, C', H, W).

    Raises:
        ValueError: B, H or W differ.

    Example:
        >>> student, teacher = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])
        >>> at_loss(student.view(1, 1, 1, 2), teacher.view(1, 1, 1, 2))
        tensor(1.)
    """
    own, taught = (features.square().mean(dim=1) for features in (student, teacher))
    same_shape(own, taught)
    return F.mse_loss(F.normalize(own.flatten(1), dim=1), F.normalize(taught.flatten(1), dim=1))


class AT(FeatureDistiller):
    """Compares attention maps at the chosen layers. The distiller has no weights to train."""

    title = "AT"

    class Config(FeatureMethod):
        weight: Weight = 10_000

    config: Config

    connects = False

    def forward(self, student: Output, teacher: Output, target: Tensor, progress: float) -> dict[str, Tensor]:
        losses = [at_loss(own, taught) for own, taught in self.pairs(student, teacher)]
        return {"at": self.config.weight * torch.stack(losses).sum()}
