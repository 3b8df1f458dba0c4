"""Times a training loop beside its bare step."""

import time
from collections.abc import Callable

import torch

from attnfd.bench.timing import wait


class Clock:
    """Times the epochs of a loop, and runs a bare step before each step.

    An epoch is timed from its first step to that of the next.

    Args:
        bare: takes the bare step.
        flush: writes what the loop's log has not written yet.
        steps: of an epoch.
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
        """Hook of the objective that the loop trains."""
        wait(self._device)  # What the loop has queued is its own.
        if self._count % self._steps == 0:
            self._end_epoch()
        self._count += 1
        start = time.perf_counter()
        self._bare()
        self._of_bare_steps += time.perf_counter() - start

    def _end_epoch(self) -> None:
        self._flush()  # Or the next epoch would bear a part of what the log still has to do.
        if self._count > self._steps:  # The first epoch warms up.
            whole = time.perf_counter() - self._start
            self.loop.append((whole - self._of_bare_steps) / self._steps)
            self.bare.append(self._of_bare_steps / self._steps)
        self._start, self._of_bare_steps = time.perf_counter(), 0.0
