"""The device and its arithmetic."""

import logging
import os
from typing import Any

import torch
from lightning_fabric import Fabric

from attnfd.errors import UserError
from attnfd.runtime import machine, processes
from attnfd.runtime.arithmetic import TF32, allow_tf32

# Fabric would print the chosen arithmetic at every start; the params of a training's run contain it.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

# Names of CPU instructions that multiply bfloat16 numbers directly.
NATIVE_BF16 = ("avx512_bf16", "amx_bf16")


def start_fabric(precision: Any, *, together: bool = False, deterministic: bool = False) -> Fabric:
    """Device and arithmetic of a training or an evaluation.

    Args:
        together: use DDP with the other processes that `torchrun` has started.
        deterministic: use only kernels that give the same bits every time, on a CPU and on a GPU; torch warns
            of operations that have no such kernel.
        precision: see `attnfd.config.schema.Training`.

    Raises:
        UserError: `ATTNFD_DEVICE` is cuda and there is no GPU.
    """
    device = machine.settings().device
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("ATTNFD_DEVICE: found 'cuda', but no GPU is visible; allowed: auto, cpu")
    precision = chosen_precision(precision)
    allow_tf32(precision == TF32)
    arithmetic: Any = "32-true" if precision == TF32 else precision
    # cuBLAS reads this when it starts; without it, streams share its buffers in a varying order.
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    if together and processes.count() > 1:
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = processes.count() // here
        fabric = Fabric(
            accelerator=device, devices=here, num_nodes=nodes, strategy="ddp", precision=arithmetic
        )
        fabric.launch()
    else:
        fabric = Fabric(accelerator=device, devices=1, precision=arithmetic)
    return fabric


def chosen_precision(asked: Any) -> Any:
    """The precision that a training uses on this machine.

    `auto` is bf16-mixed if the device multiplies bfloat16 numbers directly, else 32-true.
    """
    if asked != "auto":
        return asked
    return "bf16-mixed" if _has_bf16(machine.settings().device) else "32-true"


def _has_bf16(device: str) -> bool:
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in NATIVE_BF16)
