"""The ways to compute a training step that are compared."""

from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attnfd.models.kernels import AtrousConv, Dropout, JoiningConv
from attnfd.models.taps import Output
from attnfd.training.objective import Objective

CLASSES = 21


class Variant(NamedTuple):
    """A way to compute the step.

    `released`: the teacher trains along, as in the authors' code, and no kernel of ours is used.
    """

    released: bool
    frozen: bool
    channels_last: bool
    precision: str
    compiled: bool = False

    @property
    def layout(self) -> torch.memory_format:
        """Of images, features and weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


OURS = Variant(False, True, True, "32-true")
VARIANTS = {
    # PyTorch lets convolutions use TF32 unless told not to, and the released code does not tell.
    "released code's": Variant(True, False, False, "tf32"),
    "teacher without gradient": Variant(False, False, False, "32-true"),
    "teacher frozen, BN folded": Variant(False, True, False, "32-true"),
    "channels last: 32-true": OURS,
    "bf16-mixed": OURS._replace(precision="bf16-mixed"),
}
GPU_VARIANTS = {
    "tf32": OURS._replace(precision="tf32"),
    "bf16-mixed, compiled": OURS._replace(precision="bf16-mixed", compiled=True),
}
"""A CPU has no TF32, and compiling does not pay there (docs/performance.md)."""

SHORTCUTS: Mapping[type[nn.Module], Callable[..., Tensor]] = {
    AtrousConv: nn.Conv2d.forward,
    Dropout: nn.Dropout.forward,
    JoiningConv: JoiningConv.in_turn,
}
"""Modules of `attnfd.models.kernels` that compute the same in a shorter way, and the long way."""


class Released(Objective):
    """The released code's step: a teacher in train mode, whose graph is kept and back-propagated through."""

    def teach(self, images: Tensor) -> Output:
        assert self.distiller is not None
        teacher = self._teacher[0]
        assert teacher is not None
        return teacher(images, taps=self.distiller.teacher_taps)


def leave_out(shortcuts: Sequence[type[nn.Module]], network: nn.Module) -> None:
    """Compute the long way."""
    for module in network.modules():
        if type(module) in shortcuts:
            module.forward = MethodType(SHORTCUTS[type(module)], module)
