"""The contract of a kind of networks.

A kind is one file of this package: what `network: <name>` in `params.yaml` means. It makes networks out of
their settings, and again out of the card of a trained one.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from attnfd import discovery
from attnfd.config.network import Attention, NetworkConfig
from attnfd.config.section import Section
from attnfd.models.network import Network


class Kind(ABC):
    """Makes networks of one kind."""

    Architecture: ClassVar[type[Section]]
    """What a card says of such a network."""

    @abstractmethod
    def make(self, config: NetworkConfig, classes: int, attention: Attention | None, weights: str) -> Network:
        """A new network.

        Args:
            config: what `params.yaml` says of it.
            classes: K.
            attention: settings of CBAMs at its layers; without them it has no `refined` taps.
            weights: `imagenet`, `none`, or a file.

        Raises:
            UserError: a setting is not valid, or the weights cannot be had.
        """

    @abstractmethod
    def skeleton(self, architecture: Any) -> Network:
        """The network of a card, whose weights are to be overwritten."""

    def packages(self, architecture: Any) -> tuple[str, ...]:
        """What must be installed beside torch and torchvision to make the network of a card."""
        return ()

    def check(self, config: NetworkConfig, classes: int, weights: str) -> Network | None:
        """Find out before a training whether `make` could make the network; return it if it was made.

        Raises:
            UserError: it could not.
        """
        return self.make(config, classes, None, weights)


BASE = Kind


def kind_of(name: str) -> Kind:
    """The kind of that name.

    Raises:
        UserError: there is none.
    """
    made: Kind = discovery.component("networks", name)()
    return made


def make_network(
    config: NetworkConfig, classes: int, *, attention: Attention | None = None, weights: str = "none"
) -> Network:
    """A new network of the kind that `config.network` names; see `Kind.make`."""
    return kind_of(config.network).make(config, classes, attention, weights)
