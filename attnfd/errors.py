"""What is the user's to fix, or was the user's wish."""

import errno
import os
import shutil
import signal
import sqlite3
from pathlib import Path

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
SQLITE_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE}  # The second by a quota.


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


def full_disk(error: BaseException, *folders: Path) -> str | None:
    """What to say where an error comes from a full disk, a quota or a limit of file sizes; else None.

    Args:
        folders: where was written; the fullest of them is named, with what is free there.
    """
    reason = _no_room(error)
    if reason is None:
        return None
    from rich import filesize  # A logged model has this module, and need not have rich.

    free, folder = min((_free(folder), folder) for folder in folders)
    return (
        f"{folder}: {reason} ({filesize.decimal(free)} free); make room, then run the same command again, "
        "and it finishes"
    )


def _no_room(error: BaseException | None) -> str | None:
    """The system's word for it, if an error or one that it comes from says that there is no room."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return os.strerror(error.errno)
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) in SQLITE_FULL:
            return str(error)
        if type(error).__name__ == "SafetensorError":
            said = next((code for code in FULL if os.strerror(code) in str(error)), None)
            if said is not None:
                return os.strerror(said)
        # SQLAlchemy keeps the database's own error in `orig`.
        error = getattr(error, "orig", None) or error.__cause__ or error.__context__
    return None


def _free(folder: Path) -> int:
    """Bytes that are free on the disk of a folder, which need not be there yet."""
    found = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(found).free
