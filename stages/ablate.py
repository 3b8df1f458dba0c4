"""ablate: one student, taught by a variant of AttnFD, trained and evaluated."""

from attnfd import processes, results, training
from attnfd.config import Params
from attnfd.paths import Cell
from attnfd.resume import Checkpoints
from stages.distill import distill
from stages.evaluate import evaluate


def ablate(
    params: Params, cell: Cell, log: training.Log, checkpoints: Checkpoints
) -> tuple[str, results.Evaluated | None]:
    """Train like `distill` and evaluate like `evaluate`, in one command and into one folder.

    Of several processes only the first evaluates.
    """
    fingerprint = distill(params, cell, log, checkpoints)
    return fingerprint, evaluate(params, cell) if processes.rank() == 0 else None
