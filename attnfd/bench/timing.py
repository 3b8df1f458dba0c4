"""Timing things that are compared: they take turns, so that a change of the machine's speed falls on all."""

import os
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

WARM_UP = 3
"""Rounds that do not count."""

KeyT = TypeVar("KeyT")


def take_turns(
    calls: Mapping[KeyT, Callable[[], object]], *, rounds: int, title: str
) -> dict[KeyT, list[float]]:
    """Seconds of every call, a number per round; in each round every call runs once."""
    from rich.progress import track  # Not everywhere where a GPU is measured.

    seconds: dict[KeyT, list[float]] = {key: [] for key in calls}
    for number in track(range(WARM_UP + rounds), title):
        for key, call in calls.items():
            start = time.perf_counter()
            call()
            if number >= WARM_UP:
                seconds[key].append(time.perf_counter() - start)
    return seconds


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine() -> dict[str, Any]:
    """What the numbers of a timing depend on beside the code."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()
