"""One training in several processes with one device each, as `torchrun` starts them.

Every process sends its part of a batch through its copy of the networks. Then the outputs are gathered, and
each process computes the loss of the whole batch. So a loss that relates images to each other, a mean over
the pixels that are not void, and CIRKD's queues are the same as in a single process.
"""

import os
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn import functional as collective

from attnfd.errors import UserError


def count() -> int:
    """The number of processes: 1 without `torchrun`."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def rank() -> int:
    """The number of this process; only process 0 writes files and logs."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def gather(part: Tensor) -> Tensor:
    """The whole batch (N·B, …), of which every process has a part (B, …), in the order of the processes.

    In the backward pass, a part gets the sum of the gradients of all processes' losses. Since these losses
    are equal and DDP averages the gradients, a parameter gets the gradient of the loss.
    """
    if count() == 1:
        return part
    whole = torch.cat(collective.all_gather(part.contiguous()))
    if whole.requires_grad:
        # Gradients are exchanged in memory order, which is different for channels-last.
        whole.register_hook(Tensor.contiguous)
    return whole


def total(part: Any) -> Any:
    """The sum of an array over all processes, exact for integers."""
    return sum(everyones(part))


def everyones(mine: Any) -> list[Any]:
    """The objects of all processes, in order. It waits for all of them, so do not use it in every step."""
    if count() == 1:
        return [mine]
    found: list[Any] = [None] * count()
    distributed.all_gather_object(found, mine)
    return found


def synchronise_bn(network: nn.Module) -> None:
    """Let the BN of a network see the whole batch instead of the part of one process.

    Raises:
        UserError: there are several processes on a CPU.
    """
    if count() == 1:
        return
    if not next(network.parameters()).is_cuda:
        raise UserError(
            f"training.sync_bn: found true for {count()} processes on a CPU, where torch has no synchronised "
            "BN; allowed: false, or one process"
        )
    convert_bn(network)


def convert_bn(network: nn.Module) -> None:
    """Replace every BN of a network by a synchronised one, in place; the network itself must not be a BN."""
    if any(type(module).__name__ == "BatchNormAct2d" for module in network.modules()):
        from timm.layers import convert_sync_batchnorm  # Torch's own loses the activation in timm's BN.

        convert_sync_batchnorm(network)
    else:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)


def share_buffers(network: nn.Module) -> None:
    """Copy the buffers of process 0 to all others: without `synchronise_bn`, their BN statistics differ."""
    if count() == 1:
        return
    for buffer in network.buffers():
        distributed.broadcast(buffer, src=0)
