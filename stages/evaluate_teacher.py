"""evaluate_teacher: the trained teacher on the evaluation split at original size."""

from attnfd.config.params import Params
from attnfd.data.prepared import open_prepared
from attnfd.models import checkpoint
from attnfd.paths import HISTORY, Cell
from attnfd.results import write
from attnfd.results.attention import energies
from attnfd.runtime.fabric import start_fabric


def evaluate_teacher(params: Params, cell: Cell) -> write.Evaluated:
    """Write the teacher's metrics, per-class table and pictures into its results folder."""
    prepared = open_prepared(params, cell.dataset)
    teacher = checkpoint.load(cell.model)[0].to(start_fabric("32-true").device)
    prepared.check_classes(teacher.info.classes, cell.model)
    evaluated = write.evaluate(teacher, prepared, params.evaluate(cell.dataset), cell.results)
    write.write_curves(cell.results, cell.model / HISTORY)
    write.write_attention(cell.results, evaluated, {"teacher": energies(teacher, evaluated.images)})
    return evaluated
