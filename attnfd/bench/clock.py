"""Times a training loop and its bare step together."""

import time
from collections.abc import Callable

import torch

from attnfd.bench.timing import wait


class Clock:
    """Times the epochs of a loop, and runs a bare step before each step.

    The time of an epoch is from its first step to the first step of the next epoch.

    Args:
        bare: runs the bare step.
        flush: writes what the loop's log has not written yet.
        steps: number of steps in an epoch.
    """

    def __init__(
        self, bare: Callable[[], None], flush: Callable[[], None], steps: int, device: torch.device
    ) -> None:
        self._bare, self._flush, self._steps, self._device = bare, flush, steps, device
        self.loop: list[float] = []
        self.bare: list[float] = []
        self._count = 0
        self._of_bare_steps = 0.0
        self._start = 0.0

    def run_bare_step(self, *_: object) -> None:
        """Run a bare step; a hook of the objective that the loop trains."""
        wait(self._device)  # Work that the loop has queued counts as the loop's time.
        if self._count % self._steps == 0:
            self._end_epoch()
        self._count += 1
        start = time.perf_counter()
        self._bare()
        self._of_bare_steps += time.perf_counter() - start

    def _end_epoch(self) -> None:
        self._flush()  # Else the next epoch would include the time for writing the rest of the log.
        if self._count > self._steps:  # The first epoch warms up.
            whole = time.perf_counter() - self._start
            self.loop.append((whole - self._of_bare_steps) / self._steps)
            self.bare.append(self._of_bare_steps / self._steps)
        self._start, self._of_bare_steps = time.perf_counter(), 0.0
