"""evaluate: a trained student on the evaluation split at original size."""

from safetensors.torch import load_file

from attnfd import discovery, results
from attnfd.attention import energies
from attnfd.config import Params
from attnfd.data.prepared import open_prepared
from attnfd.models import checkpoint
from attnfd.paths import DISTILLER, Cell, frozen_folder


def evaluate(params: Params, cell: Cell) -> results.Evaluated:
    """Write metrics, per-class table, confusion matrices and pictures of a student into its results folder."""
    prepared = open_prepared(params, cell.dataset)
    student, _ = checkpoint.load(cell.model)
    evaluated = results.evaluate(student, prepared, params.evaluate(cell.dataset), cell.results)

    # What the attention of teacher and student looks at; the student's own lies beside its weights.
    teacher, _ = checkpoint.load(frozen_folder(cell.dataset))
    method = params.method(cell.method, cell.dataset, cell.variant)
    distiller = discovery.component("distillers", cell.method)(
        method, student=student.info, teacher=teacher.info
    )
    distiller.load_state_dict(load_file(cell.model / DISTILLER))
    maps = {
        "teacher": energies(teacher, evaluated.images),
        "student": energies(student, evaluated.images, distiller),
    }
    results.write_attention(cell.results, evaluated.images, maps)
    return evaluated
