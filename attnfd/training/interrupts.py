"""Ctrl-C and SIGTERM during a training."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from attnfd.errors import StoppedError
from attnfd.runtime import processes

AGREE_STEPS = 10
"""Steps between two agreements of several processes on a stop; in each, they wait for each other."""


class Interrupt:
    """Whether the user (Ctrl-C) or the system (SIGTERM) has asked the training to stop."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self.agreed: signal.Signals | None = None

    def agree(self, step: int = 0) -> None:
        """Let all processes stop at the same step if one of them was asked to stop."""
        if processes.count() > 1 and step % AGREE_STEPS:
            return
        self.agreed = max((asked for asked in processes.everyones(self.asked) if asked), default=None)

    def raise_if_asked(self, where: str) -> None:
        """Stop the training if asked. The caller has saved its state.

        Raises:
            StoppedError: the training was asked to stop.
        """
        if self.agreed is not None:
            raise StoppedError(
                f"stopped by {self.agreed.name} after {where}; run the same command again, and it resumes",
                self.agreed,
            )


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Record the first Ctrl-C or SIGTERM instead of ending; the second one has its usual effect."""
    interrupt = Interrupt()
    before: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        interrupt.asked = signal.Signals(number)
        if processes.count() > 1:
            return  # `torchrun` forwards a signal that the terminal has already sent, and kills at last.
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
