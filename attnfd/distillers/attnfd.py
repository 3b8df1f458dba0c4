"""Attention-guided feature distillation: the student's refined features follow the teacher's."""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd.config.network import Attention
from attnfd.config.schema import LAYERS, Layer
from attnfd.config.section import NonNegative
from attnfd.distillers.base import Connector, Distiller, FeatureMethod, Layers, Net, Point, match_size
from attnfd.losses import full_precision, kd_loss, same_shape, unit_distance
from attnfd.models.cbam import CBAM
from attnfd.models.deeplab import initialise
from attnfd.models.taps import Output, Tap

Normalize = Literal["channel", "sample", "batch", "none"]


@full_precision
def attnfd_loss(student: Tensor, teacher: Tensor, *, normalize: Normalize) -> Tensor:
    r"""Squared distance of normalised refined features, at one layer.

    Mansourian et al., "Attention-guided Feature Distillation for Semantic Segmentation", arXiv 2403.05451,
    2024, sec. 3; also "Attention as Geometric Transformation: Revisiting Feature Distillation for Semantic
    Segmentation", WACV 2026, workshop LENS. `x̂ = x / ‖x‖`; `normalize` chooses the dimensions of the norm:

    | normalize | norm over | loss |
    |---|---|---|
    | channel | the C channels of a position (the paper's text) | mean over B·H·W of `‖ŝ − t̂‖²` |
    | sample | the C·H·W values of an image | mean over B of `‖ŝ − t̂‖²` |
    | batch | all B·C·H·W values (the released code) | `‖ŝ − t̂‖² / B` |
    | none | | mean over B·C·H·W of `(s − t)²` |

    A factor per position, such as a spatial gate, does not change the loss of `channel` and gets no gradient
    from it. All positions count, void ones too. A vector of zeros stays zero, `x̂ = 0`.

    Args:
        student: refined features (B, C, H, W).
        teacher: refined features (B, C, H, W).
        normalize: see the table.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> student, teacher = torch.tensor([3.0, 4.0]), torch.tensor([1.0, 0.0])
        >>> attnfd_loss(student.view(1, 2, 1, 1), teacher.view(1, 2, 1, 1), normalize="channel")
        tensor(0.8000)
    """
    same_shape(student, teacher)
    if normalize == "none":
        return F.mse_loss(student, teacher)
    if normalize == "batch":
        return unit_distance(student, teacher, dim=(0, 1, 2, 3)) / len(student)
    return unit_distance(student, teacher, dim=1 if normalize == "channel" else (1, 2, 3)).mean()


class AttnFD(Distiller):
    """Compares the features of student and teacher after CBAM has refined them, at each of `layers`.

    The teacher's CBAMs are in its forward path (its `refined` taps). If `teacher_attention` is
    `parameter_free`, gates without weights refine its raw features in the distiller. The student's CBAMs are
    trained in the distiller, each with a connector to the teacher's channels, and are discarded after
    training.
    """

    title = "AttnFD"

    class Config(FeatureMethod):
        layers: Layers = LAYERS
        normalize: Normalize = Field(
            default="channel", description="norm over the channels, the sample or the batch; or none"
        )
        connector: Literal["before_attention", "after_attention"] = Field(
            default="before_attention",
            description="before: CBAM(connector(A)), paper fig. 2; after: connector(CBAM(A)), released code",
        )
        attention: Attention = Field(
            default=Attention(),
            description="the student's gates; with channel and spatial both false there are none",
        )
        teacher_attention: Literal["trained", "parameter_free"] = Field(
            default="trained",
            description="what refines the teacher's features: its own CBAM, or gates without weights; "
            "attention then chooses the channel and spatial gates of both networks",
        )
        teacher_point: Point | dict[Layer, Point] = Field(
            default="pre_relu",
            description="like point, for the teacher's features that gates without weights refine; the "
            "teacher's own CBAM is before the ReLU",
        )
        kd_weight: NonNegative = Field(
            default=0, description="factor of an added KD term at temperature 1; 0: no such term"
        )
        decay: float = Field(
            default=0, ge=0, le=1, description="last part of the training, over which weight falls to 0"
        )

    config: Config
    unlabelled = True

    def __init__(self, student: Net, teacher: Net, config: Config | None = None) -> None:
        super().__init__(student, teacher, config)
        config = self.config
        self.student_taps = frozenset(config.taps)
        trained = config.teacher_attention == "trained"
        self.teacher_tap: dict[str, Tap] = {
            tap.layer: Tap(tap.layer, "refined") if trained else tap
            for tap in config.taps_at(config.teacher_point)
        }
        self.teacher_taps = frozenset(self.teacher_tap.values())
        self.teacher_logits = config.kd_weight > 0
        self.refiners = nn.ModuleDict(
            {
                layer: _refiner(self.student.channels[layer], self.teacher.channels[layer], config)
                for layer in config.layers
            }
        )
        initialise(self.refiners)
        gates = config.attention.model_dump() | {"learned": False}
        self.teacher_refiners = nn.ModuleDict(
            {
                layer: nn.Identity() if trained else CBAM(self.teacher.channels[layer], **gates)
                for layer in config.layers
            }
        )

    def forward(self, student: Output, teacher: Output, target: Tensor, progress: float) -> dict[str, Tensor]:
        followed = self.followed(teacher.taps)
        losses = [
            attnfd_loss(
                match_size(refined, followed[layer]), followed[layer], normalize=self.config.normalize
            )
            for layer, refined in self.refine(student.taps).items()
        ]
        terms = {"attnfd": self.weight(progress) * torch.stack(losses).sum()}
        if self.config.kd_weight:
            assert student.logits is not None
            assert teacher.logits is not None
            loss = kd_loss(student.logits, teacher.logits, target, temperature=1)
            terms["kd"] = self.config.kd_weight * loss
        return terms

    def weight(self, progress: float) -> float:
        """α: `config.weight`; it falls linearly to 0 over the last part `config.decay` of the training."""
        if not self.config.decay:
            return self.config.weight
        return self.config.weight * min(1, (1 - progress) / self.config.decay)

    def refine(self, taps: Mapping[Tap, Tensor]) -> dict[str, Tensor]:
        return {tap.layer: self.refiners[tap.layer](taps[tap]) for tap in self.config.taps}

    def followed(self, taps: Mapping[Tap, Tensor]) -> dict[str, Tensor]:
        return {layer: self.teacher_refiners[layer](taps[tap]) for layer, tap in self.teacher_tap.items()}


def _refiner(in_channels: int, out_channels: int, config: AttnFD.Config) -> nn.Sequential:
    first = config.connector == "before_attention"
    connector = Connector(in_channels, out_channels)
    attention = CBAM(out_channels if first else in_channels, **config.attention.model_dump())
    return nn.Sequential(connector, attention) if first else nn.Sequential(attention, connector)
