"""Errors that the user can fix, and stops that the user asked for."""

import errno
import os
import shutil
import signal
import sqlite3
from pathlib import Path

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
SQLITE_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE}  # A quota causes the second one.


class UserError(ValueError):
    """Bad input: one line that names the key or file, what was found, what is allowed, and what to do.

    The command line prints the message without a traceback and exits with `status`.
    """

    status = 2


class PartlyError(UserError):
    """Some trainings failed; the others are complete."""

    status = 3


class StoppedError(UserError):
    """The user or the system has stopped a training; its state is saved.

    The exit status is the same as if the signal had killed the process.
    """

    def __init__(self, message: str, by: signal.Signals) -> None:
        super().__init__(message)
        self.status = 128 + by


def full_disk(error: BaseException, *folders: Path) -> str | None:
    """The message for a full disk, a quota or a limit of file sizes; None if the error has another cause.

    Args:
        folders: the folders that were written to; the message names the one with the least free space.
    """
    reason = _no_room(error)
    if reason is None:
        return None
    from rich import filesize  # Imported here: a logged model has this module, but perhaps not rich.

    free, folder = min((_free(folder), folder) for folder in folders)
    return (
        f"{folder}: {reason} ({filesize.decimal(free)} free); free some space, then run the same command "
        "again, and it finishes"
    )


def _no_room(error: BaseException | None) -> str | None:
    """The system's message, if this error or one of its causes says that there is no space."""
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
    """Free bytes on the disk of a folder; the folder may not exist yet."""
    found = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(found).free
