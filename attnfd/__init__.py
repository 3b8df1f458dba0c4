"""Attention-guided Feature Distillation for semantic segmentation.

The names of the library for a training loop of your own; each is imported when you use it:

    from attnfd import AttnFD, DeepLabV3Plus
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnfd.config.schema import Attention as Attention
    from attnfd.distillers.attnfd import AttnFD as AttnFD
    from attnfd.distillers.base import Distiller as Distiller
    from attnfd.distillers.base import distiller as distiller
    from attnfd.models.cbam import CBAM as CBAM
    from attnfd.models.deeplab import DeepLabV3Plus as DeepLabV3Plus
    from attnfd.models.frozen import freeze as freeze
    from attnfd.models.taps import NetInfo as NetInfo
    from attnfd.models.taps import Output as Output
    from attnfd.models.taps import Tap as Tap

_MODULES = {
    "Attention": "attnfd.config.schema",
    "AttnFD": "attnfd.distillers.attnfd",
    "CBAM": "attnfd.models.cbam",
    "DeepLabV3Plus": "attnfd.models.deeplab",
    "Distiller": "attnfd.distillers.base",
    "NetInfo": "attnfd.models.taps",
    "Output": "attnfd.models.taps",
    "Tap": "attnfd.models.taps",
    "distiller": "attnfd.distillers.base",
    "freeze": "attnfd.models.frozen",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
