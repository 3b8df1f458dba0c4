"""Rebuilds a network from its card and its weights.

A logged model contains a copy of every module that this one imports, so that it runs without this package.
Keep these imports few.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from attnfd.config.network import DEEPLAB
from attnfd.config.section import validate
from attnfd.discovery import component, names, one_of
from attnfd.errors import UserError
from attnfd.models import weight_file
from attnfd.models.frozen import freeze
from attnfd.models.network import Network


def restore(card: Mapping[str, Any], weights: Path, where: str) -> Network:
    """Rebuild a network in eval mode, on the CPU and channels last. Never runs code from the weights file.

    Args:
        card: has `architecture` and `frozen`.
        weights: a `.safetensors` file.
        where: name of the card in messages.

    Raises:
        UserError: the architecture is not valid, or the weights do not fit the network.
    """
    key = f"{where}: architecture"
    kind = component("networks", one_of(kind_name(card), names("networks"), f"{key}.network"))()
    architecture = validate(kind.Architecture, card["architecture"], key)
    try:
        model: Network = kind.skeleton(architecture)
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
    if card["frozen"]:
        model = freeze(model)
    state = weight_file.read(weights)
    weight_file.check_names(state, model.state_dict(), str(weights), f"the network that {where} describes")
    # Copied, not assigned: the tensors of the file are not aligned, and that changes the last digits.
    if any(weight.is_meta for weight in model.parameters()):
        model.to_empty(device="cpu")
    model.to(memory_format=torch.channels_last).load_state_dict(state)
    return model.eval()


def kind_name(card: Mapping[str, Any]) -> str:
    """The kind of the network in a card: the name of a file of attnfd/networks/."""
    architecture = card["architecture"]
    found = architecture.get("network") if isinstance(architecture, dict) else None
    return str(found or DEEPLAB)
