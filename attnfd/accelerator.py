"""The device and its arithmetic."""

import logging
import os
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from attnfd import machine, processes
from attnfd.errors import UserError

# It would print with every start what arithmetic was chosen: a training's run has that among its params.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

# What a CPU calls instructions that multiply bfloat16 numbers themselves.
NATIVE_BF16 = ("avx512_bf16", "amx_bf16")


def start_fabric(precision: Any, *, together: bool = False, deterministic: bool = False) -> Fabric:
    """Device and arithmetic of a training or an evaluation.

    Args:
        together: with the processes that `torchrun` has started beside this one, by DDP.
        deterministic: only kernels that give the same bits every time, on a CPU and on a GPU; torch warns of
            operations that have none.
        precision: see `attnfd.config.Training`.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    device = machine.settings().device
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("ATTNFD_DEVICE: found 'cuda', but no GPU is visible here; allowed: auto, cpu")
    precision = chosen_precision(precision)
    # cuBLAS reads it when it starts; without, it shares its buffers between streams in any order.
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    if together and processes.count() > 1:
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = processes.count() // here
        fabric = Fabric(
            accelerator=device, devices=here, num_nodes=nodes, strategy="ddp", precision=precision
        )
        fabric.launch()
    else:
        fabric = Fabric(accelerator=device, devices=1, precision=precision)
    torch.set_float32_matmul_precision("high")
    return fabric


def settle_weights(network: nn.Module, fabric: Fabric) -> None:
    """Keep the weights of a network that does not learn as its device computes with them.

    Without that, autocast casts them anew in every pass, and oneDNN, which computes convolutions on a CPU,
    puts them into an order of its own. The results are the same, in float32 but for rounding.
    """
    device = fabric.device.type
    with fabric.autocast():
        if torch.is_autocast_enabled(device):
            for module in network.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    module.to(torch.get_autocast_dtype(device))
    if device == "cpu" and torch.backends.mkldnn.is_available():
        for name, module in list(network.named_modules()):
            if type(module) is nn.Conv2d and _in_onednn(module.weight.dtype):
                network.set_submodule(name, PackedConv(module))


def _in_onednn(dtype: torch.dtype) -> bool:
    bf16 = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bf16 or dtype == torch.float32


class PackedConv(nn.Module):
    """A convolution that does not learn, with its weight in oneDNN's own order and nowhere else.

    It is the order for the shape that comes first; others are right, too, but maybe slower. Takes and returns
    what `conv` does, in the type of its weight, and has no gradient.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self._weight, self._bias = conv.weight.detach(), None if conv.bias is None else conv.bias.detach()
        self._geometry = (conv.padding, conv.stride, conv.dilation, conv.groups)

    def forward(self, feature: Tensor) -> Tensor:
        feature = feature.to(self._weight.dtype)
        if not self._weight.is_mkldnn:
            self._weight = torch.ops.mkldnn._reorder_convolution_weight(
                self._weight, *self._geometry, feature.shape
            )
        return torch.ops.mkldnn._convolution_pointwise(
            feature, self._weight, self._bias, *self._geometry, "none", [], ""
        )


def chosen_precision(asked: Any) -> Any:
    """What a training's `precision` is here.

    `auto` is bf16-mixed where the device multiplies bfloat16 numbers itself, else 32-true.
    """
    if asked != "auto":
        return asked
    return "bf16-mixed" if _has_bf16(machine.settings().device) else "32-true"


def _has_bf16(device: str) -> bool:
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in NATIVE_BF16)
