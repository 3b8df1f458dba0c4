"""One training in several processes, a device each, as `torchrun` starts them.

Every process takes its share of a batch through its copy of the networks; the outputs are gathered, and each
computes the loss of the whole batch. So a loss that relates images to each other, a mean over the pixels that
are not void, and CIRKD's queues are what one process would have made of the batch.
"""

import os
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn import functional as collective

from attnfd.errors import UserError


def count() -> int:
    """How many processes there are: 1 without `torchrun`."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def rank() -> int:
    """Which of them this one is; 0 alone writes and logs."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def gather(part: Tensor) -> Tensor:
    """The batch (N·B, …) of which every process has a part (B, …), in the order of the processes.

    Backward, a part gets the gradients of all processes' losses, summed. As these losses are equal, and DDP
    takes the mean of the gradients, a parameter's gradient is that of the loss.
    """
    if count() == 1:
        return part
    whole = torch.cat(collective.all_gather(part.contiguous()))
    if whole.requires_grad:
        # Gradients are exchanged in the order of memory, which for channels-last is another one.
        whole.register_hook(Tensor.contiguous)
    return whole


def total(part: Any) -> Any:
    """Sum of an array over the processes, exact for integers."""
    return sum(everyones(part))


def everyones(mine: Any) -> list[Any]:
    """What every process has, in their order; not for the loop, as it waits for all of them."""
    if count() == 1:
        return [mine]
    found: list[Any] = [None] * count()
    distributed.all_gather_object(found, mine)
    return found


def synchronise_bn(network: nn.Module) -> None:
    """Let the BN of a network see the whole batch instead of a process' part of it.

    Raises:
        UserError: there are several processes, and they are on a CPU.
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
    """Make every BN of a network one that is synchronised, in place, as the network itself is no BN."""
    if any(type(module).__name__ == "BatchNormAct2d" for module in network.modules()):
        from timm.layers import convert_sync_batchnorm  # Torch's own loses the activation in timm's BN.

        convert_sync_batchnorm(network)
    else:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)


def share_buffers(network: nn.Module) -> None:
    """Give every process the buffers of the first one: without `synchronise_bn`, statistics of BN differ."""
    if count() == 1:
        return
    for buffer in network.buffers():
        distributed.broadcast(buffer, src=0)
