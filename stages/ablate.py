"""ablate: one student, taught by a variant of AttnFD, trained and evaluated; or several, as in distill."""

from collections.abc import Sequence

from attnfd.config.params import Params
from attnfd.errors import UserError
from attnfd.results import write
from attnfd.runtime import processes
from attnfd.training.loop import Tracked
from stages.distill import distill
from stages.evaluate import evaluate

Outcome = tuple[str, write.Evaluated | None] | UserError


def ablate(params: Params, tracked: Sequence[Tracked]) -> list[Outcome]:
    """Train like `distill` and evaluate like `evaluate`, in one command and into one folder.

    Of several processes only the first evaluates.
    """
    found: list[Outcome] = []
    for (cell, _, _), outcome in zip(tracked, distill(params, tracked), strict=True):
        if isinstance(outcome, UserError):
            found.append(outcome)
        else:
            found.append((outcome, evaluate(params, cell) if processes.rank() == 0 else None))
    return found
