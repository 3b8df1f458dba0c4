"""The device and its arithmetic."""

from typing import Any

import torch
from lightning_fabric import Fabric

from attnfd import machine
from attnfd.errors import UserError


def start_fabric(precision: Any) -> Fabric:
    """Device and arithmetic of a training or an evaluation.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    device = machine.settings().device
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("ATTNFD_DEVICE: found 'cuda', but no GPU is visible here; allowed: auto, cpu")
    fabric = Fabric(accelerator=device, devices=1, precision=precision)
    torch.set_float32_matmul_precision("high")
    return fabric
