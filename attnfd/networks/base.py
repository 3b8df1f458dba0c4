"""The contract of a kind of networks.

A kind is one file of this package; `network: <name>` in `params.yaml` chooses it. It builds new networks from
their settings, and rebuilds trained networks from their cards.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from attnfd import discovery
from attnfd.config.network import Attention, NetworkConfig
from attnfd.config.section import Section
from attnfd.models.network import Network


class Kind(ABC):
    """Builds networks of one kind."""

    Architecture: ClassVar[type[Section]]
    """The entry `architecture` in the card of such a network."""

    @abstractmethod
    def make(self, config: NetworkConfig, classes: int, attention: Attention | None, weights: str) -> Network:
        """Build a new network.

        Args:
            config: its section of `params.yaml`.
            classes: K.
            attention: settings of CBAMs at its layers; None: the network has no `refined` taps.
            weights: `imagenet`, `none`, or a file.

        Raises:
            UserError: a setting is not valid, or the weights are not available.
        """

    @abstractmethod
    def skeleton(self, architecture: Any) -> Network:
        """Build the network of a card; the caller then replaces its weights."""

    def packages(self, architecture: Any) -> tuple[str, ...]:
        """The packages, beside torch and torchvision, that the network of a card needs."""
        return ()

    def check(self, config: NetworkConfig, classes: int, weights: str) -> Network | None:
        """Check before a training that `make` can build the network; return the network if it was built.

        Raises:
            UserError: it cannot.
        """
        return self.make(config, classes, None, weights)


BASE = Kind


def kind_of(name: str) -> Kind:
    """The kind of this name.

    Raises:
        UserError: there is none.
    """
    made: Kind = discovery.component("networks", name)()
    return made


def make_network(
    config: NetworkConfig, classes: int, *, attention: Attention | None = None, weights: str = "none"
) -> Network:
    """Build a new network of the kind `config.network`; see `Kind.make`."""
    return kind_of(config.network).make(config, classes, attention, weights)
