"""Going on with an unfinished training: its state, kept where DVC does not remove it.

A checkpoint belongs to a cell and to everything that the cell's model follows from. Start the same cell with
the same inputs again and it goes on, on a CPU bit for bit as if nothing had happened; change an input and
it starts afresh.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from attnfd import paths, processes
from attnfd.config import Params
from attnfd.data.prepared import open_prepared
from attnfd.errors import StoppedError, UserError
from attnfd.models import checkpoint
from attnfd.paths import Cell

KEPT = 2
"""Checkpoints of a training: the newest, and the one before in case the disk has lost it."""

AGREE_STEPS = 10
"""Several processes agree on a stop once in so many steps, as each time they wait for each other."""

OF_THE_COMMAND = ("attnfd.__main__", "attnfd.cli", "attnfd.preflight", "attnfd.resume", "attnfd.tracking")
"""Modules that start and record a training, but change nothing in it."""


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


def checkpoints(params: Params, cell: Cell) -> Checkpoints:
    """Checkpoints of a cell with its inputs as they are now; call it with the stage imported.

    Inputs are what DVC tracks for the cell: settings, data, the frozen teacher's weights and the modules of
    this project that the process has imported; and the version of torch.

    Raises:
        UserError: the cell's inputs are not there.
    """
    inputs = {
        "settings": params.resolve(cell),
        "data": open_prepared(params, cell.dataset).card.sha256,
        "teacher": None if cell.student is None else checkpoint.fingerprint(paths.frozen(cell.dataset)),
        "code": _code(cell),
        "torch": torch.__version__,
    }
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
    return Checkpoints(paths.checkpoints(cell) / key)


def _code(cell: Cell) -> dict[str, str]:
    """SHA-256 of every imported module that a training's result can depend on."""
    methods = "attnfd.distillers."
    own = (methods + "base", methods + str(cell.method))  # The others are of cells that train beside it.
    return {
        name: hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest()
        for name, module in sorted(sys.modules.items())
        if name.startswith(("attnfd.", "stages."))
        and not name.startswith(OF_THE_COMMAND)
        and (not name.startswith(methods) or name in own)
        and getattr(module, "__file__", None)
    }


def _sync(folder: Path) -> None:
    """Make a rename last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


RandomState = Mapping[str, Any]


def random_state() -> RandomState:
    """States of the global generators of Python, NumPy and torch, on every device."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if _gpu_is_there() else [],
    }


def set_random_state(state: RandomState) -> None:
    """Bring the generators where `random_state` found them."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


@cache
def _gpu_is_there() -> bool:
    # Asked anew, it takes as long as all the rest of a random state.
    return torch.cuda.is_available()


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
                f"stopped by {self.agreed.name} after {where}; start the same again, and it goes on",
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
