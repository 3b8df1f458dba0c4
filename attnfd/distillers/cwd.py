"""CWD: channel-wise distillation of the logits (Shu et al. 2021)."""

import torch
from pydantic import Field
from torch import Tensor

from attnfd.config.schema import Method, Weight
from attnfd.config.section import Temperature
from attnfd.data.labels import VOID
from attnfd.distillers.base import Distiller
from attnfd.losses import full_precision, same_shape
from attnfd.models.taps import Output


@full_precision
def cwd_loss(student: Tensor, teacher: Tensor, target: Tensor, *, temperature: float) -> Tensor:
    r"""Divergence between the spatial distributions of each class.

    With φ = softmax(logits / T) over the positions i of one class map,

    $$L = \frac{T^2}{B K} \sum_{b,k} \sum_i φ^t_{bki} \log \frac{φ^t_{bki}}{φ^s_{bki}}$$

    Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021, sec. 3; the mean over
    the batch follows the released code. A constant added to a class map changes nothing.

    Args:
        student: logits (B, K, H, W).
        teacher: logits (B, K, H, W).
        target: labels (B, H, W); void positions (255) get probability 0 (the released code keeps them). An
            image with only void adds 0 and is counted in B.
        temperature: T > 0.

    Raises:
        ValueError: the shapes of student and teacher differ.

    Example:
        >>> student, teacher = torch.zeros(1, 1, 1, 2), torch.tensor([3.0, 1.0]).log().view(1, 1, 1, 2)
        >>> loss = cwd_loss(student, teacher, torch.zeros(1, 1, 2), temperature=1)
        >>> f"{loss:.4f}"  # ¾ log(¾ / ½) + ¼ log(¼ / ½)
        '0.1308'
    """
    same_shape(student, teacher)
    void = (target == VOID).flatten(1).unsqueeze(1)

    def log_phi(logits: Tensor) -> Tensor:
        # The lowest number instead of -inf: the softmax stays finite if an image has only void.
        scores = (logits.flatten(2) / temperature).masked_fill(void, torch.finfo(logits.dtype).min)
        return scores.log_softmax(dim=2).masked_fill(void, 0)

    s, t = log_phi(student), log_phi(teacher)
    # At void positions s and t are 0, and so is their difference.
    return temperature**2 * (t.exp() * (t - s)).sum(dim=2).mean()


class CWD(Distiller):
    """The student learns the spatial distribution of each class from the teacher."""

    title = "CWD"

    class Config(Method):
        weight: Weight = 3
        temperature: Temperature = Field(
            default=4, description="T, divides the logits of student and teacher"
        )

    config: Config
    unlabelled = True
    teacher_logits = True

    def forward(self, student: Output, teacher: Output, target: Tensor, progress: float) -> dict[str, Tensor]:
        assert student.logits is not None
        assert teacher.logits is not None
        loss = cwd_loss(student.logits, teacher.logits, target, temperature=self.config.temperature)
        return {"cwd": self.config.weight * loss}
