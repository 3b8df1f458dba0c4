"""The device and its arithmetic."""

import logging
import os
from typing import Any

import torch
from lightning_fabric import Fabric

from attnfd.errors import UserError
from attnfd.runtime import machine, processes
from attnfd.runtime.arithmetic import TF32, allow_tf32

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
        precision: see `attnfd.config.schema.Training`.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    device = machine.settings().device
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("ATTNFD_DEVICE: found 'cuda', but no GPU is visible here; allowed: auto, cpu")
    precision = chosen_precision(precision)
    allow_tf32(precision == TF32)
    arithmetic: Any = "32-true" if precision == TF32 else precision
    # cuBLAS reads it when it starts; without, it shares its buffers between streams in any order.
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
