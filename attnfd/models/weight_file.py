"""Weight files: read without running what is in them, and compared with the network they are for."""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from attnfd.errors import UserError


def read(file: Path) -> Mapping[str, Tensor]:
    """The state dict in a `.safetensors` file, or in one that `torch.save` wrote; never runs code out of it.

    Raises:
        UserError: the file is damaged or holds anything but a state dict.
    """
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or malicious file can raise anything
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(f"{file}: cannot be read as weights ({reason}); replace the file") from None
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{file}: holds no state dict; write it by `torch.save(model.state_dict(), file)`")
    return found


def check(given: Mapping[str, Tensor], needed: Mapping[str, Tensor], source: str, network: str) -> None:
    """Compare names and shapes of weights with those of a network.

    Raises:
        UserError: they differ; the message names the first few.
    """
    # Old torchvision files lack the counters of BN, which only a BN without momentum would read.
    missing = [key for key in needed if key not in given and not key.endswith("num_batches_tracked")]
    unknown = [key for key in given if key not in needed]
    shapes = [
        f"{key} {tuple(given[key].shape)} instead of {tuple(needed[key].shape)}"
        for key in given
        if key in needed and given[key].shape != needed[key].shape
    ]
    problems = [
        f"{problem}: {', '.join(keys[:3])}{f' and {len(keys) - 3} more' if len(keys) > 3 else ''}"
        for problem, keys in (("missing", missing), ("unknown", unknown), ("shape", shapes))
        if keys
    ]
    if problems:
        raise UserError(f"{source}: these are not the weights of {network} ({'; '.join(problems)})")
