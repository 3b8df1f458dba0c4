"""A network made again from its card and its weights.

A logged model takes along what this module imports, so that it runs without this package: keep that little.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from attnfd.config.section import validate
from attnfd.discovery import one_of
from attnfd.models import backbones, weight_file
from attnfd.models.deeplab import Architecture, DeepLabV3Plus
from attnfd.models.frozen import freeze


def restore(card: Mapping[str, Any], weights: Path, where: str) -> DeepLabV3Plus:
    """A network in eval mode, on the CPU and channels last. Never runs code out of a file.

    Args:
        card: has `architecture` and `frozen`.
        weights: a `.safetensors` file.
        where: names the card in messages.

    Raises:
        UserError: the architecture is not valid, or the weights are not those of the network.
    """
    architecture = validate(Architecture, card["architecture"], f"{where}: architecture")
    one_of(architecture.backbone, backbones.names(), f"{where}: architecture.backbone")
    # On the meta device nothing is initialised, only to be overwritten.
    with torch.device("meta"):
        model = DeepLabV3Plus(**dict(architecture))
    if card["frozen"]:
        model = freeze(model)
    state = weight_file.read(weights)
    weight_file.check_names(state, model.state_dict(), str(weights), f"the network that {where} describes")
    # Copied rather than assigned: in the file the tensors are not aligned, which changes the last digits.
    model.to_empty(device="cpu").to(memory_format=torch.channels_last).load_state_dict(state)
    return model.eval()
