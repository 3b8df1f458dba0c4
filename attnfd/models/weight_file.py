"""Weight files: read without running what is in them, and compared with the network they are for."""

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
    """A part of a NumPy number, such as a best score that a checkpoint keeps beside weights: what made it."""

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
    """The state dict in a `.safetensors` file, or in one that `torch.save` wrote; never runs code out of it.

    A training checkpoint may hold it as `state_dict` beside numbers.

    Raises:
        UserError: the file is damaged or contains anything but a state dict.
    """
    found = _load(file)
    if isinstance(found, Mapping):
        found = found.get("state_dict", found)
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{file}: contains no state dict; write it by `torch.save(model.state_dict(), file)`")
    return found


def beside(file: str | Path) -> Mapping[str, Any]:
    """What a training checkpoint contains beside `state_dict`; see `number`.

    Raises:
        UserError: the file is damaged or contains code.
    """
    found = _load(file)
    if not isinstance(found, Mapping) or "state_dict" not in found:
        return {}
    return {str(key): value for key, value in found.items() if key != "state_dict"}


def number(value: Any) -> float | None:
    """A number of Python, NumPy or torch that a checkpoint contains; None if it is none."""
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
    """Compare names and shapes of weights with those of a network, and see that all are numbers.

    Raises:
        UserError: they differ; the message names the first few. Or a weight is NaN or infinite.
    """
    check_names(given, needed, source, network)
    check_finite(given, source)


def check_names(given: Mapping[str, Tensor], needed: Mapping[str, Tensor], source: str, network: str) -> None:
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


def check_finite(weights: Mapping[str, Tensor], source: str) -> None:
    """See that all weights are numbers.

    Raises:
        UserError: one is NaN or infinite.
    """
    for key, value in weights.items():
        if not value.isfinite().all():
            raise UserError(
                f"{source}: {key} has values that are no numbers (NaN or infinite); give weights of a "
                "training that did not diverge"
            )
