"""What a network costs, independent of the machine."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(network: nn.Module) -> int:
    """Number of learned values, without the running statistics of BN."""
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_adds(network: nn.Module, size: tuple[int, int]) -> int:
    """Multiply-adds of convolutions and matrix products, for one image of (height, width).

    They are counted as the network computes them, see `AtrousConv` and `JoiningConv`. The network must be in
    eval mode.
    """
    device = next(network.parameters()).device
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        network(torch.zeros(1, 3, *size, device=device))
    return counter.get_total_flops() // 2
