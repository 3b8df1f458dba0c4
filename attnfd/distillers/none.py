"""No distillation: a student trained with cross-entropy only; every method is compared with it."""

from pydantic import Field
from torch import Tensor

from attnfd.config.schema import Method
from attnfd.distillers.base import Distiller
from attnfd.models.taps import Output


class NoDistillation(Distiller):
    """Adds nothing to cross-entropy; the teacher does not run."""

    title = "no distillation"

    class Config(Method):
        weight: float = Field(default=0, ge=0, le=0, description="0: there is no distillation loss")

    def forward(self, student: Output, teacher: Output, target: Tensor, progress: float) -> dict[str, Tensor]:
        return {}
