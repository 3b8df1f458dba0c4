"""Attention-guided Feature Distillation for semantic segmentation.

The names that you use in your own Python code. Each is imported at its first use:

    import attnfd

    attnfd.load("shapes/resnet18/attnfd/0").predict("photo.jpg")
    attnfd.results("shapes")
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

    from attnfd.config.network import Attention as Attention
    from attnfd.deploy.source import Model
    from attnfd.distillers.attnfd import AttnFD as AttnFD
    from attnfd.distillers.base import Distiller as Distiller
    from attnfd.distillers.base import distiller as distiller
    from attnfd.models.cbam import CBAM as CBAM
    from attnfd.models.deeplab import DeepLabV3Plus as DeepLabV3Plus
    from attnfd.models.frozen import freeze as freeze
    from attnfd.models.taps import NetInfo as NetInfo
    from attnfd.models.taps import Output as Output
    from attnfd.models.taps import Tap as Tap

__version__ = "0.1.0"

_MODULES = {
    "Attention": "attnfd.config.network",
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

__all__ = [*_MODULES, "load", "results"]


def load(name: str | Path) -> "Model":
    """Load a trained model for predictions: `attnfd.load("shapes/resnet18/attnfd/0").predict("photo.jpg")`.

    Args:
        name: see `attnfd.deploy.source.open_model`.

    Raises:
        TypeError, UserError: as in `open_model`.
    """
    from attnfd.deploy.source import open_model

    return open_model(name)


class _Results(ModuleType):
    """The package `attnfd.results`, which you can also call as a function."""

    def __call__(self, dataset: str) -> "DataFrame":
        """See `attnfd.analysis.frame.results`."""
        from attnfd.analysis.frame import results

        return results(dataset)


import_module("attnfd.results").__class__ = _Results


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
