"""Networks of segmentation_models_pytorch: any of its architectures with any of its encoders."""

import warnings
from pathlib import Path
from typing import Any

from torch import nn

from attnfd.config.network import Attention, NetworkConfig
from attnfd.discovery import one_of
from attnfd.errors import UserError
from attnfd.models import from_timm, weight_file
from attnfd.models.tapped import Tapped, TappedArchitecture
from attnfd.networks.base import Kind

INSTALL = "segmentation_models_pytorch: not installed; run `pip install 'attnfd[zoo]'`"
DIVISOR = 32
ENCODER = {
    "DeepLabV3Plus": "decoder.aspp",
    "FPN": "decoder.p5",
    "Segformer": "decoder.mlp_stage.0",
    "UPerNet": "decoder.psp",
}
"""The layer `encoder` of an architecture: the module that maps the deepest map to the decoder's width."""


class Smp(Kind):
    """`{network: smp, architecture: Segformer, encoder: mit_b0}`

    The layer `backbone` is the encoder's last map, `decoder` is the decoder's output. `taps` can name other
    modules.
    """

    Architecture = TappedArchitecture

    def make(self, config: NetworkConfig, classes: int, attention: Attention | None, weights: str) -> Tapped:
        name = str(config.architecture)
        taps = {"backbone": "encoder", "encoder": ENCODER.get(name), "decoder": "decoder", **config.taps}
        return self._build(
            TappedArchitecture(
                network="smp",
                classes=classes,
                attention=attention,
                architecture=name,
                encoder=config.encoder,
                taps={layer: module for layer, module in taps.items() if module},
            ),
            weights,
        )

    def skeleton(self, architecture: TappedArchitecture) -> Tapped:
        return self._build(architecture, "none")

    def packages(self, architecture: TappedArchitecture) -> tuple[str, ...]:
        return "segmentation_models_pytorch", "timm"

    def _build(self, architecture: TappedArchitecture, weights: str) -> Tapped:
        smp = _library()
        name, encoder = str(architecture.architecture), str(architecture.encoder)
        known = {made.__name__: made for made in smp.MODEL_ARCHITECTURES_MAPPING.values()}
        one_of(name, tuple(sorted(known)), "architecture")
        if encoder.startswith("tu-"):
            from_timm.check_name(from_timm.PREFIX + encoder.removeprefix("tu-"), "encoder: tu-")
        else:
            one_of(encoder, tuple(smp.encoders.get_encoder_names()), "encoder")
        try:
            with warnings.catch_warnings(action="ignore"):
                net = known[name](
                    encoder_name=encoder,
                    encoder_weights="imagenet" if weights == "imagenet" else None,
                    classes=architecture.classes,
                )
        except Exception as error:  # the library checks little; the hub's client raises many kinds of errors
            reason = " ".join(str(error).split()) or type(error).__name__
            what = (
                f"weights: imagenet weights of {encoder}" if weights == "imagenet" else f"{name} on {encoder}"
            )
            raise UserError(
                f"{what}: cannot be loaded ({reason}); give a file, set `weights: none`, or choose another "
                "encoder"
            ) from None
        if weights not in ("none", "imagenet"):
            _fill(net.encoder, weights.replace("{backbone}", encoder), encoder)
        return Tapped(net, architecture, DIVISOR)


def _library() -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):
            import segmentation_models_pytorch as smp
    except ImportError:
        raise UserError(INSTALL) from None
    return smp


def _fill(encoder: nn.Module, file: str, name: str) -> None:
    """Load an encoder's weights from a file: a state dict of the encoder, or of a whole network."""
    if not Path(file).is_file():
        raise UserError(f"weights: {file}: no such file; allowed: imagenet, none, or a weights file")
    found = weight_file.read(Path(file))
    if any(key.startswith("encoder.") for key in found):
        found = {
            key.removeprefix("encoder."): value for key, value in found.items() if key.startswith("encoder.")
        }
    weight_file.check(found, encoder.state_dict(), file, f"the encoder {name}")
    encoder.load_state_dict(found, strict=False)
