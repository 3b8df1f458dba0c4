"""KD: knowledge distillation of the logits, pixel by pixel (Hinton et al. 2015)."""

from pydantic import Field
from torch import Tensor

from attnfd.config.schema import Method
from attnfd.config.section import Temperature
from attnfd.distillers.base import Distiller
from attnfd.losses import kd_loss
from attnfd.models.taps import Output


class KD(Distiller):
    """Compares the student's class probabilities with the teacher's at each pixel."""

    title = "KD"

    class Config(Method):
        temperature: Temperature = Field(
            default=1, description="T, divides the logits of student and teacher"
        )

    config: Config
    unlabelled = True
    teacher_logits = True

    def forward(self, student: Output, teacher: Output, target: Tensor, progress: float) -> dict[str, Tensor]:
        assert student.logits is not None
        assert teacher.logits is not None
        loss = kd_loss(student.logits, teacher.logits, target, temperature=self.config.temperature)
        return {"kd": self.config.weight * loss}
