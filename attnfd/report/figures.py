"""Charts of a dataset's results; every function returns a figure and saves nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from attnfd.analysis import statistics
from attnfd.config.schema import LAYERS
from attnfd.paths import TEACHER
from attnfd.report.budget import in_a_unit
from attnfd.report.names import Names
from attnfd.results.pictures import scale_curves, shade
from attnfd.results.style import (
    BASELINE,
    INK,
    MANY,
    OTHERS,
    OURS,
    PALE,
    QUIET,
    WIDTH,
    colours,
    markers,
    short,
    styled,
)

HIGHLIGHTED = ("none", "attnfd")
LOSS = OTHERS[0]
ROW, LOW_ROW, COLUMN = 0.25, 0.17, 0.34
"""In inches: height of a row of a chart, height of a row of a table of classes, width of its column."""
WIDEST = 7.5
"""The most inches of a table of classes; the panels of a wider one are below each other."""
NUMBERED = 4000
"""The most cells of a table of classes that also show numbers: each number takes a millisecond."""
PLACES = (1.1, 1.22, 1.34)
"""Positions of the columns to the right of a chart, in widths of the chart."""
SMALLEST_TERM = 1e-9
"""A share of cross-entropy. Smaller differences between loss and cross-entropy are rounding, not a term."""
INTERVAL = "95 % interval of the difference"


@styled
def comparison(table: pd.DataFrame, names: Names) -> Figure:
    """Mean mIoU of every method, the best on top, against the undistilled student and the teacher.

    Args:
        table: of `attnfd.analysis.tables.comparison`.
    """
    ranked = table.sort_values("miou", ascending=False, kind="stable")
    figure, all_axes = _scores(ranked, ranked["method"].map(names.method), names, list(_students(table)))
    teacher = 100 * table.loc[table["student"] == TEACHER, "miou"].item()
    for axes in all_axes:
        axes.axvline(teacher, color=INK, linewidth=1, linestyle=(0, (4, 3)), label=TEACHER)
    _legend(figure, all_axes)
    return figure


@styled
def ablation(table: pd.DataFrame, names: Names) -> Figure:
    """Mean mIoU of every variant, by the layers that it distils, in the order of the paper's Table 3.

    Args:
        table: of `attnfd.analysis.tables.ablation`.
    """
    distilled = table[list(LAYERS)].to_dict("records")
    labels = [
        " + ".join(layer for layer in LAYERS if row[layer]) or names.method("none") for row in distilled
    ]
    named = table.rename(columns={"variant": "method"})
    figure, all_axes = _scores(named, pd.Series(labels, table.index), names, list(_students(table)))
    _legend(figure, all_axes)
    return figure


@styled
def settings(table: pd.DataFrame, names: Names) -> Figure:
    """Mean mIoU of AttnFD with other settings, the best on top, against AttnFD with its own settings.

    Args:
        table: of `attnfd.analysis.tables.settings`.
    """
    ranked = table.rename(columns={"variant": "method"}).sort_values("miou", ascending=False, kind="stable")
    labels = ranked["method"].map(names.method)
    figure, all_axes = _scores(ranked, labels, names, list(_students(table)), "attnfd")
    _legend(figure, all_axes)
    return figure


@styled
def tuning(table: pd.DataFrame, names: Names) -> Figure:
    """Mean mIoU of the trials of every method over the factor of its weight; a ring marks the chosen factor.

    Args:
        table: of `attnfd.analysis.trials.table`.
    """
    figure = Figure((WIDTH, 3.2))
    axes = figure.subplots()
    colour = colours(list(table["method"].unique()))
    for method, rows in table.astype({"factor": float}).sort_values("factor").groupby("method", sort=False):
        look: dict[str, Any] = {"color": colour[str(method)]}
        axes.plot(rows["factor"], 100 * rows["miou"], "o-", label=names.method(str(method)), **look)
        chosen = rows[rows["chosen"]]
        axes.plot(chosen["factor"], 100 * chosen["miou"], "o", fillstyle="none", markersize=12, **look)
    axes.set(xscale="log", xlabel="factor of the method's weight (log scale)", ylabel="mIoU, %")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    _legend(figure, [axes])
    return figure


@styled
def sizes(table: pd.DataFrame, names: Names) -> Figure:
    """Mean mIoU over the multiply-adds of an image; an arrow leads from the undistilled student to AttnFD.

    Args:
        table: of `attnfd.analysis.tables.comparison`.
    """
    figure = Figure((WIDTH, 3.6))
    axes = figure.subplots()
    teacher = table[table["student"] == TEACHER].iloc[0]
    axes.plot(teacher["multiply_adds"] / 1e9, 100 * teacher["miou"], "*", color=INK, markersize=13)
    _name(axes, teacher, f"{names.student(TEACHER)} (teacher)")
    for student, rows in _students(table).items():
        for row in rows.sort_values("method", key=lambda keys: keys.isin(HIGHLIGHTED)).to_dict("records"):
            known = row["method"] in HIGHLIGHTED
            look: dict[str, Any] = {
                "marker": "o" if known else ".",
                "markersize": 8 if known else 6,
                "linestyle": "",
            }
            label = names.method(row["method"]) if known else "other methods"
            place = row["multiply_adds"] / 1e9, 100 * row["miou"]
            axes.plot(*place, color=_colour(row["method"]) if known else QUIET, label=label, **look)
        by_method = rows.set_index("method")
        if set(HIGHLIGHTED) <= set(by_method.index):
            start, end = (
                (row["multiply_adds"] / 1e9, 100 * row["miou"])
                for _, row in by_method.loc[[*HIGHLIGHTED]].iterrows()
            )
            arrow = {"arrowstyle": "->", "color": INK, "shrinkA": 5, "shrinkB": 5, "linewidth": 1}
            axes.annotate("", end, start, arrowprops=arrow)
        _name(axes, rows.sort_values("miou").iloc[-1], names.student(student))
    axes.set(xscale="log", xlabel="multiply-adds of an image, G (log scale)", ylabel="mIoU, %")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(0.16, 0.16)
    _legend(figure, [axes])
    return figure


def _name(axes: Axes, row: pd.Series, name: str) -> None:
    """Write the name of a network above its point."""
    place = row["multiply_adds"] / 1e9, 100 * row["miou"]
    axes.annotate(name, place, (0, 8), textcoords="offset points", ha="center", size=8.5)


@styled
def curves(history: pd.DataFrame, rivals: Mapping[str, str], names: Names) -> Figure:
    """Terms of the loss and validation mIoU over the epochs: mean over the seeds, their range as a band.

    The undistilled student, AttnFD and its runner-up have colours; the other methods are pale.

    Args:
        history: of `attnfd.analysis.tables.curves`; ablations are left out.
        rivals: runner-up by student.
    """
    history = history[history["variant"] == ""].assign(distillation=history["loss"] - history["ce"])
    rows = {TEACHER: history[history["student"] == TEACHER], **_students(history)}
    colour = colours(_methods(history))
    figure = Figure((WIDTH, 0.7 + 1.9 * len(rows)))
    all_axes = figure.subplots(len(rows), 2, sharex="row", squeeze=False)
    for (left, right), (student, of_student) in zip(all_axes, rows.items(), strict=True):
        named = [name for name in ("none", rivals.get(student), "attnfd") if name in colour]
        # Named methods are drawn last, over the others.
        for method in sorted(of_student["method"].unique(), key=[*named, ""].__contains__):
            of_method = of_student[of_student["method"] == method]
            known = method in (*named, "")
            look = {"color": colour.get(method, INK) if known else PALE}
            look["label"] = names.method(method) if known else "other methods"
            _curve(left, of_method, "ce", 1, look)
            if known and (of_method["distillation"] > SMALLEST_TERM * of_method["ce"]).any():
                _curve(left, of_method, "distillation", 1, {**look, "linestyle": ":", "label": None})
            _curve(right, of_method, "miou", 100, {"marker": ".", **look})
        left.set_title(f"{names.student(student)}{' (teacher)' * (student == TEACHER)}: loss")
        scale_curves(left, right)
    for axes in all_axes[-1]:
        axes.set_xlabel("epoch")
    _legend(figure, all_axes.flat)
    return figure


@styled
def hours(history: pd.DataFrame, names: Names) -> Figure:
    """Validation mIoU over the time of a training, mean over the seeds: a panel per student, all methods.

    Args:
        history: of `attnfd.report.budget.with_hours`.
    """
    unit, times = in_a_unit(history["hours"])
    rows = _students(history.assign(time=times))
    methods = _methods(history)
    colour, marker = colours(methods), markers(methods)
    figure = Figure((WIDTH, 0.7 + 2.6 * len(rows)))
    all_axes = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (student, of_student) in zip(all_axes, rows.items(), strict=True):
        for method, of_method in of_student.dropna(subset="miou").groupby("method", sort=False):
            means = of_method.groupby("time")["miou"].mean()
            look: dict[str, Any] = {
                "color": colour[str(method)],
                "marker": marker[str(method)],
                "markersize": 4,
            }
            axes.plot(means.index, 100 * means, linewidth=1.3, label=names.method(str(method)), **look)
        axes.set(title=names.student(student), ylabel="validation mIoU, %")
        axes.set_xlim(left=0)
    all_axes[-1].set_xlabel(f"{unit} of training")
    _legend(figure, all_axes)
    return figure


@styled
def per_class(table: pd.DataFrame, names: Names) -> Figure:
    """IoU of every class and method, mean over the seeds: a row per class, a panel per student.

    The classes that gain most from AttnFD are on top.

    Args:
        table: of `attnfd.analysis.tables.per_class`; ablations are left out.
    """
    table = table[table["variant"] == ""]
    iou = table.groupby(["student", "method", "class"], sort=False)["iou"].mean()
    means = 100 * iou.unstack(sort=False)
    panels = {student: pd.concat([means.loc[student], means.loc[TEACHER]]).T for student in _students(table)}
    classes = _by_gain(panels, list(table["class"].unique()))
    columns = [len(of_student.columns) for of_student in panels.values()]
    if 2 + COLUMN * sum(columns) <= WIDEST:
        figure = Figure((max(WIDTH, 2 + COLUMN * sum(columns)), 1.2 + LOW_ROW * len(classes)))
        all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=columns)[0]
    else:
        figure = Figure((2 + COLUMN * max(columns), (1.2 + LOW_ROW * len(classes)) * len(panels)))
        all_axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axes, (student, of_student) in zip(all_axes, panels.items(), strict=True):
        shade(axes, of_student.loc[classes].to_numpy(), numbered=of_student.size <= NUMBERED, aspect="auto")
        labels = [names.method(method) for method in of_student.columns]
        axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(classes)), [short(name) for name in classes], size=7.5)
        axes.set_title(names.student(student))
    return figure


def _by_gain(panels: Mapping[str, pd.DataFrame], classes: Sequence[str]) -> list[str]:
    """The classes by their gain from AttnFD, the largest first, as the mean over students that have both."""
    gains = [rows["attnfd"] - rows["none"] for rows in panels.values() if set(HIGHLIGHTED) <= set(rows)]
    if not gains:
        return list(classes)
    mean = pd.concat(gains, axis=1).mean(axis=1).loc[list(classes)]
    return list(mean.sort_values(ascending=False, kind="stable").index)


@styled
def gains(table: pd.DataFrame, names: Names) -> Figure:
    """IoU by AttnFD minus that without distillation, by class, the largest gain first: mean over the seeds.

    With many classes, only those that gain most and least are shown.

    Args:
        table: of `attnfd.analysis.tables.per_class`. Ablations are left out, and students without both
            methods.
    """
    found = {}
    for student, rows in _students(table[table["variant"] == ""]).items():
        iou = 100 * rows.pivot_table(index=["class", "seed"], columns="method", values="iou", sort=False)
        if not set(HIGHLIGHTED) <= set(iou):
            continue
        pairs = iou[[*HIGHLIGHTED]].dropna().assign(gain=iou["attnfd"] - iou["none"])
        by_class = pairs.groupby("class", sort=False)
        of_student = by_class.mean().assign(std=by_class["gain"].std()).sort_values("gain", ascending=False)
        ends = pd.concat([of_student.head(MANY // 2), of_student.tail(MANY // 2)])
        found[student] = of_student if len(of_student) <= MANY else ends
    figure, all_axes = _panels({names.student(student): len(rows) for student, rows in found.items()})
    for axes, rows in zip(all_axes, found.values(), strict=True):
        places = range(len(rows))
        better = rows["gain"] >= 0
        axes.barh(places, rows["gain"].where(better, 0), height=0.7, color=OURS)
        worse = {"facecolor": "none", "edgecolor": LOSS, "hatch": "/////", "linewidth": 0.9}
        axes.barh(places, rows["gain"].mask(better, 0), height=0.7, **worse)
        axes.errorbar(rows["gain"], places, xerr=rows["std"], fmt="none", ecolor=INK, elinewidth=0.9)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(places, map(short, rows.index))
        for row, place in zip(rows.to_dict("records"), places, strict=True):
            numbers = f"{row['none']:.1f}", f"{row['attnfd']:.1f}", statistics.signed(row["gain"] / 100, 1)
            _beside(axes, place, numbers)
        _beside(axes, -1, ("none", names.method("attnfd"), "Δ"))
    all_axes[-1].set_xlabel("difference of IoU, points")
    all_axes[-1].xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    return figure


def _scores(
    table: pd.DataFrame, labels: pd.Series, names: Names, students: Sequence[str], baseline: str = "none"
) -> tuple[Figure, NDArray[np.object_]]:
    """A panel per student, a dot per row of the table with a stem from the score of the `baseline`.

    A band around the dot is the interval of its difference to the baseline.
    """
    panels = {student: table[table["student"] == student] for student in students}
    figure, all_axes = _panels({names.student(student): len(rows) for student, rows in panels.items()})
    for axes, rows in zip(all_axes, panels.values(), strict=True):
        origin = 100 * rows.loc[rows["method"] == baseline, "miou"].mean()
        line = {"color": _colour(baseline), "linewidth": 1, "linestyle": (0, (1, 2))}
        if not np.isnan(origin):
            axes.axvline(origin, label=names.method(baseline), **line)
        for place, row in enumerate(rows.to_dict("records")):
            miou, colour = 100 * row["miou"], _colour(row["method"])
            if not np.isnan(origin):
                axes.plot([origin, miou], [place, place], color=colour, alpha=0.6)
            if not pd.isna(row["low"]):
                low, high = 100 * row["low"], 100 * row["high"]
                axes.barh(place, high - low, 0.6, origin + low, color=colour, alpha=0.22, label=INTERVAL)
            axes.plot(miou, place, "o", color=colour)
        axes.set_yticks(range(len(rows)), labels[rows.index])
        axes.use_sticky_edges = False
    all_axes[-1].set_xlabel("mIoU, %")
    return figure, all_axes


def _panels(rows: Mapping[str, int]) -> tuple[Figure, NDArray[np.object_]]:
    """A panel per title, one below the other; the height of each depends on its number of rows."""
    heights = [0.45 + ROW * count for count in rows.values()]
    figure = Figure((WIDTH, sum(heights) + 0.6))
    all_axes = figure.subplots(len(rows), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (title, count) in zip(all_axes, rows.items(), strict=True):
        axes.set_title(title)
        axes.set_ylim(count - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
    return figure, all_axes


def _students(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    students = table[table["student"] != TEACHER]
    return {str(student): rows for student, rows in students.groupby("student", sort=False)}


def _methods(table: pd.DataFrame) -> list[str]:
    return list(table.loc[table["student"] != TEACHER, "method"].unique())


def _colour(method: str) -> str:
    return {"none": BASELINE, "attnfd": OURS}.get(method, OTHERS[0])


def _beside(axes: Axes, row: float, texts: Sequence[str]) -> None:
    """Write columns of numbers to the right of a row of a chart."""
    for place, text in zip(PLACES, texts, strict=True):
        axes.text(place, row, text, transform=axes.get_yaxis_transform(), va="center", ha="right", size=7.5)


def _curve(axes: Axes, rows: pd.DataFrame, column: str, scale: float, look: Mapping[str, Any]) -> None:
    values = scale * rows.dropna(subset=column).groupby("epoch")[column].agg(["mean", "min", "max"])
    axes.plot(values.index, values["mean"], linewidth=1.3, **look)
    if look["color"] != PALE and rows["seed"].nunique() > 1:
        axes.fill_between(
            values.index, values["min"], values["max"], color=look["color"], alpha=0.15, linewidth=0
        )


def _legend(figure: Figure, all_axes: Any) -> None:
    """One legend below the panels, each label in it once."""
    handles: dict[str, Any] = {}
    for axes in all_axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
