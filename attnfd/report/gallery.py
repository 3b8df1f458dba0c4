"""Every figure of a report, with its caption."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from attnfd import paths
from attnfd.analysis import statistics, tables
from attnfd.analysis.reading import need, reading
from attnfd.config.schema import LAYERS
from attnfd.data.prepared import Prepared
from attnfd.evaluation.metrics import scores
from attnfd.paths import TEACHER, Cell
from attnfd.report import figures, panels, selection
from attnfd.report.names import Names
from attnfd.results import examples, pictures, style


class Picture(NamedTuple):
    """A figure and its caption in plain text; a folded one is visible only after the reader opens it."""

    figure: Figure
    caption: str
    folded: bool = False


def draw(
    prepared: Prepared,
    cells: Sequence[Cell],
    names: Names,
    frames: Mapping[str, pd.DataFrame],
) -> dict[str, Picture]:
    """Every figure by the name of its file, in the order of the report.

    A figure is left out if its methods did not run.

    Args:
        frames: `comparison`, `ablation`, `settings`, `curves` and `per_class` from the functions of
            `attnfd.analysis.tables`; `hours` from `attnfd.report.budget.with_hours`; if there are trials,
            `tuning` from `attnfd.analysis.trials`; if there are students in equal time, `equal_time`.

    Raises:
        UserError: a cell has no results yet.
    """
    return {**_charts(names, frames), **_pictures(prepared, cells, names, frames["comparison"])}


def _charts(names: Names, frames: Mapping[str, pd.DataFrame]) -> dict[str, Picture]:
    comparison, per_class = frames["comparison"], frames["per_class"]
    several = bool(comparison["seeds"].max() > 1)
    drawn = {
        "comparison": Picture(
            figures.comparison(comparison, names),
            f"mIoU of every method{', mean over the seeds' * several}, the best first. "
            f"A stem starts at the student without distillation. {_interval(comparison)}",
        ),
        "sizes": Picture(
            figures.sizes(comparison, names),
            "mIoU over the multiply-adds of an image. An arrow leads from the student without distillation "
            "to the same student with AttnFD; its cost after training does not change.",
        ),
        "curves": Picture(
            figures.curves(frames["curves"], runners_up(comparison), names),
            "Training loss and validation mIoU over the epochs. Solid: cross-entropy; dotted: the method's "
            "own terms, as they enter the loss."
            + " Lines are means over the seeds, bands their range."
            * several,
        ),
        "per_class": Picture(
            figures.per_class(per_class, names),
            "IoU of every class in per cent. Classes that gain most from AttnFD come first. In an empty "
            "cell, the IoU is below 0.5, or the class does not occur.",
        ),
    }
    if "equal_time" in frames:
        drawn["equal_time"] = Picture(
            figures.comparison(frames["equal_time"], names),
            "mIoU of every method in equal time, the best first. A stem starts at the student without "
            f"distillation, which was trained in more epochs. {_interval(frames['equal_time'])}",
        )
    if not frames["hours"].empty:
        drawn["hours"] = Picture(
            figures.hours(frames["hours"], names),
            "Validation mIoU over the time of training, a curve for every method"
            f"{', mean over the seeds' * several}. The learning rate falls to 0 at the end of each curve, so "
            "its earlier points are not what a shorter training would reach.",
        )
    if not frames["ablation"].empty:
        drawn["ablation"] = Picture(
            figures.ablation(frames["ablation"], names),
            f"mIoU of AttnFD by the layers that it distils. {_interval(frames['ablation'])}",
        )
    if not frames["settings"].empty:
        drawn["settings"] = Picture(
            figures.settings(frames["settings"], names),
            "mIoU of AttnFD with other settings, the best first. A stem starts at AttnFD with its own "
            f"settings; the table says what each variant changes. {_interval(frames['settings'])}",
        )
    if "tuning" in frames:
        drawn["tuning"] = Picture(
            figures.tuning(frames["tuning"], names),
            "Trials: mean mIoU on training images that were held out, over the factor of each method's "
            "weight. A ring marks the factor that attnfd choose takes.",
        )
    if _both(comparison):
        drawn["gains"] = Picture(
            figures.gains(per_class, names),
            "IoU of every class by AttnFD minus that without distillation, the largest gain first. Hatched: "
            f"losses.{' The line is ± the standard deviation over the seeds.' * several} With more than "
            f"{style.MANY} classes, only those that gain most and least are shown.",
        )
    return drawn


def _interval(frame: pd.DataFrame) -> str:
    over = "seeds and images" if frame["seeds"].max() > 1 else "images"
    return f"The band is the 95 % interval of the difference, over {over}. The scale does not start at 0."


def _both(comparison: pd.DataFrame) -> bool:
    """Whether a student has both AttnFD and no distillation."""
    found = comparison.groupby("student")["method"].agg(set)
    return any({"none", "attnfd"} <= methods for methods in found)


def _pictures(
    prepared: Prepared, cells: Sequence[Cell], names: Names, comparison: pd.DataFrame
) -> dict[str, Picture]:
    rivals = runners_up(comparison)
    drawn = {"confusion": _confusion(prepared, cells, names, comparison)}
    for student in dict.fromkeys(cell.student for cell in cells if cell.student and not cell.variant):
        methods = dict.fromkeys(("none", rivals.get(student), "attnfd"))
        chosen = [cell for method in methods if (cell := _first(cells, student, method))]
        drawn[f"predictions_{student}"] = _predictions(prepared, [*chosen, cells[0]], names)
        if chosen[-1].method == "attnfd":
            for name, picture in _attention(prepared, chosen[-1], names):
                drawn[f"{name}_{student}"] = picture
    return drawn


def runners_up(comparison: pd.DataFrame) -> dict[str, str]:
    """For every student, the method with the best mean mIoU except AttnFD, if there is another one."""
    others = comparison[(comparison["student"] != TEACHER) & (comparison["method"] != "attnfd")]
    best = others.sort_values("miou", ascending=False, kind="stable").drop_duplicates("student")
    return dict(zip(best["student"], best["method"], strict=True))


def _confusion(prepared: Prepared, cells: Sequence[Cell], names: Names, comparison: pd.DataFrame) -> Picture:
    """The confusions of the best student and of the teacher, side by side."""
    students = comparison[comparison["student"] != TEACHER]
    best = students.sort_values("miou", ascending=False, kind="stable").iloc[0]
    wanted = best["student"], best["method"], None
    of_best = [cell for cell in cells if (cell.student, cell.method, cell.variant) == wanted]
    matrices = {
        f"{names.student(best['student'])}, {names.method(best['method'])}": np.add.reduce(
            [_matrices(cell).matrices.sum(0, dtype=np.int64) for cell in of_best]
        ),
        f"{names.student(TEACHER)}, {TEACHER}": _matrices(cells[0]).matrices.sum(0, dtype=np.int64),
    }
    return Picture(
        pictures.confusion(matrices, prepared.card.classes),
        "How the pixels of each class are predicted, in per cent of the class. Left: the student and method "
        f"with the best mIoU{', all seeds together' * (len(of_best) > 1)}; right: the teacher.",
    )


def _predictions(prepared: Prepared, chosen: Sequence[Cell], names: Names) -> Picture:
    """Predictions of a student by method, with AttnFD last if it ran, and of the teacher."""
    *students, teacher = chosen
    kept = list(_arrays(teacher, paths.PREDICTIONS, ()))
    mious = {cell: _mious(cell, kept) for cell in chosen}
    none = next((mious[cell] for cell in students[:-1] if cell.method == "none"), None)
    images = selection.choose(mious[students[-1]], none)
    shown = examples.read(prepared, [image.id for image in images])
    columns = {}
    for cell in chosen:
        maps = _arrays(cell, paths.PREDICTIONS, kept)
        title = names.method(cell.method or "")
        of_cell = mious[cell].loc[shown.ids].tolist()
        columns[title] = panels.Column(np.stack([maps[id] for id in shown.ids]), of_cell)
    judged = names.method(str(students[-1].method))
    figure = panels.predictions(
        shown,
        columns,
        judged,
        [image.reason for image in images],
        prepared.card.classes,
        prepared.card.palette,
    )
    split = "test" if prepared.reported == "test" else "validation"
    return Picture(
        figure,
        f"Predictions of {names.student(str(students[0].student))} and of the teacher. The images are chosen "
        f"from the {len(kept)} {split} images that evaluate stored: two that are typical of {judged}, the "
        "largest gains and the largest loss compared with no distillation, and the lowest score; no image "
        f"is shown twice. Below each prediction is the mIoU of this image. Right: wrong pixels of {judged}. "
        f"Seed {students[0].seed}.",
    )


def _mious(cell: Cell, ids: Sequence[str]) -> pd.Series:
    """mIoU of single images, by id."""
    found = _matrices(cell)
    mious = pd.Series([scores(matrix)["miou"] for matrix in found.matrices], index=found.ids.tolist())
    with reading((cell.results / paths.CONFUSION).as_posix()):
        need(ids, mious.index)
    return mious.loc[list(ids)]


def _attention(prepared: Prepared, cell: Cell, names: Names) -> Iterator[tuple[str, Picture]]:
    """Where the attention of the teacher and of its student looks: at the last layer, then at all layers."""
    maps = _arrays(cell, paths.ATTENTION, ("ids",))
    shown = examples.read(prepared, maps.pop("ids").tolist())
    found = {name.split("/")[1] for name in maps}
    layers = [layer for layer in LAYERS if layer in found]
    student = names.student(str(cell.student))
    caption = (
        "Energy (mean square over the channels) of the features of the teacher and of "
        f"{student} with AttnFD, raw and refined by attention"
    )
    figure = panels.attention(shown.images, maps, layers[-1:], student)
    yield (
        "attention",
        Picture(
            figure,
            f"{caption}, at the {layers[-1]}. Each map has its own scale, from its 2nd to its 98th "
            "percentile. Agreement is the cosine between the refined features of both networks. With "
            "normalize: channel, the loss depends only on this cosine, so energies may differ. Components: "
            "the first three principal components of the refined features, each position's vector at length "
            "1, as red, green and blue. They are fitted to the teacher's features: where both networks have "
            "the same colour, their features agree. The student has attention only in training.",
        ),
    )
    if len(layers) > 1:
        yield (
            "attention_all",
            Picture(
                panels.attention(shown.images, maps, layers, student),
                f"{caption}, at every layer. With normalize: channel the spatial gates of the student get no "
                "gradient, so its refined maps keep their random weights.",
                folded=True,
            ),
        )


def _first(cells: Sequence[Cell], student: str, method: str | None) -> Cell | None:
    """The first seed of a student's method."""
    wanted = student, method, None
    return next((cell for cell in cells if (cell.student, cell.method, cell.variant) == wanted), None)


def _matrices(cell: Cell) -> statistics.Evaluation:
    file = tables.existing(cell, cell.results / paths.CONFUSION)
    return statistics.read(file, file.as_posix())


def _arrays(cell: Cell, name: str, needed: Sequence[str]) -> dict[str, Any]:
    file = tables.existing(cell, cell.results / name)
    with reading(file.as_posix()), np.load(file) as stored:
        need(needed, stored)
        return dict(stored)
