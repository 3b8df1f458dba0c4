"""evaluate: evaluate a trained student on the reported split at original size."""

from collections.abc import Sequence

from attnfd import paths
from attnfd.config.task import Task
from attnfd.data.prepared import open_prepared
from attnfd.models import checkpoint
from attnfd.paths import HISTORY
from attnfd.results import write
from attnfd.results.attention import agreements, components, energies, pairs
from attnfd.runtime.fabric import start_fabric
from attnfd.students.student import load_distiller


def evaluate(tasks: Sequence[Task]) -> list[write.Evaluated]:
    """Write metrics, tables, confusion matrices and pictures of each student into its results folder."""
    return [_evaluate(task) for task in tasks]


def _evaluate(task: Task) -> write.Evaluated:
    cell, settings = task.cell, task.settings
    prepared = open_prepared(task.params, cell.dataset)
    device = start_fabric("32-true").device
    student = checkpoint.load(cell.model)[0].to(device)
    prepared.check_classes(student.info.classes, cell.model)
    # For the pictures of the attention of teacher and student.
    teacher = checkpoint.load(paths.frozen(cell.dataset))[0].to(device)
    distiller = load_distiller(cell, settings, student.info, teacher.info).to(device)

    evaluated = write.evaluate(student, prepared, settings.evaluate, cell.results)
    write.write_curves(cell.results, cell.model / HISTORY)
    maps = {
        "teacher": energies(teacher, evaluated.images),
        "student": energies(student, evaluated.images, distiller),
    }
    found = pairs(student, teacher, evaluated.images, distiller)
    write.write_attention(cell.results, evaluated, maps, agreements(found), components(found))
    return evaluated
