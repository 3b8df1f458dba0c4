"""An exponential moving average of a network's weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    r"""The average of a network's weights and buffers over its updates.

    .. math:: a ← d\,a + (1 - d)\,w, \quad d = \min(\text{keep}, (1 + n) / (10 + n))

    after update n. Early averages change fast, so the random first weights soon have no effect. Integer
    buffers are copied.

    Args:
        keep: share of the average that is kept at each update.
    """

    def __init__(self, network: nn.Module, keep: float) -> None:
        self.network, self.keep, self.updates = network, keep, 0
        self.weights = {name: value.clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Add the network's current weights to the average."""
        self.updates += 1
        kept = min(self.keep, (1 + self.updates) / (10 + self.updates))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - kept)
            else:
                self.weights[name].copy_(value)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the network the averaged weights inside the `with` block."""
        own = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.weights)
        try:
            yield
        finally:
            self.network.load_state_dict(own)

    def state_dict(self) -> dict[str, object]:
        return {"updates": self.updates, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, dict[str, Tensor]]) -> None:
        for name, value in state["weights"].items():
            self.weights[name].copy_(value)
        self.updates = int(state["updates"])  # type: ignore[call-overload]
