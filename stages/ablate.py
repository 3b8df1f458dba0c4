"""ablate: train and evaluate one student with a variant of AttnFD; or several, as in distill."""

from collections.abc import Sequence

from attnfd.config.task import Task
from attnfd.errors import UserError
from attnfd.results.write import Evaluated
from attnfd.runtime import processes
from stages.distill import distill
from stages.evaluate import evaluate

Outcome = tuple[str, Evaluated | None] | UserError


def ablate(tasks: Sequence[Task]) -> list[Outcome]:
    """Train like `distill` and evaluate like `evaluate`, in one command and into one folder.

    Of several processes only the first evaluates.

    Returns:
        For each task, the fingerprint of the student's weights and its evaluation, or the error that ended
        its training.
    """
    found: list[Outcome] = []
    for task, outcome in zip(tasks, distill(tasks), strict=True):
        if isinstance(outcome, UserError):
            found.append(outcome)
        else:
            found.append((outcome, evaluate([task])[0] if processes.rank() == 0 else None))
    return found
