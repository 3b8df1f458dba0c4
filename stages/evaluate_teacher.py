"""evaluate_teacher: the trained teacher on the evaluation split at original size."""

from attnfd import results
from attnfd.attention import energies
from attnfd.config import Params
from attnfd.data.prepared import open_prepared
from attnfd.models import checkpoint
from attnfd.paths import Cell


def evaluate_teacher(params: Params, cell: Cell) -> results.Evaluated:
    """Write metrics, per-class table, confusion matrices and pictures of the teacher into its results folder."""
    prepared = open_prepared(params, cell.dataset)
    teacher, _ = checkpoint.load(cell.model)
    evaluated = results.evaluate(teacher, prepared, params.evaluate(cell.dataset), cell.results)
    results.write_attention(
        cell.results, evaluated.images, {"teacher": energies(teacher, evaluated.images)}
    )
    return evaluated
