"""Faster ways to compute what torch's own modules compute, and how much time each saves.

Each docstring says how many times as long a distillation step takes without it. The numbers are the range
over both students, 96×96 and 257×257 pixels, float32 and bfloat16, on two CPU cores. `attnfd benchmark
training kernels` measures them again. A kernel that saves less than 3 % of a step is removed.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Arithmetic(Protocol):
    """A device, and the type of its multiplications; a `Fabric` fits."""

    @property
    def device(self) -> torch.device: ...

    def autocast(self) -> AbstractContextManager[Any]: ...


def cast_weights(network: nn.Module, fabric: Arithmetic) -> None:
    """Cast the weights of a network that is not trained to the type in which `fabric` multiplies.

    Autocast would cast them again in every pass. The results are the same bit for bit. A distillation step in
    bfloat16 takes 1.21 to 1.23 times as long without it; in float32 nothing changes.
    """
    device = fabric.device.type
    with fabric.autocast():
        if not torch.is_autocast_enabled(device):
            return
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.to(torch.get_autocast_dtype(device))


class AtrousConv(nn.Conv2d):
    """Convolution that leaves out rows and columns of the kernel that read only padding.

    The result is exact: if the map is no larger than the dilation, only the centre of a 3×3 kernel reads the
    map. This happens in the ASPP for images below 288 pixels. A compiled or exported network must accept any
    size, so it uses the whole kernel. A step takes 1.04 to 1.07 times as long without it at 96×96 pixels,
    1.01 to 1.04 times at 257×257.
    """

    def forward(self, feature: Tensor) -> Tensor:
        weight, padding = self.weight, [0, 0]
        for axis, (size, dilation) in enumerate(zip(self.kernel_size, self.dilation, strict=True)):
            if torch.compiler.is_compiling() or feature.shape[2 + axis] > dilation:
                padding[axis] = dilation * (size // 2)
            else:
                weight = weight.narrow(2 + axis, size // 2, 1)
        return F.conv2d(feature, weight, self.bias, self.stride, padding, self.dilation)


class JoiningConv(nn.Conv2d):
    r"""Convolution of two concatenated maps: a fine map, and a coarse map upsampled to its size.

    Upsampling and convolution are both linear, so the coarse map is upsampled last, separately for each
    position t of the kernel:

    .. math::
        W * [U x, y] = \sum_t S_t U (W^x_t x) + W^y * y

    `W_t` is a 1×1 convolution of the coarse map, which has a sixteenth of the pixels. `S_t` shifts the map
    and fills with zeros. `S_t U` is the product of a matrix for the rows and a matrix for the columns. This
    needs a quarter of the multiply-adds, and the concatenated map is never stored. A step takes 1.10 to 1.19
    times as long without it.

    ((B, C, h, w), (B, D, H, W)) → (B, `out`, H, W), with stride 1 and padding that keeps the size. A compiled
    or exported network must accept any size, so it uses `in_turn`.
    """

    def forward(self, maps: tuple[Tensor, Tensor]) -> Tensor:  # type: ignore[override]
        if torch.compiler.is_compiling():
            return self.in_turn(maps)
        coarse, fine = maps
        coarse_weight, fine_weight = self.weight.split((coarse.shape[1], fine.shape[1]), dim=1)
        convolved = F.conv2d(fine, fine_weight, self.bias, padding=self.padding)
        return convolved.add_(_convolve_then_upsample(coarse, coarse_weight, fine.shape[-2:]))

    def in_turn(self, maps: tuple[Tensor, Tensor]) -> Tensor:
        """The same by definition: upsample, concatenate, convolve."""
        coarse, fine = maps
        return super().forward(torch.cat((resize(coarse, fine.shape[-2:]), fine), dim=1))


def _convolve_then_upsample(feature: Tensor, weight: Tensor, size: Sequence[int]) -> Tensor:
    """Σ_t S_t U (W_t x), see `JoiningConv`; channels last."""
    out, _, tall, wide = weight.shape
    batch, _, height, width = feature.shape
    kernel = weight.permute(2, 3, 0, 1).flatten(0, 2)
    parts = F.conv2d(feature, kernel[:, :, None, None]).permute(0, 2, 3, 1).unflatten(-1, (tall, wide, out))
    parts = parts.permute(0, 1, 3, 2, 4, 5).flatten(3, 4)
    columns = _shifted_upsampling(width, size[1], wide, like=parts)
    parts = columns.expand(batch, height, tall, -1, -1) @ parts
    rows = _shifted_upsampling(height, size[0], tall, like=parts)
    summed = rows.expand(batch, -1, -1) @ parts.flatten(3).flatten(1, 2)
    return summed.unflatten(-1, (-1, out)).permute(0, 3, 1, 2)


def _shifted_upsampling(size: int, to: int, places: int, *, like: Tensor) -> Tensor:
    """Matrix (`to`, `size` · `places`): upsamples a line, then shifts it for each position of the kernel."""
    same = torch.eye(size, device=like.device, dtype=torch.promote_types(like.dtype, torch.float32))
    upsampling = F.interpolate(same[None], to, mode="linear", align_corners=True)[0]
    padded = F.pad(upsampling, (places // 2, places // 2))
    return padded.unfold(1, to, 1).flatten(0, 1).T.to(like.dtype)


class Dropout(nn.Dropout):
    """Dropout with a fast mask on a CPU, where `bernoulli_` takes five times as long.

    The probability is rounded to 16 random bits: it is wrong by 1/131072 at most. The mask is stored as
    bytes, which take a quarter of the memory of float32. A step takes 1.05 to 1.10 times as long without it.
    """

    def forward(self, feature: Tensor) -> Tensor:
        if not self.training or feature.device.type != "cpu":
            return super().forward(feature)
        draws = torch.empty(math.ceil(feature.numel() / 4), dtype=torch.int64).random_(-(2**63), None)
        bits = draws.view(torch.int16)[: feature.numel()]
        kept = torch.empty_like(feature, dtype=torch.bool)
        torch.ge(bits, round(self.p * 2**16) - 2**15, out=kept.as_strided(bits.shape, bits.stride()))
        return feature.mul(kept).div_(1 - self.p)


def resize(feature: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(feature, size=tuple(size), mode="bilinear", align_corners=True)
