"""A network made again from its card and its weights.

A logged model takes along what this module imports, so that it runs without this package: keep that little.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from attnfd.config.section import validate
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
    backbones.check_name(architecture.backbone, f"{where}: architecture.backbone")
    model = _skeleton(architecture)
    if card["frozen"]:
        model = freeze(model)
    state = weight_file.read(weights)
    weight_file.check_names(state, model.state_dict(), str(weights), f"the network that {where} describes")
    # Copied rather than assigned: in the file the tensors are not aligned, which changes the last digits.
    if any(weight.is_meta for weight in model.parameters()):
        model.to_empty(device="cpu")
    model.to(memory_format=torch.channels_last).load_state_dict(state)
    return model.eval()


def _skeleton(architecture: Architecture) -> DeepLabV3Plus:
    """A network whose weights are to be overwritten."""
    # On the meta device nothing is initialised in vain; but then what no file has would stay empty.
    with torch.device("meta"):
        model = DeepLabV3Plus(**dict(architecture))
    if any(module._non_persistent_buffers_set for module in model.modules()):
        return DeepLabV3Plus(**dict(architecture))
    return model
