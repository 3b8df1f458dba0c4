"""Every figure of a report, with the sentences that stand below it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from attnfd import paths
from attnfd.analysis import statistics, tables
from attnfd.analysis.reading import need, reading
from attnfd.data.prepared import Prepared
from attnfd.paths import TEACHER, Cell
from attnfd.report import figures
from attnfd.results import examples, pictures, style

EVEN, DIFFERENT = 3, 3
"""Images of a student's overlays: spread evenly, and chosen because its methods disagree."""


class Picture(NamedTuple):
    """A figure and its caption, plain text."""

    figure: Figure
    caption: str


def draw(
    prepared: Prepared,
    cells: Sequence[Cell],
    comparison: pd.DataFrame,
    ablation: pd.DataFrame,
    settings: pd.DataFrame,
    curves: pd.DataFrame,
) -> dict[str, Picture]:
    """Every figure by the name of its file, in the order of the report; one without its methods is left out.

    Args:
        cells, comparison, ablation, settings, curves: of the functions of `attnfd.analysis.tables`.

    Raises:
        UserError: a cell has no results yet.
    """
    rivals = runners_up(comparison)
    per_class = tables.per_class(cells)
    drawn = {
        "comparison": Picture(
            figures.comparison(comparison),
            "Mean mIoU of every method, ± its sample standard deviation over the seeds, and the difference "
            "to the undistilled student (none), where the stems start. The scale does not start at 0.",
        ),
        "sizes": Picture(
            figures.sizes(comparison),
            "Mean mIoU, ± its standard deviation, over the number of parameters and the multiply-adds "
            "of an image. Both are the same for all methods of a student, which are drawn beside each other.",
        ),
        "curves": Picture(
            figures.curves(curves, rivals),
            "Training cross-entropy and validation mIoU over the epochs, mean over the seeds with their "
            "range as a band. Named are none, AttnFD and its runner-up.",
        ),
        "per_class": Picture(
            figures.per_class(per_class),
            "IoU of every class in per cent, mean over the seeds. An empty cell is below 0.5, or the class "
            "occurs neither in the ground truth nor in the prediction.",
        ),
    }
    if not ablation.empty:
        drawn["ablation"] = Picture(
            figures.ablation(ablation),
            "Mean mIoU, ± its standard deviation, of AttnFD's variants. The dots stand for backbone, encoder "
            "and decoder; a full one is distilled. The scale does not start at 0.",
        )
    if not settings.empty:
        drawn["settings"] = Picture(
            figures.settings(settings),
            "Mean mIoU, ± its standard deviation, of AttnFD with the settings of the table changed, and the "
            "difference to AttnFD as it is, where the stems start. The scale does not start at 0.",
        )
    if "attnfd" in set(comparison["method"]) and rivals:
        drawn["gains"] = Picture(
            figures.gains(per_class, rivals),
            "IoU of AttnFD minus that of its runner-up, the other method with the best mean mIoU of that "
            "student: mean over the seeds and, as a line, ± the standard deviation of the difference. "
            f"Of more than {style.MANY} classes those that gain most, then those that gain least.",
        )
    drawn["confusion"] = _confusion(prepared, cells, comparison)
    for student in dict.fromkeys(cell.student for cell in cells if cell.student and not cell.variant):
        chosen = [
            cell
            for method in dict.fromkeys(("none", rivals.get(student), "attnfd"))
            if (cell := _first(cells, student, method))
        ]
        drawn[f"overlays_{student}"] = _overlays(prepared, [*chosen, cells[0]])
        if chosen[-1].method == "attnfd":
            drawn[f"attention_{student}"] = _attention(prepared, chosen[-1])
    return drawn


def runners_up(comparison: pd.DataFrame) -> dict[str, str]:
    """Of every student the method with the best mean mIoU beside AttnFD, if there is another one."""
    others = comparison[(comparison["student"] != TEACHER) & (comparison["method"] != "attnfd")]
    best = others.sort_values("miou", ascending=False, kind="stable").drop_duplicates("student")
    return dict(zip(best["student"], best["method"], strict=True))


def _confusion(prepared: Prepared, cells: Sequence[Cell], comparison: pd.DataFrame) -> Picture:
    """The best student's confusions beside the teacher's."""
    students = comparison[comparison["student"] != TEACHER]
    best = students.sort_values("miou", ascending=False, kind="stable").iloc[0]
    matrices = {
        f"{best['student']}, {best['method']}": np.add.reduce(
            [
                _matrix(cell)
                for cell in cells
                if (cell.student, cell.method, cell.variant) == (best["student"], best["method"], None)
            ]
        ),
        TEACHER: _matrix(cells[0]),
    }
    return Picture(
        pictures.confusion(matrices, prepared.card.classes),
        "What the pixels of a class are taken for, in per cent of the class, by the student and method with "
        "the best mean mIoU, its seeds together, and by the teacher.",
    )


def _overlays(prepared: Prepared, chosen: Sequence[Cell]) -> Picture:
    """Predictions of a student's methods and of the teacher, on images that a rule picks."""
    ids = list(_arrays(chosen[-1], paths.PREDICTIONS, ()))
    maps = {cell.method or TEACHER: _arrays(cell, paths.PREDICTIONS, ids) for cell in chosen}
    kept = examples.read(prepared, list(maps[TEACHER]))
    preds = {title: np.stack([of_cell[id] for id in kept.ids]) for title, of_cell in maps.items()}
    even = examples.evenly(EVEN, len(kept.ids))
    of_methods = [pred for title, pred in preds.items() if title != TEACHER]
    count = DIFFERENT if len(of_methods) > 1 else 0
    different = examples.most_different(of_methods, kept.targets, count, besides=even)
    at = [*even, *different]
    figure = pictures.overlays(
        kept.at(at),
        {title: pred[at] for title, pred in preds.items()},
        prepared.card.classes,
        prepared.card.palette,
        [*["evenly\nspread"] * len(even), *["most\ndifferent"] * len(different)],
    )
    caption = (
        f"Predictions of {chosen[0].student}, seed {chosen[0].seed}, and of the teacher. Rows: {len(even)} "
        f"of {len(kept.ids)} {'test' if prepared.reported == 'test' else 'validation'} images, evenly spread"
    )
    if different:
        caption += f"; then {len(different)} more, on which these methods disagree most, right or wrong"
    return Picture(figure, f"{caption}.")


def _attention(prepared: Prepared, cell: Cell) -> Picture:
    """What the attention of the teacher and of its student looks at."""
    maps = _arrays(cell, paths.ATTENTION, ("ids",))
    shown = examples.read(prepared, maps.pop("ids").tolist())
    return Picture(
        pictures.attention(shown.images, maps),
        f"Energy (mean square over the channels) of the features of the teacher and of {cell.student} "
        f"taught by AttnFD, seed {cell.seed}: raw, and refined by attention, which the student has in "
        "training only; each map from its own 2nd percentile (dark) to its 98th (bright). Agreement: the "
        "cosine of both networks' refined features at every position, from 0 (dark) to 1 (bright). With "
        "normalize: channel that is all that the loss sees: energies need not agree, and spatial gates "
        "behind the connector learn nothing.",
    )


def _first(cells: Sequence[Cell], student: str, method: str | None) -> Cell | None:
    """The first seed of a student's method."""
    wanted = student, method, None
    return next((cell for cell in cells if (cell.student, cell.method, cell.variant) == wanted), None)


def _matrix(cell: Cell) -> NDArray[np.int64]:
    file = tables.existing(cell, cell.results / paths.CONFUSION)
    return statistics.read(file, file.as_posix()).matrices.sum(0, dtype=np.int64)


def _arrays(cell: Cell, name: str, needed: Sequence[str]) -> dict[str, Any]:
    file = tables.existing(cell, cell.results / name)
    with reading(file.as_posix()), np.load(file) as stored:
        need(needed, stored)
        return dict(stored)
