"""Ctrl-C and SIGTERM during a training."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from attnfd.errors import StoppedError
from attnfd.runtime import processes

AGREE_STEPS = 10
"""Several processes agree on a stop once in so many steps, as each time they wait for each other."""


class Interrupt:
    """Whether the user (Ctrl-C) or the machine (SIGTERM) has asked the training to stop."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self.agreed: signal.Signals | None = None

    def agree(self, step: int = 0) -> None:
        """Let all processes stop at the same step if one of them was asked to."""
        if processes.count() > 1 and step % AGREE_STEPS:
            return
        self.agreed = max((asked for asked in processes.everyones(self.asked) if asked), default=None)

    def raise_if_asked(self, where: str) -> None:
        """Stop the training, whose state is safe by now.

        Raises:
            StoppedError: it was asked to.
        """
        if self.agreed is not None:
            raise StoppedError(
                f"stopped by {self.agreed.name} after {where}; run the same command again, and it resumes",
                self.agreed,
            )


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Note the first Ctrl-C or SIGTERM instead of dying of it; the second one does what it always does."""
    interrupt = Interrupt()
    before: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        interrupt.asked = signal.Signals(number)
        if processes.count() > 1:
            return  # `torchrun` passes on what the terminal has sent already, and kills in the end.
        for name, handler in before.items():
            signal.signal(name, handler)

    for name in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(name) is not signal.SIG_IGN:  # as under nohup
            before[name] = signal.signal(name, note)
    try:
        yield interrupt
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
