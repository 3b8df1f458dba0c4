"""evaluate_teacher: evaluate the trained teacher on the reported split at original size."""

from collections.abc import Sequence

from attnfd.config.task import Task
from attnfd.data.prepared import open_prepared
from attnfd.models import checkpoint
from attnfd.paths import HISTORY
from attnfd.results import write
from attnfd.results.attention import energies
from attnfd.runtime.fabric import start_fabric


def evaluate_teacher(tasks: Sequence[Task]) -> list[write.Evaluated]:
    """Write metrics, per-class table and pictures of each teacher into its results folder."""
    return [_evaluate(task) for task in tasks]


def _evaluate(task: Task) -> write.Evaluated:
    cell = task.cell
    prepared = open_prepared(task.params, cell.dataset)
    teacher = checkpoint.load(cell.model)[0].to(start_fabric("32-true").device)
    prepared.check_classes(teacher.info.classes, cell.model)
    evaluated = write.evaluate(teacher, prepared, task.settings.evaluate, cell.results)
    write.write_curves(cell.results, cell.model / HISTORY)
    write.write_attention(cell.results, evaluated, {"teacher": energies(teacher, evaluated.images)})
    return evaluated
