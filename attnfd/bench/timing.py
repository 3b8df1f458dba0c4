"""Timing of compared calls: they alternate, so that a change of the machine's speed affects all of them."""

import os
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

WARM_UP = 3
"""Rounds at the beginning that do not count."""

KeyT = TypeVar("KeyT")


def take_turns(
    calls: Mapping[KeyT, Callable[[], object]], *, rounds: int, title: str
) -> dict[KeyT, list[float]]:
    """Seconds of every call, one number per round; in each round every call runs once."""
    from rich.progress import track  # Imported here, since it may be missing on a machine with a GPU.

    seconds: dict[KeyT, list[float]] = {key: [] for key in calls}
    for number in track(range(WARM_UP + rounds), title):
        for key, call in calls.items():
            start = time.perf_counter()
            call()
            if number >= WARM_UP:
                seconds[key].append(time.perf_counter() - start)
    return seconds


def wait(device: torch.device) -> None:
    """Wait until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine() -> dict[str, Any]:
    """The machine and the versions that a timing depends on."""
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
