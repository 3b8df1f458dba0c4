"""CWD: channel-wise distillation of the logits (Shu et al. 2021)."""

import torch
from pydantic import Field
from torch import Tensor

from attnfd.config import Method
from attnfd.datasets.base import VOID
from attnfd.distillers.base import Distiller
from attnfd.models.taps import Output


class CwdConfig(Method):
    """Options of CWD."""

    temperature: float = Field(gt=0, description="T of the spatial softmax")


def cwd_loss(student: Tensor, teacher: Tensor, target: Tensor, *, temperature: float) -> Tensor:
    r"""Divergence of where in the image each class lies.

    With φ = softmax(logits / T) over the positions i of one class map,

    $$L = \frac{T^2}{B K} \sum_{b,k} \sum_i φ^t_{bki} \log \frac{φ^t_{bki}}{φ^s_{bki}}$$

    Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021, sec. 3.2, eq. 2-4;
    the mean over the batch follows the released code. A constant added to a class map changes nothing.

    Shape: logits (B, K, H, W) twice, target (B, H, W) → scalar. Void positions get no probability mass,
    where paper and released code keep them; an image without any other adds 0, and still counts in B.

    Example:
        >>> teacher = torch.tensor([[[[2.0, 0.0]], [[0.0, 1.0]]]])
        >>> target = torch.tensor([[[0, 1]]])
        >>> round(cwd_loss(torch.zeros_like(teacher), teacher, target, temperature=4.0).item(), 4)
        0.3073
        >>> cwd_loss(teacher + 3, teacher, target, temperature=4.0).item()
        0.0
    """
    void = (target == VOID).flatten(1).unsqueeze(1)

    def log_phi(logits: Tensor) -> Tensor:
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        # The lowest number rather than -inf: the softmax of an image that is all void stays finite.
        scores = (logits.flatten(2) / temperature).masked_fill(void, torch.finfo(logits.dtype).min)
        return scores.log_softmax(2).masked_fill(void, 0)

    s, t = log_phi(student), log_phi(teacher)
    divergence = (t.exp().masked_fill(void, 0) * (t - s)).sum(2)
    return temperature**2 * divergence.mean()


class Cwd(Distiller):
    """`weight · L`; see `cwd_loss`."""

    Config = CwdConfig
    config: CwdConfig
    teacher_logits = True

    def forward(self, student: Output, teacher: Output, target: Tensor, progress: float) -> dict[str, Tensor]:
        assert student.logits is not None
        assert teacher.logits is not None
        loss = cwd_loss(student.logits, teacher.logits, target, temperature=self.config.temperature)
        return {"cwd": self.config.weight * loss}
