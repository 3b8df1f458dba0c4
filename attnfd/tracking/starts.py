"""The trained models that students start from. Models of the store are downloaded while they are needed."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attnfd import paths
from attnfd.config.schema import Student
from attnfd.models import checkpoint
from attnfd.students.student import STORED
from attnfd.tracking import exported


@contextmanager
def fetched(student: Student | None) -> Iterator[Path | None]:
    """The folder of the model that a student starts from, if its `weights` name a model of the store.

    Raises:
        UserError: the store does not answer, or has no such model.
    """
    if student is None or student.weights is None or not student.weights.startswith(STORED):
        yield None
        return
    with tempfile.TemporaryDirectory() as scratch:
        exported.fetch(student.weights, Path(scratch))
        yield Path(scratch)


def fingerprint(student: Student | None, fetched: Path | None) -> str | None:
    """Fingerprint of the weights that a student starts from; None if there are none or they are missing."""
    if student is None or student.weights is None:
        return None
    folder = fetched or paths.main_root() / Path(student.weights).expanduser()
    return checkpoint.fingerprint(folder) if (folder / paths.MODEL).is_file() else None
