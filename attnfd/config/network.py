"""What a network is made of, as `params.yaml` says it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from attnfd.config.section import Positive, Probability, Section, within

Kernel = Annotated[Positive, within(1, 63, "the maps under it have some tens of pixels a side")]
OutputStride = Annotated[
    Literal[8, 16],
    Field(description="how many times larger than the backbone's last map an image is"),
]
Backbone = Annotated[
    str,
    Field(description="a name out of attnfd.models.backbones, or timm: and a network of timm"),
]


class Attention(Section):
    """CBAM at the three taps (Woo et al. 2018, sec. 3)."""

    reduction: Positive = Field(default=16, description="the channel MLP is C → C / reduction → C")
    kernel_size: Kernel = Field(default=7, description="of the spatial convolution, odd")
    channel: bool = Field(default=True, description="with channel attention")
    spatial: bool = Field(default=True, description="with spatial attention")
    learned: bool = Field(default=True, description="gates with weights; without: sums of pooled values")

    @model_validator(mode="after")
    def _odd_kernel(self) -> "Attention":
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: found {self.kernel_size}; allowed: an odd number")
        return self


DEEPLAB = "deeplabv3plus"
"""The kind that is the default, and the paper's."""

NEEDED = {DEEPLAB: ("backbone",), "smp": ("architecture", "encoder"), "module": ("build",)}
"""Keys that a network of a kind cannot do without."""

OPTIONAL = {DEEPLAB: ("output_stride", "dropout"), "smp": ("taps",), "module": ("taps",)}


class NetworkConfig(Section):
    """A network: its kind, and what a network of that kind is made of."""

    network: str = Field(default=DEEPLAB, description="a file of attnfd/networks/")
    backbone: Backbone | None = None
    output_stride: OutputStride = 16
    dropout: tuple[Probability, Probability] = Field(
        default=(0.5, 0.1), description="before the last two convs of the head"
    )
    architecture: str | None = Field(default=None, description="of smp, such as Segformer")
    encoder: str | None = Field(default=None, description="of smp, such as mit_b0, or tu- and a name of timm")
    build: str | None = Field(
        default=None, description="of module: package.module:function, a function of this repository"
    )
    taps: dict[str, str] = Field(
        default={}, description="of smp and module: the dotted name of a module for each layer"
    )

    @property
    def made_of(self) -> str:
        """In a table: the backbone, or what another kind has in its place."""
        return " on ".join(str(getattr(self, key)) for key in NEEDED.get(self.network, ("network",)))

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for key in NEEDED.get(self.network, ()):
            if getattr(self, key) is None:
                raise ValueError(f"{key}: missing; give it a value")
        return self
