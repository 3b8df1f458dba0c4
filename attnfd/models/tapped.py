"""Any segmentation network, with taps at its modules."""

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from attnfd.config.network import Attention
from attnfd.errors import UserError
from attnfd.models.cbam import CBAM
from attnfd.models.kernels import resize
from attnfd.models.network import Answering, Network, check_images, merge_classes
from attnfd.models.taps import NetInfo, Output, Tap

SIDE = 64
"""Side, in pixels, of the image on which a new network is tested."""


class TappedArchitecture(Answering):
    """The arguments of a `Tapped`, as a model's card contains them.

    `gain`: factor of each CBAM's output. `folded`: pairs of a convolution and the BN that is folded into it
    in the frozen network.
    """

    network: str
    attention: Attention | None
    taps: dict[str, str]
    architecture: str | None = None
    encoder: str | None = None
    build: str | None = None
    gain: Literal[1, 2, 4] = 1
    folded: tuple[tuple[str, str], ...] = ()


class Tapped(Network):
    """A network of another library, or your own, with logits and named taps.

    A tap is the output of a module; you give the dotted name of the module. `pre_relu` and `post_relu` are
    the same map, so name a BN or the activation after it. If the output is a tensor, or a list whose last
    entry is the map, learned attention replaces the map. If not, the gates have no weights and do not change
    the forward path.

    Args:
        net: images (B, 3, H, W) → logits (B, K, h, w): a tensor, the `out` of a dict, or the `logits` of an
            object. They are resized to the image.
        architecture: its description; `taps` has a dotted name for each layer.
        divisor: images are padded at the right and bottom until this divides their sides.

    Raises:
        UserError: a tap or the logits are not valid.
    """

    architecture: TappedArchitecture

    def __init__(self, net: nn.Module, architecture: TappedArchitecture, divisor: int = 1) -> None:
        super().__init__()
        self.net, self.architecture, self.divisor = net, architecture, divisor
        self.margins = None
        self.attention = nn.ModuleDict()
        for layer, name in architecture.taps.items():
            if name not in dict(net.named_modules()):
                names = ", ".join(child for child, _ in net.named_children())
                raise UserError(f"taps.{layer}: found no module {name!r}; allowed: names below {names}")
        for module in net.modules():
            if isinstance(getattr(module, "inplace", None), bool):
                module.inplace = False  # type: ignore[assignment]  # A tap must not be overwritten.
        self.channels = self._try()
        if architecture.attention is not None:
            for layer in architecture.taps:
                settings = architecture.attention.model_dump()
                settings["learned"] &= self.replaceable[layer]
                self.attention[layer] = CBAM(self.channels[layer], **settings)

    @property
    def info(self) -> NetInfo:
        margins = None if self.margins is None else dict(self.margins.named_buffers())
        return NetInfo(channels=self.channels, classes=self.architecture.answers, margins=margins)

    @property
    def pretrained(self) -> nn.Module:
        name = self.architecture.taps.get("backbone", "").split(".")[0]
        return self.net.get_submodule(name)

    def forward(self, images: Tensor, taps: Collection[Tap] = (), logits: bool = True) -> Output:
        """See `DeepLabV3Plus.forward`; but this always computes the whole network.

        Raises:
            TypeError: the images are not a float tensor of this shape.
            ValueError: this network has no such tap.
        """
        check_images(images)
        height, width = images.shape[-2:]
        below, right = -height % self.divisor, -width % self.divisor
        # A compiled or exported network must accept any size, so it does not check the size.
        any_size = torch.compiler.is_compiling()
        padded = F.pad(images, (0, right, 0, below)) if any_size or below or right else images
        kept: dict[Tap, Tensor] = {}
        with self._watched(taps, kept):
            scores = _logits(self.net(padded))
        if missing := set(taps) - kept.keys():
            raise self.no_taps(missing)
        if not logits:
            return Output(None, kept)
        if any_size or scores.shape[-2:] != padded.shape[-2:]:
            scores = resize(scores, padded.shape[-2:])
        return Output(merge_classes(scores[..., :height, :width], self.architecture.class_map), kept)

    @contextmanager
    def _watched(self, taps: Collection[Tap], kept: dict[Tap, Tensor]) -> Iterator[None]:
        """Store the maps of these taps in `kept`, and apply attention."""
        wanted, handles = set(taps), []

        def watch(layer: str) -> Any:
            def hook(module: nn.Module, args: Any, given: Any) -> Any:
                feature = _map(given)
                kept.update({tap: feature for tap in wanted if tap.layer == layer and tap.point != "refined"})
                if layer not in self.attention:
                    return None
                in_path, tap = self.attention[layer].learned, Tap(layer, "refined")
                if not (in_path or tap in wanted):
                    return None
                refined = self.attention[layer](feature)
                if in_path and self.architecture.gain != 1:
                    refined = refined * self.architecture.gain
                if tap in wanted:
                    kept[tap] = refined
                return _with_map(given, refined) if in_path else None

            return hook

        for layer, name in self.architecture.taps.items():
            if layer in self.attention or any(tap.layer == layer for tap in wanted):
                handles.append(self.net.get_submodule(name).register_forward_hook(watch(layer)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def _try(self) -> dict[str, int]:
        """Test the network once, in eval mode; return the channels of each tap."""
        given: dict[str, Any] = {}
        copies: dict[str, Tensor] = {}
        self.replaceable: dict[str, bool] = {}

        def watch(layer: str, name: str) -> Any:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                feature = _map(output)
                if not (isinstance(feature, Tensor) and feature.ndim == 4):
                    shape = list(feature.shape) if isinstance(feature, Tensor) else type(feature).__name__
                    raise UserError(
                        f"taps.{layer}: {name} returns {shape}; allowed: a module that returns a map "
                        "(B, C, H, W)"
                    )
                given[layer], copies[layer] = feature, feature.clone()
                self.replaceable[layer] = isinstance(output, Tensor | list | tuple)

            return hook

        taps = self.architecture.taps
        handles = [
            self.net.get_submodule(name).register_forward_hook(watch(layer, name))
            for layer, name in taps.items()
        ]
        modes = {module: module.training for module in self.net.modules()}
        try:
            output = self.net.eval()(_example(self.net))
        except UserError:
            raise
        except Exception as error:  # foreign code can raise anything
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"network: cannot segment an image of {SIDE} × {SIDE} pixels ({reason})"
            ) from None
        finally:
            for handle in handles:
                handle.remove()
            for module, training in modes.items():
                module.training = training
        scores, classes = _logits(output), self.architecture.classes
        if not (isinstance(scores, Tensor) and scores.ndim == 4):
            raise UserError(
                f"network: returns {type(scores).__name__}; allowed: logits (B, K, H, W) as a tensor, as "
                "`out` of a dict, or as `logits` of an object"
            )
        if scores.shape[1] != classes:
            raise UserError(
                f"network: returns logits of {scores.shape[1]} classes; allowed: {classes}, the number of "
                "classes that it was built for"
            )
        for layer, name in taps.items():
            if layer not in given:
                raise UserError(
                    f"taps.{layer}: {name} does not run in a forward pass; name a module that does"
                )
            if not torch.equal(given[layer], copies[layer]):
                raise UserError(
                    f"taps.{layer}: the output of {name} is overwritten later; name the module after it"
                )
        return {layer: int(given[layer].shape[1]) for layer in taps}


def _map(given: Any) -> Any:
    """The feature map in a module's output."""
    if isinstance(given, list | tuple):
        return given[-1]
    return getattr(given, "last_hidden_state", given)


def _with_map(given: Any, feature: Tensor) -> Any:
    return type(given)([*given[:-1], feature]) if isinstance(given, list | tuple) else feature


def _logits(output: Any) -> Any:
    if isinstance(output, Mapping) and "out" in output:
        return output["out"]
    return getattr(output, "logits", output)


def freeze_tapped(model: Tapped) -> Tapped:
    """Copy a network without gradients and dropout, and fold every BN that alone reads a convolution.

    The folded pairs are in the copy's `architecture.folded`.
    """
    frozen = copy.deepcopy(model).eval()
    pairs = model.architecture.folded or tuple(_pairs(frozen))
    frozen.architecture = model.architecture.model_copy(update={"folded": pairs})
    for conv, bn in pairs:
        before, found = frozen.net.get_submodule(conv), frozen.net.get_submodule(bn)
        assert isinstance(before, nn.Conv2d)
        assert isinstance(found, nn.BatchNorm2d)
        fused = fuse_conv_bn_eval(before, found)
        frozen.net.set_submodule(conv, fused)
        # A BN of timm has an activation of its own.
        frozen.net.set_submodule(bn, getattr(found, "act", nn.Identity()))
    for cbam in frozen.attention.values():
        assert isinstance(cbam, CBAM)
        if cbam.spatial is not None and cbam.spatial.learned:
            cbam.spatial.conv = fuse_conv_bn_eval(cbam.spatial.conv, cbam.spatial.bn)
            cbam.spatial.set_submodule("bn", nn.Identity())
    for name, module in list(frozen.net.named_modules()):
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            frozen.net.set_submodule(name, nn.Identity())
    frozen.margins = nn.Module()
    return frozen.requires_grad_(False)


@torch.no_grad()
def _pairs(model: Tapped) -> list[tuple[str, str]]:
    """Find the convolutions whose output only a BN reads, each with that BN, in a forward pass."""
    made: dict[int, str] = {}
    alive: list[Any] = []  # A freed tensor's id() could be used again for a later tensor.
    readers: dict[int, list[str]] = {}
    runs: dict[str, int] = {}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            runs[name] = runs.get(name, 0) + 1
            alive.extend((args, output))
            for read in args:
                readers.setdefault(id(read), []).append(name)
            if type(module).forward is nn.Conv2d.forward or type(module) is nn.Conv2d:
                made[id(output)] = name

        return hook

    leaves = {name: module for name, module in model.net.named_modules() if not _inner(module)}
    handles = [module.register_forward_hook(watch(name)) for name, module in leaves.items()]
    try:
        model.net(_example(model.net))
    finally:
        for handle in handles:
            handle.remove()
    tapped = {*model.architecture.taps.values()}
    found = []
    for key, conv in made.items():
        read = readers.get(key, [])
        if len(read) == 1 and runs[conv] == 1 == runs[read[0]] and conv not in tapped:
            bn = leaves[read[0]]
            if isinstance(bn, nn.BatchNorm2d) and bn.track_running_stats and bn.affine:
                found.append((conv, read[0]))
    return found


def _example(net: nn.Module) -> Tensor:
    """The test image of a network, on its device; the same every time."""
    images = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    first = next(net.parameters(), images)
    return images.to(first.device)


def _inner(module: nn.Module) -> bool:
    """Whether a module contains other modules; the activation in a timm BN does not count."""
    return not isinstance(module, nn.BatchNorm2d) and any(True for _ in module.children())
