"""Going on with an unfinished training: its state, kept where DVC does not remove it.

A checkpoint belongs to a cell and to everything that the cell's model follows from. Start the same cell with
the same inputs again and it goes on, on a CPU bit for bit as if nothing had happened; change an input and
it starts afresh.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from attnfd.errors import UserError
from attnfd.runtime import processes

KEPT = 2
"""Checkpoints of a training: the newest, and the one before in case the disk has lost it."""


class Checkpoints:
    """The checkpoints of one training, files `<step>.pt` in a folder of their own.

    Args:
        folder: made when the first checkpoint is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def key(self) -> str:
        """Hash of the training's inputs."""
        return self.folder.name

    def files(self) -> list[Path]:
        """Complete checkpoints, the newest first."""
        return sorted(self.folder.glob("[0-9]*.pt"), reverse=True)

    def load(self) -> dict[str, Any] | None:
        """The newest state that can be read, or None. Never runs code out of a file."""
        for file in self.files():
            try:
                return torch.load(file, weights_only=True, map_location="cpu")
            except Exception:  # Whatever is wrong with it, the one before may serve.
                file.unlink(missing_ok=True)
        return None

    def save(self, state: Mapping[str, Any], step: int) -> None:
        """Write a state, all of it or nothing, and remove older ones.

        Raises:
            UserError: it cannot be written; the checkpoints before it are untouched.
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
            raise UserError(
                f"{file}: cannot be written ({error}); make room, then start the same again"
            ) from None
        for old in self.files()[KEPT:]:
            old.unlink()

    def clear(self) -> None:
        """Remove them all; the training is done."""
        if processes.rank() > 0:
            return
        shutil.rmtree(self.folder, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Make a rename last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
