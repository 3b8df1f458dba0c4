"""What is the user's to mend, or was the user's wish."""

import signal


class UserError(ValueError):
    """Bad input: one line that names the key or file, what was found, what is allowed, and what to do.

    The command line prints the message without a traceback and exits with `status`.
    """

    status = 2


class PartlyError(UserError):
    """Some of several trainings failed; the others are complete."""

    status = 3


class StoppedError(UserError):
    """The user or the machine has stopped a training, and its state is safe.

    The exit status is that of a process that the signal has killed.
    """

    def __init__(self, message: str, by: signal.Signals) -> None:
        super().__init__(message)
        self.status = 128 + by
