"""The compared ways to compute a training step."""

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

    `released`: as in the authors' code, the teacher is in train mode, and none of our kernels is used.
    """

    released: bool
    frozen: bool
    channels_last: bool
    precision: str
    compiled: bool = False

    @property
    def layout(self) -> torch.memory_format:
        """Memory format of images, features and weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


OURS = Variant(False, True, True, "32-true")
VARIANTS = {
    # By default PyTorch lets convolutions use TF32, and the released code does not change this.
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
"""Only for a GPU: a CPU has no TF32, and compiling is not worth it there (docs/performance.md)."""

SHORTCUTS: Mapping[type[nn.Module], Callable[..., Tensor]] = {
    AtrousConv: nn.Conv2d.forward,
    Dropout: nn.Dropout.forward,
    JoiningConv: JoiningConv.in_turn,
}
"""Modules of `attnfd.models.kernels` that compute the same result faster, and the plain way for each."""


class Released(Objective):
    """The released code's step: a teacher in train mode, whose graph is kept and back-propagated through."""

    def teach(self, images: Tensor) -> Output:
        assert self.distiller is not None
        teacher = self._teacher[0]
        assert teacher is not None
        return teacher(images, taps=self.distiller.teacher_taps)


def leave_out(shortcuts: Sequence[type[nn.Module]], network: nn.Module) -> None:
    """Let modules of these kinds compute the plain way."""
    for module in network.modules():
        if type(module) in shortcuts:
            module.forward = MethodType(SHORTCUTS[type(module)], module)
