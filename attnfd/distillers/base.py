"""The contract of a distillation method.

A method is one file of this package: a loss function of tensors, a `Config` with its options, and a
`Distiller` that uses both. `docs/add-a-distiller.md` lists the steps.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd import discovery
from attnfd.config.schema import Layer, Method
from attnfd.config.section import validate
from attnfd.models.taps import NetInfo, Output, Tap


class Described(Protocol):
    """A network whose `info` describes it to a distiller."""

    @property
    def info(self) -> NetInfo: ...


Net = NetInfo | Described
"""A network, or its description."""


def describe(network: Net, name: str) -> NetInfo:
    """The description of a network.

    Args:
        network: the network, or its description.
        name: `student` or `teacher`, for the message.

    Raises:
        TypeError: `network` is neither.
    """
    info = network if isinstance(network, NetInfo) else getattr(network, "info", None)
    if not isinstance(info, NetInfo):
        raise TypeError(
            f"{name}: found {_kind(network)}; pass a network with the attribute `info`, such as a "
            "DeepLabV3Plus, or NetInfo(channels={layer: C, …}, classes=K)"
        )
    return info


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


class Distiller(nn.Module, ABC):
    """The loss terms of a method, with the modules that are trained together with the student.

    Connectors, projectors and queues are submodules and buffers of the distiller. They are trained at the
    head's learning rate. A training checkpoint contains them, the student's model does not.

    Args:
        student: the student, or its channels and classes.
        teacher: the frozen teacher, or its channels, classes and margins.
        config: the method's section of `params.yaml`; None for the paper's values.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a network has no channels for a layer that the method reads.
    """

    title: ClassVar[str] = ""
    """The method's name in tables and figures; if empty, they show the name of its file."""

    Config: ClassVar[type[Method]] = Method

    student_taps: frozenset[Tap] = frozenset()
    """Feature maps of the student that `forward` reads; set in `__init__` if they depend on options."""

    teacher_taps: frozenset[Tap] = frozenset()
    """Feature maps of the teacher that `forward` reads."""

    teacher_logits: bool = False
    """Whether `forward` reads the teacher's logits. If it reads no taps and no logits, the teacher does not
    run."""

    needs_margins: ClassVar[bool] = False
    """Whether the teacher must have margins, as a frozen DeepLabV3+ does."""

    unlabelled: ClassVar[bool] = False
    """Whether `forward` also uses pixels without a label. If so, they are 254 in its target and count like
    any pixel that is not void. If not, they are void (255) in its target."""

    def __init__(self, student: Net, teacher: Net, config: Method | None = None) -> None:
        super().__init__()
        self.config = self.Config() if config is None else config
        if not isinstance(self.config, self.Config):
            wanted = f"{type(self).__name__}.Config(weight=…)"
            raise TypeError(f"config: found {_kind(config)}; pass {wanted}, or None for the paper's values")
        self.student, self.teacher = describe(student, "student"), describe(teacher, "teacher")
        for name, info in (("student", self.student), ("teacher", self.teacher)):
            for layer in getattr(self.config, "layers", ()):
                if layer not in info.channels:
                    raise ValueError(
                        f"{name}: NetInfo.channels has {', '.join(info.channels) or 'no layer'}; this method "
                        f"reads {layer!r}: add its channels, or choose other `layers`"
                    )

    def __call__(
        self, student: Output, teacher: Output, target: Tensor, progress: float
    ) -> dict[str, Tensor]:
        """Check the arguments, then call `forward`.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: taps or logits are missing, or do not fit the description of the network.
        """
        _check("student", student, self.student, self.student_taps, self.teacher_logits)
        _check("teacher", teacher, self.teacher, self.teacher_taps, self.teacher_logits)
        if not isinstance(target, Tensor) or target.dim() != 3:
            found = tuple(target.shape) if isinstance(target, Tensor) else _kind(target)
            raise TypeError(f"target: found {found}; pass a tensor of labels (B, H, W)")
        if not 0 <= progress <= 1:
            raise ValueError(
                f"progress: found {progress}; allowed: 0 to 1, the part of the training that is done"
            )
        terms: dict[str, Tensor] = super().__call__(student, teacher, target, progress)
        return terms

    @abstractmethod
    def forward(self, student: Output, teacher: Output, target: Tensor, progress: float) -> dict[str, Tensor]:
        """Return the weighted loss terms by name; training minimises cross-entropy plus their sum.

        Args:
            student: logits (B, K, H, W) and `student_taps`, with gradient.
            teacher: logits if `teacher_logits`, and `teacher_taps`, without gradient.
            target: labels (B, H, W); 255: void; with `unlabelled`, 254: no label.
            progress: part of the training that is done, 0 ≤ progress < 1.
        """

    def refine(self, taps: Mapping[Tap, Tensor]) -> dict[str, Tensor]:
        """The student's refined maps (B, C, H, W) by layer, for pictures; empty if there is no attention."""
        return {}

    def followed(self, taps: Mapping[Tap, Tensor]) -> dict[str, Tensor]:
        """The teacher's maps (B, C, H, W) by layer that the loss compares with `refine`, for pictures."""
        return {}


BASE = Distiller


def _check(name: str, output: Output, info: NetInfo, taps: frozenset[Tap], logits: bool) -> None:
    """Check that an output has what a distiller reads, with the described channels."""
    call = f"{name}(images, taps=distiller.{name}_taps)"
    if not isinstance(output, Output):
        raise TypeError(f"{name}: found {_kind(output)}; pass the Output of {call}")
    missing = sorted(tap for tap in taps if tap not in output.taps)
    if missing:
        raise ValueError(f"{name}: {', '.join(map(str, missing))} is missing; pass the Output of {call}")
    if logits and not isinstance(output.logits, Tensor):
        raise ValueError(f"{name}: found logits {output.logits}; pass the Output of {call}, with logits")
    for tap in taps:
        shape, channels = tuple(output.taps[tap].shape), info.channels.get(tap.layer)
        if len(shape) != 4 or (channels is not None and shape[1] != channels):
            raise ValueError(f"{name}: {tap} has the shape {shape}; its NetInfo says (B, {channels}, H, W)")


def distiller(name: str, student: Net, teacher: Net, **settings: Any) -> Distiller:
    """The distiller of a method by its name, with the paper's settings.

    Args:
        name: a file of `attnfd/distillers/`, such as `cwd`.
        student: the student, or its channels and classes.
        teacher: the teacher, or its channels and classes; `overhaul` needs the margins of a frozen teacher.
        settings: the settings that differ from the paper's.

    Raises:
        UserError: there is no such method, or one of its settings is unknown or out of range.
        TypeError, ValueError: as in `Distiller`.

    Example:
        >>> info = NetInfo(channels={"encoder": 8}, classes=3)
        >>> distiller("fitnet", info, info, weight=2).config.weight
        2.0
    """
    kind = discovery.component("distillers", name)
    made: Distiller = kind(student, teacher, validate(kind.Config, settings, name))
    return made


Layers = Annotated[
    tuple[Layer, ...], Field(min_length=1, description="backbone, encoder, decoder: any of them")
]


Point = Literal["pre_relu", "post_relu"]


class FeatureMethod(Method):
    """Options of a method that compares features."""

    layers: Layers = ("encoder",)
    point: Point | dict[Layer, Point] = Field(
        default="pre_relu",
        description="features before or after their ReLU; or {layer: point}, other layers have pre_relu",
    )

    @model_validator(mode="after")
    def _no_layer_twice(self) -> Self:
        if len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers: found {list(self.layers)}; allowed: each layer once")
        return self

    @property
    def taps(self) -> tuple[Tap, ...]:
        """The taps of `layers`, in that order: the rounding of a sum depends on the order."""
        return self.taps_at(self.point)

    def taps_at(self, point: Point | dict[Layer, Point]) -> tuple[Tap, ...]:
        """The taps of `layers` at this point instead of `self.point`."""
        points = point if isinstance(point, dict) else dict.fromkeys(self.layers, point)
        return tuple(Tap(layer, points.get(layer, "pre_relu")) for layer in self.layers)


class FeatureDistiller(Distiller):
    """A method that compares the features of each of `layers`, with connectors where channels must agree."""

    Config = FeatureMethod
    config: FeatureMethod

    connects: ClassVar[bool] = True
    """Whether the student's features must have the teacher's number of channels."""

    unlabelled = True  # Features are compared at all positions.

    def __init__(self, student: Net, teacher: Net, config: FeatureMethod | None = None) -> None:
        super().__init__(student, teacher, config)
        self.student_taps = self.teacher_taps = frozenset(self.config.taps)
        layers = self.config.layers if self.connects else ()
        self.connectors = connectors(layers, student=self.student, teacher=self.teacher)

    def pairs(self, student: Output, teacher: Output) -> Iterator[tuple[Tensor, Tensor]]:
        """For each layer, the student's map after its connector, at the teacher's size; and the teacher's."""
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
