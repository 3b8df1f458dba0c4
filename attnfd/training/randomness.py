"""The states of the random generators."""

import random
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch

RandomState = Mapping[str, Any]


def random_state() -> RandomState:
    """States of the global generators of Python, NumPy and torch, on every device."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if _gpu_is_there() else [],
    }


def set_random_state(state: RandomState) -> None:
    """Restore the states that `random_state` returned."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:  # Counting the GPUs takes as long as all other steps together.
        # This machine may have fewer GPUs than the one that saved the state.
        for device, saved in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
            torch.cuda.set_rng_state(saved, device)


@cache
def _gpu_is_there() -> bool:
    # Cached: this call takes as long as the rest of `random_state`.
    return torch.cuda.is_available()
