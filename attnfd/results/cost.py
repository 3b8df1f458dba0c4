"""What a network costs, whatever runs it."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(network: nn.Module) -> int:
    """Numbers that were learned; running statistics are none."""
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_adds(network: nn.Module, size: tuple[int, int]) -> int:
    """Multiply-adds of convolutions and matrix products, for one image of (height, width).

    As it computes them, see `AtrousConv` and `JoiningConv`. The network is to be in eval mode.
    """
    device = next(network.parameters()).device
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        network(torch.zeros(1, 3, *size, device=device))
    return counter.get_total_flops() // 2
