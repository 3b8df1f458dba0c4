"""DIST: compares relations within the predictions, not their values (Huang et al. 2022)."""

import torch
from pydantic import Field
from torch import Tensor

from attnfd.config.schema import Method
from attnfd.config.section import NonNegative, Temperature
from attnfd.data.labels import VOID
from attnfd.distillers.base import Distiller
from attnfd.losses import full_precision, same_shape
from attnfd.models.taps import Output


def pearson(x: Tensor, y: Tensor, dim: int, counts: Tensor | None = None) -> Tensor:
    r"""Pearson correlation along a dimension, `ρ = ⟨x − x̄, y − ȳ⟩ / (‖x − x̄‖ ‖y − ȳ‖)`.

    If a vector is constant, ρ = 0 and has no gradient. A vector is constant if the norm of x − x̄ is within
    its rounding error.

    Args:
        x: (…)
        y: the same shape.
        dim: the dimension of the vectors; the result has the other dimensions.
        counts: mask of the values that count, broadcast to the shape of x; None: all.

    Example:
        >>> pearson(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([6.0, 4.0, 2.0]), dim=0)
        tensor(-1.0000)
    """

    used = torch.ones_like(x, dtype=torch.bool) if counts is None else counts.expand_as(x)
    number = used.sum(dim, keepdim=True).clamp_min(1)

    def unit(v: Tensor) -> Tensor:
        v = v.where(used, 0)
        centred = (v - v.sum(dim, keepdim=True) / number).where(used, 0)
        norm = torch.linalg.vector_norm(centred, dim=dim, keepdim=True)
        rounding = 32 * torch.finfo(v.dtype).eps * torch.linalg.vector_norm(v, dim=dim, keepdim=True)
        constant = norm <= rounding
        return (centred / norm.masked_fill(constant, 1)).masked_fill(constant, 0)

    return (unit(x) * unit(y)).sum(dim)


@full_precision
def dist_loss(
    student: Tensor, teacher: Tensor, target: Tensor, *, tau: float, ignore_void: bool
) -> tuple[Tensor, Tensor]:
    r"""Inter-class and intra-class loss of DIST.

    With `Y = softmax(logits / τ)`, the N pixels of the batch as rows and the K classes as columns,

    $$L_{inter} = 1 - \frac{1}{N} \sum_i ρ(Y^s_{i,:}, Y^t_{i,:}), \quad
      L_{intra} = 1 - \frac{1}{K} \sum_k ρ(Y^s_{:,k}, Y^t_{:,k})$$

    Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022, sec. 4; the samples are
    pixels, as in its segmentation experiments. There is no factor τ². A constant row or column has ρ = 0,
    see `pearson`.

    Args:
        student: logits (B, K, H, W).
        teacher: logits (B, K, H, W).
        target: labels (B, H, W).
        tau: temperature τ > 0.
        ignore_void: True: void pixels (255) do not count, and a batch with only void gives 0. False: all
            pixels count, as in the released code.

    Returns:
        L_inter and L_intra.

    Raises:
        ValueError: the shapes of student and teacher differ.

    Example:
        >>> student = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).T.view(1, 3, 1, 2)
        >>> teacher = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]).T.view(1, 3, 1, 2)
        >>> inter, intra = dist_loss(student, teacher, torch.zeros(1, 1, 2), tau=1, ignore_void=True)
        >>> f"{inter:.2f} {intra:.2f}"  # rows correlate at 1 and -½; the teacher's columns are constant
        '0.75 1.00'
    """
    same_shape(student, teacher)
    s, t = ((logits / tau).softmax(dim=1).movedim(1, -1).flatten(0, 2) for logits in (student, teacher))
    # Void pixels are masked, not removed: with a selection, the host would wait for the GPU.
    counts = ((target != VOID) | (not ignore_void)).flatten()
    inter = (1 - pearson(s, t, dim=1)).where(counts, 0).sum() / counts.sum().clamp_min(1)
    intra = 1 - pearson(s, t, dim=0, counts=counts[:, None]).mean()
    return inter, intra * counts.any()


class Dist(Distiller):
    """Correlates the student's predictions with the teacher's, per pixel and per class."""

    title = "DIST"

    class Config(Method):
        beta: NonNegative = Field(
            default=1, description="factor of the inter-class term (the classes of a pixel)"
        )
        gamma: NonNegative = Field(
            default=1, description="factor of the intra-class term (the pixels of a class)"
        )
        tau: Temperature = Field(default=1, description="τ, divides the logits of student and teacher")
        ignore_void: bool = Field(
            default=True, description="whether to leave void pixels out; the released code keeps them"
        )

    config: Config
    unlabelled = True
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
