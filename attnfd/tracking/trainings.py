"""Trainings as the commands do them: each with its checkpoints, and in a run of its own."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from attnfd.config.params import Params
from attnfd.errors import PartlyError, UserError
from attnfd.paths import Cell
from attnfd.runtime import processes
from attnfd.runtime.fabric import chosen_precision
from attnfd.tracking import inputs, runs
from attnfd.training.loop import Tracked

if TYPE_CHECKING:
    from attnfd.results.write import Evaluated

Stage = Callable[[Params, Sequence[Tracked]], "Sequence[str | tuple[str, Evaluated | None] | UserError]"]
"""Trains cells and tells of each the fingerprint of its weights, with an evaluation if it made one, or the
error that ended the training.
"""


def train(params: Params, cells: Sequence[Cell], stage: Stage) -> None:
    """Train cells by their stage, which is imported by now; what fails stops none of the others.

    Raises:
        UserError: the training failed, or the cells cannot be trained together.
        PartlyError: some of several trainings failed; the others are complete.
    """
    if len(set(cells)) < len(cells):
        raise UserError(f"{_names(cells)}: found one twice; allowed: each once")
    if len(cells) > 1 and processes.count() > 1:
        raise UserError(f"torchrun: found {len(cells)} trainings in one command; allowed: one")
    failed: dict[Cell, UserError] = {}
    checkpoints = [inputs.checkpoints(params, cell) for cell in cells]
    with ExitStack() as claimed:
        # In one order everywhere, or two groups of trainings could wait for each other.
        for kept in sorted(checkpoints, key=lambda kept: kept.folder):
            claimed.enter_context(kept.alone())
        with ExitStack() as opened:
            tracks = [
                opened.enter_context(runs.open_run(cell, _settings(params, cell), kept))
                for cell, kept in zip(cells, checkpoints, strict=True)
            ]
            outcomes = stage(params, [Tracked(*one) for one in zip(cells, tracks, checkpoints, strict=True)])
            for cell, run, outcome in zip(cells, tracks, outcomes, strict=True):
                if isinstance(outcome, UserError):
                    run.close("FAILED")
                    failed[cell] = outcome
                    continue
                weights, evaluated = outcome if isinstance(outcome, tuple) else (outcome, None)
                run.trained(weights)
                if evaluated is not None:
                    run.evaluated(evaluated)
        for cell, kept in zip(cells, checkpoints, strict=True):
            if cell not in failed:
                kept.clear()
    if failed and len(cells) == 1:
        raise failed[cells[0]]
    if failed:
        reasons = "; ".join(f"{cell.name}: {error}" for cell, error in failed.items())
        raise PartlyError(f"{len(failed)} of {len(cells)} failed, the others are complete: {reasons}")


def _settings(params: Params, cell: Cell) -> dict[str, Any]:
    """The cell's settings, with the precision that `auto` stands for on this machine."""
    settings = params.resolve(cell)
    training = settings["distill" if cell.student else "train_teacher"]
    training["precision"] = chosen_precision(training["precision"])
    return settings


def _names(cells: Sequence[Cell]) -> str:
    return ", ".join(cell.name for cell in cells)
