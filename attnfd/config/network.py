"""The keys of `params.yaml` that describe a network."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from attnfd.config.section import Positive, Probability, Section, within

Kernel = Annotated[Positive, within(1, 63, "the feature maps have some tens of pixels per side")]
OutputStride = Annotated[
    Literal[8, 16],
    Field(description="side of the image divided by the side of the backbone's last feature map"),
]
Backbone = Annotated[
    str,
    Field(description="a name in attnfd.models.backbones, or timm: and the name of a timm network"),
]


class Attention(Section):
    """CBAM at the three taps (Woo et al. 2018, sec. 3)."""

    reduction: Positive = Field(default=16, description="the channel MLP is C → C / reduction → C")
    kernel_size: Kernel = Field(default=7, description="kernel of the spatial convolution, an odd number")
    channel: bool = Field(default=True, description="with channel attention")
    spatial: bool = Field(default=True, description="with spatial attention")
    learned: bool = Field(
        default=True, description="true: gates have weights; false: gates are sums of pooled values"
    )

    @model_validator(mode="after")
    def _odd_kernel(self) -> "Attention":
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: found {self.kernel_size}; allowed: an odd number")
        return self


DEEPLAB = "deeplabv3plus"
"""The default kind, which the paper uses."""

NEEDED = {DEEPLAB: ("backbone",), "smp": ("architecture", "encoder"), "module": ("build",)}
"""The keys that each kind of network needs."""

OPTIONAL = {DEEPLAB: ("output_stride", "dropout"), "smp": ("taps",), "module": ("taps",)}


class NetworkConfig(Section):
    """A network: its kind, and the keys of that kind."""

    network: str = Field(default=DEEPLAB, description="name of a file in attnfd/networks/")
    backbone: Backbone | None = None
    output_stride: OutputStride = 16
    dropout: tuple[Probability, Probability] = Field(
        default=(0.5, 0.1), description="dropout before the last two convolutions of the head"
    )
    architecture: str | None = Field(default=None, description="smp only: such as Segformer")
    encoder: str | None = Field(
        default=None, description="smp only: such as mit_b0, or tu- and the name of a timm network"
    )
    build: str | None = Field(
        default=None, description="module only: package.module:function, a function of this repository"
    )
    taps: dict[str, str] = Field(
        default={}, description="smp and module only: the dotted name of a module for each layer"
    )

    @property
    def made_of(self) -> str:
        """The backbone, or the keys that another kind needs, as a table shows them."""
        return " on ".join(str(getattr(self, key)) for key in NEEDED.get(self.network, ("network",)))

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for key in NEEDED.get(self.network, ()):
            if getattr(self, key) is None:
                raise ValueError(f"{key}: missing; give it a value")
        return self
