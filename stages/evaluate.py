"""evaluate: a trained student on the evaluation split at original size."""

from attnfd import discovery, paths
from attnfd.config.params import Params
from attnfd.data.prepared import open_prepared
from attnfd.models import checkpoint, weight_file
from attnfd.paths import DISTILLER, HISTORY, Cell
from attnfd.results import write
from attnfd.results.attention import agreements, energies
from attnfd.runtime.fabric import start_fabric


def evaluate(params: Params, cell: Cell) -> write.Evaluated:
    """Write a student's metrics, per-class table, confusion matrices and pictures into its results folder."""
    assert cell.method
    prepared = open_prepared(params, cell.dataset)
    device = start_fabric("32-true").device
    student = checkpoint.load(cell.model)[0].to(device)
    prepared.check_classes(student.info.classes, cell.model)
    # What the attention of teacher and student looks at; the student's own lies beside its weights.
    teacher = checkpoint.load(paths.frozen(cell.dataset))[0].to(device)
    method = params.method(cell.method, cell.dataset, cell.variant)
    distiller = discovery.component("distillers", cell.method)(
        method, student=student.info, teacher=teacher.info
    )
    state = weight_file.read(cell.model / DISTILLER)
    weight_file.check(state, distiller.state_dict(), str(cell.model / DISTILLER), f"methods.{cell.method}")
    distiller.load_state_dict(state)

    evaluated = write.evaluate(student, prepared, params.evaluate(cell.dataset), cell.results)
    write.write_curves(cell.results, cell.model / HISTORY)
    distiller.to(device)
    maps = {
        "teacher": energies(teacher, evaluated.images),
        "student": energies(student, evaluated.images, distiller),
    }
    agreement = agreements(student, teacher, evaluated.images, distiller)
    write.write_attention(cell.results, evaluated, maps, agreement)
    return evaluated
