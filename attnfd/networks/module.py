"""A network of your own, built by a function of this repository."""

import importlib
import sys
from pathlib import Path

from torch import nn

from attnfd.config.network import Attention, NetworkConfig
from attnfd.discovery import PROJECT
from attnfd.errors import UserError
from attnfd.models.tapped import Tapped, TappedArchitecture
from attnfd.networks.base import Kind

COPIES = f"{PROJECT}.own."
"""The package in a logged model that contains a copy of your files."""

FOLDER = "networks"
"""A folder of the repository. Stages in `dvc.yaml` depend on it, so an edit makes them stale."""


class Module(Kind):
    """`{network: module, build: networks.mine:build, taps: {backbone: body.last}}`

    The function takes the number of classes and returns an `nn.Module`. It is your code, and attnfd runs it.
    It also sets the initial weights.
    """

    Architecture = TappedArchitecture

    def make(self, config: NetworkConfig, classes: int, attention: Attention | None, weights: str) -> Tapped:
        return self.skeleton(
            TappedArchitecture(
                network="module", classes=classes, attention=attention, build=config.build, taps=config.taps
            )
        )

    def skeleton(self, architecture: TappedArchitecture) -> Tapped:
        return Tapped(_built(str(architecture.build), architecture.classes), architecture)


def _built(build: str, classes: int) -> nn.Module:
    # The card of a foreign model must not be able to call any function on this machine.
    if not build.startswith((f"{FOLDER}.", COPIES)):
        raise UserError(
            f"build: found {build!r}; allowed: a function in a file of {FOLDER}/, such as "
            f"{FOLDER}.mine:build, because the stages depend on that folder"
        )
    module, _, function = build.partition(":")
    if not (module and function.isidentifier()):
        raise UserError(f"build: found {build!r}; allowed: package.module:function")
    root = str(Path.cwd())
    if root not in sys.path:
        sys.path.insert(0, root)
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # the user's code can raise anything
        raise UserError(f"build: {module}: cannot be imported ({_said(error)}); fix the file") from None
    made = getattr(found, function, None)
    if not callable(made):
        raise UserError(f"build: {module}: has no function {function!r}; define it, or name another function")
    try:
        net = made(classes)
    except (Exception, SystemExit) as error:  # the user's code can raise anything
        raise UserError(f"build: {build}({classes}) raises {_said(error)}; fix the function") from None
    if not isinstance(net, nn.Module):
        raise UserError(f"build: {build}({classes}) returns {type(net).__name__}; allowed: an nn.Module")
    return net


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
