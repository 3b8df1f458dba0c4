"""A Comprehensive Overhaul of Feature Distillation (Heo et al. 2019)."""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from attnfd.config.schema import Method, Weight
from attnfd.config.section import Divisor
from attnfd.distillers.base import Distiller, Net, connectors, match_size
from attnfd.errors import UserError
from attnfd.losses import full_precision, same_shape
from attnfd.models.taps import Output, Tap

OverhaulLayer = Literal["stage1", "stage2", "stage3", "backbone", "encoder", "decoder"]


@full_precision
def overhaul_loss(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    r"""Partial L2 distance to the teacher's margin ReLU at one layer, summed, per image.

    $$t' = \max(t, m), \quad
      L = \frac{1}{B} \sum \begin{cases} 0 & s ≤ t' ≤ 0 \\ (s - t')^2 & \text{otherwise} \end{cases}$$

    Heo et al., "A Comprehensive Overhaul of Feature Distillation", ICCV 2019, sec. 3: a value that the
    teacher's ReLU discards only has to be negative in the student. All positions count, void ones too.

    Args:
        student: features before their ReLU (B, C, H, W).
        teacher: features before their ReLU (B, C, H, W).
        margin: m = E[x | x < 0] per channel of the teacher (C,).

    Raises:
        ValueError: the shapes of student and teacher differ.

    Example:
        >>> student, teacher = torch.tensor([-9.0, 0.5, 1.0]), torch.tensor([-3.0, -3.0, 3.0])
        >>> shape = (1, 1, 1, 3)
        >>> overhaul_loss(student.view(shape), teacher.view(shape), torch.tensor([-1.0]))  # 0 + 1.5² + 2²
        tensor(6.2500)
    """
    same_shape(student, teacher)
    wanted = torch.maximum(teacher, margin.view(-1, 1, 1))
    free = (student <= wanted) & (wanted <= 0)
    return (student - wanted).square().masked_fill(free, 0).sum() / len(student)


class Overhaul(Distiller):
    """Compares maps before their ReLU with the teacher's margin ReLU, the student's after a connector."""

    title = "Overhaul"
    needs_margins = True

    class Config(Method):
        weight: Weight = 1e-5
        layers: tuple[OverhaulLayer, ...] = Field(
            default=("stage1", "stage2", "stage3", "backbone", "encoder", "decoder"),
            min_length=1,
            description="maps to compare",
        )
        divisors: dict[OverhaulLayer, Divisor] = Field(
            default={"stage1": 8, "stage2": 4, "stage3": 2, "backbone": 1, "encoder": 1, "decoder": 16},
            description="divisor of each layer's sum",
        )

        @model_validator(mode="after")
        def _divisor_per_layer(self) -> "Overhaul.Config":
            for layer in self.layers:
                if layer not in self.divisors:
                    raise ValueError(f"divisors.{layer}: missing; allowed: a divisor for each of layers")
            if len(set(self.layers)) < len(self.layers):
                raise ValueError(f"layers: found {list(self.layers)}; allowed: each layer once")
            return self

    config: Config
    unlabelled = True

    def __init__(self, student: Net, teacher: Net, config: Config | None = None) -> None:
        super().__init__(student, teacher, config)
        config = self.config
        self.student_taps = self.teacher_taps = frozenset(map(Tap, config.layers))
        self.connectors = connectors(config.layers, student=self.student, teacher=self.teacher)
        margins = self.teacher.margins or {}
        for layer in config.layers:
            if layer not in margins:
                raise UserError(
                    f"methods.overhaul.layers: the teacher has no margins for {layer!r}; "
                    f"allowed: {', '.join(margins) or 'nothing'}; freeze the teacher again"
                )
            # Not saved: the frozen teacher contains them.
            self.register_buffer(f"margin_{layer}", margins[layer].detach().clone(), persistent=False)

    def forward(self, student: Output, teacher: Output, target: Tensor, progress: float) -> dict[str, Tensor]:
        losses = []
        for layer in self.config.layers:
            taught = teacher.taps[Tap(layer)]
            features = match_size(self.connectors[layer](student.taps[Tap(layer)]), taught)
            loss = overhaul_loss(features, taught, self.get_buffer(f"margin_{layer}"))
            losses.append(loss / self.config.divisors[layer])
        return {"overhaul": self.config.weight * torch.stack(losses).sum()}
