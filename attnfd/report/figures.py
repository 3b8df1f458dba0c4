"""Charts of a dataset's results; every function returns a figure and saves nothing."""

from collections.abc import Iterable

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from attnfd.report.style import INK, colours, markers, styled
from attnfd.report.tables import TEACHER, signed, spread

TEACHER_LINE = {"color": INK, "linewidth": 1, "linestyle": (0, (4, 3))}


@styled
def comparison(table: pd.DataFrame) -> Figure:
    """Mean mIoU of every method, its deviation over the seeds, and the teacher's; a panel per student.

    Args:
        table: of `attnfd.report.tables.comparison`.
    """
    teacher = 100 * table.loc[table["student"] == TEACHER, "miou"].item()
    methods, panels = _methods(table), _students(table)
    colour = colours(methods)
    figure = Figure((0.8 + 4.4 * len(panels), 1.0 + 0.34 * len(methods)))
    all_axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (student, rows) in zip(all_axes, panels.items(), strict=True):
        miou, std = 100 * rows["miou"], 100 * rows["miou_std"]
        axes.barh(rows["method"], miou, height=0.66, color=rows["method"].map(colour))
        axes.errorbar(miou, rows["method"], xerr=std, fmt="none", ecolor=INK, elinewidth=1, capsize=2.5)
        axes.axvline(teacher, **TEACHER_LINE)
        for row in rows.to_dict("records"):
            text = f"{spread(row['miou'], row['miou_std'])}  {signed(row['difference'])}"
            axes.text(1.02, row["method"], text, transform=axes.get_yaxis_transform(), va="center", size=8)
        axes.set(xlabel="mIoU, %", xlim=(0, None))
        axes.set_title(student)
        axes.grid(axis="y", visible=False)
    all_axes[0].invert_yaxis()
    _legend(figure, all_axes[0].plot([], [], label="teacher", **TEACHER_LINE))
    return figure


@styled
def curves(history: pd.DataFrame) -> Figure:
    """Cross-entropy and validation mIoU over the epochs: mean over the seeds, and their range as a band.

    Args:
        history: of `attnfd.report.tables.curves`; ablations are left out.
    """
    history = history[history["variant"] == ""]
    columns = {TEACHER: history[history["student"] == TEACHER], **_students(history)}
    methods = _methods(history)
    colour = {"": INK, **colours(methods)}
    figure = Figure((0.6 + 3.4 * len(columns), 5.2))
    all_axes = figure.subplots(2, len(columns), sharex="col", sharey="row", squeeze=False)
    for (upper, lower), (student, rows) in zip(all_axes.T, columns.items(), strict=True):
        upper.set_title(student)
        for method in rows["method"].unique():
            of_method = rows[rows["method"] == method]
            _line(upper, of_method, "ce", 1, colour[method], method)
            _line(lower, of_method, "miou", 100, colour[method], method)
        lower.set_xlabel("epoch")
        lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    all_axes[0, 0].set(ylabel="training cross-entropy", ylim=(0, None))
    all_axes[1, 0].set(ylabel="validation mIoU, %", ylim=(0, None))
    _legend(figure, all_axes[0, -1].lines)
    return figure


@styled
def per_class(table: pd.DataFrame) -> Figure:
    """IoU of every class, mean over the seeds: a panel per student, a mark per method, the teacher as a line.

    Args:
        table: of `attnfd.report.tables.per_class`; ablations are left out.
    """
    table = table[table["variant"] == ""]
    methods, classes = _methods(table), list(table["class"].unique())
    colour, marker = colours(methods), markers(methods)
    means = 100 * table.groupby(["student", "method", "class"], sort=False)["iou"].mean()
    panels = _students(table)
    figure = Figure((1.2 + 4.0 * len(panels), 1.2 + 0.27 * len(classes)))
    all_axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axes, student in zip(all_axes, panels, strict=True):
        axes.plot(means[TEACHER, ""][classes], classes, "|", color=INK, markersize=13, label="teacher")
        for method in methods:
            iou = means[student, method][classes]
            size = 7 if method in ("none", "attnfd") else 5
            axes.plot(
                iou, classes, marker[method], color=colour[method], markersize=size, label=method, alpha=0.9
            )
        axes.set(title=student, xlabel="IoU, %", xlim=(-2, 102))
    all_axes[0].invert_yaxis()
    _legend(figure, all_axes[0].lines)
    return figure


def _students(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    students = table[table["student"] != TEACHER]
    return {str(student): rows for student, rows in students.groupby("student", sort=False)}


def _methods(table: pd.DataFrame) -> list[str]:
    return list(table.loc[table["student"] != TEACHER, "method"].unique())


def _line(axes: Axes, rows: pd.DataFrame, column: str, scale: float, colour: str, method: str) -> None:
    values = scale * rows.dropna(subset=column).groupby("epoch")[column].agg(["mean", "min", "max"])
    axes.plot(values.index, values["mean"], marker=".", markersize=4, color=colour, label=method)
    axes.fill_between(values.index, values["min"], values["max"], color=colour, alpha=0.15, linewidth=0)


def _legend(figure: Figure, handles: Iterable[Artist]) -> None:
    figure.legend(handles=list(handles), loc="outside lower center", ncols=6)
