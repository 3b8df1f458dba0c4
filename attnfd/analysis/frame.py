"""Results of a dataset as a data frame, for a notebook."""

from pathlib import Path

import pandas as pd

from attnfd import discovery, paths
from attnfd.analysis import tables
from attnfd.errors import UserError
from attnfd.paths import TEACHER, Cell

ROOTS = (paths.RESULTS, paths.ABLATION)


def results(dataset: str) -> pd.DataFrame:
    """Every evaluated model of a dataset in the working directory, one row each.

    Columns: `cell`, `student` (or `teacher`), `method`, `variant`, `seed`, the scores between 0 and 1,
    `parameters`, `multiply_adds`, `images`, `collapsed`, and `confusion`, the file of confusion matrices.

    Raises:
        TypeError: `dataset` is not a string.
        UserError: the dataset has no results here, or they are damaged.
    """
    if not isinstance(dataset, str):
        raise TypeError(f"results: found {dataset!r}; pass the name of a dataset, such as 'shapes'")
    found = _evaluated()
    if not found:
        raise UserError(f"results: found none below {Path.cwd()}; run dvc repro, or dvc pull")
    discovery.one_of(dataset, tuple(sorted({cell.dataset for cell in found})), "results")
    frame = tables.results([cell for cell in found if cell.dataset == dataset])
    frame["seed"] = pd.to_numeric(frame["seed"]).astype("Int64")
    return frame


def _evaluated() -> list[Cell]:
    """The cells that have results, teachers first."""
    folders = [file.parent for root in ROOTS for file in sorted(root.rglob(paths.METRICS))]
    named = [folder for folder in folders if folder.name == TEACHER or folder.name.isdecimal()]
    return sorted(map(Cell.of_folder, named), key=lambda cell: cell.student is not None)
