"""The contract of a distillation method.

A method is one file of this package: a pure loss function of tensors, a `Config` with its options, and a
`Distiller` around both. `docs/add-a-distiller.md` has the steps.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd import discovery
from attnfd.config.schema import Layer, Method
from attnfd.config.section import Section, validate
from attnfd.models.taps import NetInfo, Output, Tap


class Distiller(nn.Module, ABC):
    """What is trained beside the student, and the loss that it adds to cross-entropy.

    Connectors, projectors and queues are submodules and buffers of the distiller: they train with the
    head's learning rate, are saved with a training checkpoint, and never with the student.

    Args:
        student: channels and classes of the student.
        teacher: the same of the frozen teacher, and its margins.
        config: the method's section of `params.yaml`; None for the paper's values.
    """

    Config: ClassVar[type[Method]] = Method

    student_taps: frozenset[Tap] = frozenset()
    """Feature maps of the student that `forward` reads; set in `__init__` if options decide."""

    teacher_taps: frozenset[Tap] = frozenset()
    """Feature maps of the teacher that `forward` reads."""

    teacher_logits: bool = False
    """Whether `forward` reads the teacher's logits. Without taps and logits the teacher does not run."""

    unlabelled: ClassVar[bool] = False
    """Whether `forward` teaches on pixels without a label, which are 254 in its target: as on any that is not
    void. If not, it sees void in their place."""

    def __init__(self, student: NetInfo, teacher: NetInfo, config: Method | None = None) -> None:
        super().__init__()
        self.config = self.Config() if config is None else config

    @abstractmethod
    def forward(self, student: Output, teacher: Output, target: Tensor, progress: float) -> dict[str, Tensor]:
        """Weighted terms of the loss by name; training minimises cross-entropy plus their sum.

        Args:
            student: logits (B, K, H, W) and `student_taps`, with gradient.
            teacher: logits if `teacher_logits`, and `teacher_taps`, without gradient.
            target: labels (B, H, W), 255 = void; 254 = without a label, if `unlabelled`.
            progress: part of the training that is done, 0 ≤ progress < 1.
        """

    def refine(self, taps: Mapping[Tap, Tensor]) -> dict[str, Tensor]:
        """The student's refined maps (B, C, H, W) by layer, for pictures; empty without attention."""
        return {}

    def followed(self, taps: Mapping[Tap, Tensor]) -> dict[str, Tensor]:
        """The teacher's maps (B, C, H, W) that those of `refine` follow, by layer, for pictures."""
        return {}


BASE = Distiller


def distiller(name: str, student: NetInfo, teacher: NetInfo, **settings: Any) -> Distiller:
    """The distiller of a method by its name, with the paper's settings.

    Args:
        name: a file of `attnfd/distillers/`, such as `cwd`.
        student: channels and classes of the student.
        teacher: the same of the teacher; `overhaul` needs the margins of a frozen one.
        settings: that differ from the paper's.

    Raises:
        UserError: there is no such method, or a setting of it is unknown or out of range.

    Example:
        >>> info = NetInfo(channels={"encoder": 8}, classes=3)
        >>> distiller("fitnet", info, info, weight=2).config.weight
        2.0
    """
    kind = discovery.component("distillers", name)
    plain = {
        key: value.model_dump() if isinstance(value, Section) else value for key, value in settings.items()
    }
    made: Distiller = kind(student, teacher, validate(kind.Config, plain, name))
    return made


Layers = Annotated[
    tuple[Layer, ...], Field(min_length=1, description="backbone, encoder, decoder: any of them")
]


class FeatureMethod(Method):
    """Options of a method that compares features."""

    layers: Layers = ("encoder",)
    point: Literal["pre_relu", "post_relu"] = Field(
        default="pre_relu", description="features before or after their ReLU"
    )

    @model_validator(mode="after")
    def _no_layer_twice(self) -> Self:
        if len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers: found {list(self.layers)}; allowed: each layer once")
        return self

    @property
    def taps(self) -> tuple[Tap, ...]:
        """The feature maps at `layers`, in that order (sums over a set would depend on its order)."""
        return tuple(Tap(layer, self.point) for layer in self.layers)


class FeatureDistiller(Distiller):
    """A method that compares `layers` one by one, through connectors where channels must agree."""

    Config = FeatureMethod
    config: FeatureMethod

    connects: ClassVar[bool] = True
    """Whether the loss needs the teacher's number of channels."""

    unlabelled = True  # Features are compared wherever they are.

    def __init__(self, student: NetInfo, teacher: NetInfo, config: FeatureMethod | None = None) -> None:
        super().__init__(student, teacher, config)
        self.student_taps = self.teacher_taps = frozenset(self.config.taps)
        layers = self.config.layers if self.connects else ()
        self.connectors = connectors(layers, student=student, teacher=teacher)

    def pairs(self, student: Output, teacher: Output) -> Iterator[tuple[Tensor, Tensor]]:
        """The student's map at the teacher's size, connected, and the teacher's, a pair per layer."""
        for tap in self.config.taps:
            own, taught = student.taps[tap], teacher.taps[tap]
            connected = self.connectors[tap.layer](own) if self.connects else own
            yield match_size(connected, taught), taught


class Connector(nn.Module):
    """1×1 convolution and BN: (B, in_channels, H, W) → (B, out_channels, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        nn.init.kaiming_normal_(self.conv.weight)

    def forward(self, features: Tensor) -> Tensor:
        return self.bn(self.conv(features))


def connectors(layers: Iterable[str], *, student: NetInfo, teacher: NetInfo) -> nn.ModuleDict:
    """A connector per layer, from the student's channels to the teacher's."""
    return nn.ModuleDict(
        {layer: Connector(student.channels[layer], teacher.channels[layer]) for layer in layers}
    )


def match_size(student: Tensor, teacher: Tensor) -> Tensor:
    """Resize (B, C, H, W) to the teacher's H×W, bilinear with `align_corners=True`."""
    size = teacher.shape[-2:]
    if student.shape[-2:] == size:
        return student
    return F.interpolate(student, size=size, mode="bilinear", align_corners=True)
