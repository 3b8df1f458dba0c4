"""Time and memory of a training."""

import sys
import time

import torch


class Meter:
    """Measures time and memory, only for the log: outputs of the pipeline must not differ between two runs.

    Args:
        before: seconds that the training took before it was resumed.
    """

    def __init__(self, device: torch.device, before: float) -> None:
        self._device = device
        self._start = time.perf_counter() - before
        self.start_epoch()

    @property
    def seconds(self) -> float:
        """Seconds since the beginning of the training, with validation."""
        return time.perf_counter() - self._start

    def start_epoch(self) -> None:
        self._start_epoch = time.perf_counter()
        self._images = self._steps = 0
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def count(self, images: int) -> None:
        """Add a step with this number of images."""
        self._images += images
        self._steps += 1

    def epoch(self) -> dict[str, float]:
        """Costs of the steps since `start_epoch`, with data loading and without validation."""
        if not self._steps:  # The training was resumed after the last step of the epoch.
            return {}
        seconds = time.perf_counter() - self._start_epoch
        costs = {
            "speed/seconds_per_step": seconds / self._steps,
            "speed/images_per_second": self._images / seconds,
            "speed/peak_memory_mib": peak_memory() / 2**20,
        }
        if self._device.type == "cuda":
            costs["speed/peak_device_memory_mib"] = torch.cuda.max_memory_allocated(self._device) / 2**20
        return costs


def peak_memory() -> int:
    """The peak memory of this process in bytes, without its loader processes."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows; there psutil has the peak
        import psutil  # type: ignore[import-untyped]

        memory = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
