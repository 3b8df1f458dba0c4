"""DIST: distillation from a stronger teacher by Pearson correlation (Huang et al. 2022)."""

import torch
from pydantic import Field
from torch import Tensor

from attnfd.config import Method, NonNegative
from attnfd.datasets.base import VOID
from attnfd.distillers.base import Distiller
from attnfd.models.taps import Output


class DistConfig(Method):
    """Options of DIST."""

    beta: NonNegative = Field(description="factor of the inter-class term (rows: the classes of one pixel)")
    gamma: NonNegative = Field(description="factor of the intra-class term (columns: one class over all pixels)")
    tau: float = Field(gt=0, description="temperature of both softmaxes")
    ignore_void: bool = Field(description="leave void pixels out; the released code keeps them")


def pearson(x: Tensor, y: Tensor, dim: int) -> Tensor:
    r"""Pearson correlation of `x` and `y` along `dim`.

    $$ρ = \frac{⟨x - \bar x, y - \bar y⟩}{‖x - \bar x‖ ‖y - \bar y‖}$$

    A constant vector has no correlation: ρ is 0 there, without gradient. Constant means here that the
    centred vector is no larger than the rounding error of the mean.

    Shape: (…, n, …), (…, n, …) → the same without `dim`.
    """

    def unit(v: Tensor) -> Tensor:
        centred = v - v.mean(dim, keepdim=True)
        norm = torch.linalg.vector_norm(centred, dim=dim, keepdim=True)
        rounding = 32 * torch.finfo(v.dtype).eps * torch.linalg.vector_norm(v, dim=dim, keepdim=True)
        constant = norm <= rounding
        return (centred / norm.masked_fill(constant, 1)).masked_fill(constant, 0)

    return (unit(x) * unit(y)).sum(dim)


def dist_loss(
    student: Tensor, teacher: Tensor, target: Tensor, *, tau: float, ignore_void: bool
) -> tuple[Tensor, Tensor]:
    r"""Inter-class and intra-class loss of DIST.

    With Y = softmax(logits / τ), pixels of the batch as rows and classes as columns,

    $$L_{inter} = 1 - \frac{1}{N} \sum_i ρ(Y^s_{i,:}, Y^t_{i,:}), \quad
      L_{intra} = 1 - \frac{1}{K} \sum_k ρ(Y^s_{:,k}, Y^t_{:,k})$$

    Huang et al., "Knowledge Distillation from a Stronger Teacher", NeurIPS 2022, sec. 4, with pixels for
    samples as in its segmentation experiments. The losses are not multiplied by τ². Constant rows and
    columns correlate with nothing (ρ = 0, no gradient).

    Shape: logits (B, K, H, W) twice, target (B, H, W) → two scalars. Void pixels count nowhere if
    `ignore_void`; without any row both losses are 0.

    Example:
        >>> logits = torch.tensor([[[[2.0, 0.0]], [[0.0, 1.0]], [[-1.0, 0.0]]]])
        >>> target = torch.tensor([[[0, 1]]])
        >>> inter, intra = dist_loss(logits, logits, target, tau=1.0, ignore_void=True)
        >>> round(inter.item(), 5), round(intra.item(), 5)
        (0.0, 0.0)
    """

    def rows(logits: Tensor) -> Tensor:
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        flat = (logits / tau).softmax(1).movedim(1, -1)
        return flat[target != VOID] if ignore_void else flat.flatten(0, 2)

    s, t = rows(student), rows(teacher)
    if len(s) == 0:
        return s.sum(), s.sum()
    return 1 - pearson(s, t, dim=1).mean(), 1 - pearson(s, t, dim=0).mean()


class Dist(Distiller):
    """`weight · (beta · inter + gamma · intra)`; see `dist_loss`."""

    Config = DistConfig
    config: DistConfig
    teacher_logits = True

    def forward(self, student: Output, teacher: Output, target: Tensor, progress: float) -> dict[str, Tensor]:
        assert student.logits is not None
        assert teacher.logits is not None
        config = self.config
        inter, intra = dist_loss(
            student.logits, teacher.logits, target, tau=config.tau, ignore_void=config.ignore_void
        )
        return {
            "dist_inter": config.weight * config.beta * inter,
            "dist_intra": config.weight * config.gamma * intra,
        }
