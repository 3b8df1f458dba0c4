"""Knowledge distillation of the logits, pixel by pixel (Hinton et al. 2015)."""

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from attnfd.config import Method
from attnfd.datasets.base import VOID
from attnfd.distillers.base import Distiller, full_precision, same_shape
from attnfd.models.taps import Output


@full_precision
def kd_loss(student: Tensor, teacher: Tensor, target: Tensor, *, temperature: float) -> Tensor:
    r"""Mean over pixels of `T²·KL(softmax(t/T) ‖ softmax(s/T))`.

    Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, sec. 2; T² keeps the size of
    the gradient (sec. 2.1).

    Args:
        student: logits (B, K, H, W).
        teacher: logits (B, K, H, W).
        target: labels (B, H, W); void pixels (255) count nowhere, a batch of void alone gives 0.
        temperature: T > 0.

    Raises:
        ValueError: the shapes of student and teacher differ.

    Example:
        >>> import torch
        >>> student, teacher = torch.zeros(1, 2, 1, 1), torch.tensor([3.0, 1.0]).log().view(1, 2, 1, 1)
        >>> loss = kd_loss(student, teacher, torch.tensor([[[0]]]), temperature=1)
        >>> f"{loss:.4f}"  # ¾ log(¾ / ½) + ¼ log(¼ / ½)
        '0.1308'
    """
    same_shape(student, teacher)
    log_student, log_teacher = ((x / temperature).log_softmax(dim=1) for x in (student, teacher))
    divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=1)
    valid = target != VOID
    return temperature**2 * divergence.where(valid, 0).sum() / valid.sum().clamp_min(1)


class KD(Distiller):
    """Logits follow the teacher's."""

    class Config(Method):
        temperature: float = Field(gt=0, description="T, divides the logits of both")

    config: Config
    teacher_logits = True

    def forward(self, student: Output, teacher: Output, target: Tensor, progress: float) -> dict[str, Tensor]:
        assert student.logits is not None
        assert teacher.logits is not None
        loss = kd_loss(student.logits, teacher.logits, target, temperature=self.config.temperature)
        return {"kd": self.config.weight * loss}
