"""Weight files: read without running code from them, and compared with the network that uses them."""

import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnfd.errors import UserError


class Part:
    """Replaces a NumPy class or function while a checkpoint is read; it keeps the arguments of the call.

    Checkpoints contain NumPy numbers such as the best score.
    """

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None: ...


NUMPY_NUMBERS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (Part, name)
    for name in (
        "numpy.core.multiarray.scalar",  # NumPy 1
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        "_codecs.encode",
    )
]

STATE_DICT = "replace it by a state dict: where it can be loaded, torch.save(model.state_dict(), file)"


def read(file: str | Path) -> Mapping[str, Tensor]:
    """The state dict in a `.safetensors` file, or in a file that `torch.save` wrote. Never runs its code.

    In a training checkpoint it may be under the key `state_dict`, next to numbers.

    Raises:
        UserError: the file is damaged or contains no state dict.
    """
    found = _load(file)
    if isinstance(found, Mapping):
        found = found.get("state_dict", found)
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{file}: contains no state dict; write it by `torch.save(model.state_dict(), file)`")
    return found


def beside(file: str | Path) -> Mapping[str, Any]:
    """The entries of a training checkpoint except `state_dict`; see `number`.

    Raises:
        UserError: the file is damaged or contains code.
    """
    found = _load(file)
    if not isinstance(found, Mapping) or "state_dict" not in found:
        return {}
    return {str(key): value for key, value in found.items() if key != "state_dict"}


def number(value: Any) -> float | None:
    """Convert a number of Python, NumPy or torch in a checkpoint; None if the value is not a number."""
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value)
    if isinstance(value, Part):
        try:
            kind, content = value.args
            raw = content if isinstance(content, bytes) else content.args[0].encode("latin1")
            (value,) = np.frombuffer(raw, kind.args[0]).tolist()
        except (AttributeError, IndexError, TypeError, ValueError):
            return None
    return float(value) if isinstance(value, int | float) else None


def _load(file: str | Path) -> Any:
    try:
        if Path(file).suffix == ".safetensors":
            import safetensors.torch

            return safetensors.torch.load_file(file)
        with torch.serialization.safe_globals(NUMPY_NUMBERS), warnings.catch_warnings(action="ignore"):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{file}: cannot be read as weights (it is damaged, or contains more than tensors and numbers, "
            f"such as a whole model); {STATE_DICT}"
        ) from None
    except Exception as error:  # a damaged or malicious file can raise anything
        if "TorchScript" in str(error):
            raise UserError(
                f"{file}: contains a TorchScript program in place of weights; {STATE_DICT}"
            ) from None
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(f"{file}: cannot be read as weights ({reason}); replace the file") from None


def check(given: Mapping[str, Tensor], needed: Mapping[str, Tensor], source: str, network: str) -> None:
    """Check that weights have the names and shapes of a network's weights and are finite.

    Raises:
        UserError: names or shapes differ (the message names the first few), or a weight is NaN or infinite.
    """
    check_names(given, needed, source, network)
    check_finite(given, source)


def check_names(given: Mapping[str, Tensor], needed: Mapping[str, Tensor], source: str, network: str) -> None:
    """Check that weights have the names and shapes of a network's weights.

    Raises:
        UserError: they differ; the message names the first few.
    """
    # Old torchvision files lack the counters of BN. Only a BN without momentum reads them.
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


def check_finite(weights: Mapping[str, Tensor], source: str) -> None:
    """Check that all weights are finite.

    Raises:
        UserError: one is NaN or infinite.
    """
    for key, value in weights.items():
        if not value.isfinite().all():
            raise UserError(
                f"{source}: {key} has values that are not finite (NaN or infinite); give weights of a "
                "training that did not diverge"
            )
