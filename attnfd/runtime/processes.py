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
    """Let the BN of a network see the whole batch instead of a process' part of it."""
    if count() == 1:
        return
    if next(network.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # In place, as the network itself is no BN.
        return
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SynchronousBN


class SynchronousBN(nn.BatchNorm2d):
    """`nn.SyncBatchNorm` for CPUs, which that one refuses."""

    def forward(self, feature: Tensor) -> Tensor:
        if not self.training:
            return super().forward(feature)
        axes = (0, 2, 3)
        pixels = feature.numel() // feature.shape[1] * count()
        given = feature.dtype
        feature = feature.to(self.weight.dtype)  # Of a bfloat16 feature the statistics are float32.
        mean = collective.all_reduce(feature.sum(axes)) / pixels
        centred = feature - mean[:, None, None]
        variance = collective.all_reduce(centred.square().sum(axes)) / pixels
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * pixels / (pixels - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(given)
