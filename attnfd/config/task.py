"""The input of a stage."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from attnfd.config.params import Params, Settings
from attnfd.paths import Cell

if TYPE_CHECKING:
    from attnfd.training.checkpoints import Checkpoints


class Log(Protocol):
    """Receives the curves of a training."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log values of one step or epoch."""

    def flush(self) -> None:
        """Write what is not written yet."""


class Silent:
    """A log that keeps nothing."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Not logged."""

    def flush(self) -> None:
        """Nothing to write."""


@dataclass(frozen=True)
class Task:
    """One cell for a stage to work on. Every stage is a function `stage(tasks) -> list`, an item per task.

    Attributes:
        params: the whole of `params.yaml`.
        cell: what to work on. Stages of a whole dataset use only its `dataset`.
        log: receives the curves of a training.
        checkpoints: those of the cell's training; None for stages that train nothing.
        start: folder of the model that the student starts from, if it comes from the tracking store.
    """

    params: Params
    cell: Cell
    log: Log = Silent()  # noqa: RUF009 - it has no state
    checkpoints: "Checkpoints | None" = None
    start: Path | None = None

    @property
    def own_checkpoints(self) -> "Checkpoints":
        """The checkpoints of a task that trains."""
        assert self.checkpoints is not None, "a task that trains needs checkpoints"
        return self.checkpoints

    @cached_property
    def settings(self) -> Settings:
        """The cell's settings, resolved once."""
        return self.params.resolve(self.cell)
