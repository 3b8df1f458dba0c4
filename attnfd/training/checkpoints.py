"""Checkpoints, to resume an unfinished training. They are stored where DVC does not remove them.

A checkpoint belongs to a cell and to all inputs of its training. Start the same cell with the same inputs
again, and it resumes; on a CPU the result is the same bit for bit as without the interruption. Change an
input, and it starts from the beginning.
"""

import logging
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from attnfd.errors import UserError, full_disk
from attnfd.runtime import processes

KEPT = 2
"""How many checkpoints a training keeps: the newest, and the one before in case the newest is damaged."""

logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one training: files `<step>.pt` in their own folder.

    Args:
        folder: created when the first checkpoint is saved.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def key(self) -> str:
        """Hash of the training's inputs."""
        return self.folder.name

    def files(self) -> list[Path]:
        """Complete checkpoints, the newest first."""
        return sorted(self.folder.glob("[0-9]*.pt"), reverse=True)

    def load(self) -> dict[str, Any] | None:
        """The newest state that can be read, or None. Never runs code from a file."""
        for file in self.files():
            try:
                return torch.load(file, weights_only=True, map_location="cpu")
            except Exception:  # Whatever the reason, the checkpoint before may be valid.
                file.unlink(missing_ok=True)
        return None

    def save(self, state: Mapping[str, Any], step: int) -> None:
        """Write a state completely or not at all, then remove old ones.

        Raises:
            UserError: it cannot be written; the earlier checkpoints do not change.
        """
        file = self.folder / f"{step:09}.pt"
        unfinished = file.with_suffix(".unfinished")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as stream:
                torch.save(dict(state), stream)
                stream.flush()
                os.fsync(stream.fileno())
            unfinished.replace(file)
            _sync(self.folder)
        except (OSError, RuntimeError) as error:
            unfinished.unlink(missing_ok=True)
            full = full_disk(error, self.folder)
            why = f"in {full}" if full else f"({error}); fix that, then run the same command again"
            raise UserError(f"{file}: cannot be written {why}") from None
        for old in self.files()[KEPT:]:
            old.unlink()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait while another process trains the same cell from the same inputs.

        If that process dies, this one resumes its training. If it finishes, this one trains again.

        Raises:
            UserError: another process is training, and this training has several processes: they do not wait.
        """
        from filelock import FileLock, Timeout

        if processes.rank() > 0:
            yield
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        file = self.folder.with_name(f"{self.folder.name}.lock")
        lock = FileLock(file)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            other = f"process {_content(file)} trains this cell from the same inputs"
            if processes.count() > 1:
                raise UserError(f"{self.folder}: {other}; run the command again when it has ended") from None
            logger.warning("%s: %s; waiting for it to end", self.folder, other)
            lock.acquire(poll_interval=1)
        try:
            with suppress(PermissionError):  # Windows lets nobody write to a locked file.
                file.write_text(f"{os.getpid()} on {socket.gethostname()}", encoding="utf-8")
            yield
        finally:
            # Before the release: a waiting process sees that the file is gone and locks a new one.
            with suppress(PermissionError):  # Windows cannot remove an open file; the release removes it.
                file.unlink(missing_ok=True)
            lock.release()

    def clear(self) -> None:
        """Remove all checkpoints when the training is done."""
        if processes.rank() > 0:
            return
        shutil.rmtree(self.folder, ignore_errors=True)


def _content(file: Path) -> str:
    """The text of a file, or `?` if the file is gone."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return "?"


def _sync(folder: Path) -> None:
    """Make sure that a rename survives a power failure, on systems that can open a folder."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
