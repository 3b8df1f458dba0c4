"""Charts of a dataset's results; every function returns a figure and saves nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from attnfd.analysis.tables import signed, spread
from attnfd.config.schema import LAYERS
from attnfd.paths import TEACHER
from attnfd.results.pictures import scale_curves, shade
from attnfd.results.style import (
    BASELINE,
    INK,
    MANY,
    OTHERS,
    OURS,
    PALE,
    WIDTH,
    colours,
    markers,
    short,
    styled,
)

HIGHLIGHTED = ("none", "attnfd")
ROW, LOW_ROW, COLUMN = 0.25, 0.13, 0.3
"""Height of a row of a chart, the same where there are many, and width of a column, in inches."""
NUMBERED = 4000
"""Cells of a table of classes that are written as numbers, too: each takes a millisecond."""
ASIDE = 1.04
"""Factor between the methods of one student where they would hide each other."""


@styled
def comparison(table: pd.DataFrame) -> Figure:
    """Mean mIoU of every method and its deviation over the seeds, against `none` and the teacher.

    Args:
        table: of `attnfd.analysis.tables.comparison`.
    """
    figure, all_axes = _scores(table, table["method"])
    teacher = 100 * table.loc[table["student"] == TEACHER, "miou"].item()
    for axes in all_axes:
        axes.axvline(teacher, color=INK, linewidth=1, linestyle=(0, (4, 3)), label=f"teacher: {teacher:.2f}")
    _legend(figure, all_axes)
    return figure


@styled
def ablation(table: pd.DataFrame) -> Figure:
    """Mean mIoU of every variant; three dots say which layers it distils: backbone, encoder, decoder.

    Args:
        table: of `attnfd.analysis.tables.ablation`.
    """
    dots = table[list(LAYERS)].map(lambda distilled: "●" if distilled else "○").agg(" ".join, axis=1)
    figure, all_axes = _scores(table.rename(columns={"variant": "method"}), table["variant"] + "  " + dots)
    _legend(figure, all_axes)
    return figure


@styled
def settings(table: pd.DataFrame) -> Figure:
    """Mean mIoU of AttnFD with other settings, against AttnFD as it is.

    Args:
        table: of `attnfd.analysis.tables.settings`.
    """
    figure, all_axes = _scores(table.rename(columns={"variant": "method"}), table["variant"], "attnfd")
    _legend(figure, all_axes)
    return figure


@styled
def sizes(table: pd.DataFrame) -> Figure:
    """Mean mIoU over parameters and over multiply-adds; the methods of one student lie beside each other.

    Args:
        table: of `attnfd.analysis.tables.comparison`.
    """
    figure = Figure((WIDTH, 6.4))
    all_axes = figure.subplots(2, 1)
    for axes, column, unit, name in zip(
        all_axes, ("parameters", "multiply_adds"), (1e6, 1e9), ("M", "G"), strict=True
    ):
        ticks = _scores_over(axes, table, column)
        axes.set(xscale="log", xlabel=column.replace("_", "-"), ylabel="mIoU, %")
        labels = [f"{size / unit:.1f} {name}\n{network}" for network, size in ticks.items()]
        axes.set_xticks(list(ticks.values()), labels)
        axes.set_xticks([], minor=True)
        axes.margins(0.12, 0.12)
    _legend(figure, all_axes)
    return figure


def _scores_over(axes: Axes, table: pd.DataFrame, column: str) -> dict[str, float]:
    """Draw the methods of every network over one of its costs; returns the cost of each network."""
    methods = _methods(table)
    colour, marker = colours(methods), markers(methods)
    teacher = table[table["student"] == TEACHER].iloc[0]
    ticks = {TEACHER: teacher[column]}
    axes.plot(
        ticks[TEACHER], 100 * teacher["miou"], "*", color=INK, markersize=13, linestyle="", label=TEACHER
    )
    for student, rows in _students(table).items():
        ticks[student] = rows[column].iloc[0]
        for place, row in enumerate(rows.to_dict("records")):
            method = row["method"]
            aside = ASIDE ** (place - (len(rows) - 1) / 2)
            axes.errorbar(
                aside * row[column],
                100 * row["miou"],
                yerr=_error(row["miou_std"]),
                fmt=marker[method],
                color=colour[method],
                markersize=7 if method in HIGHLIGHTED else 5,
                elinewidth=0.8,
                label=method,
            )
    return ticks


@styled
def curves(history: pd.DataFrame, rivals: Mapping[str, str]) -> Figure:
    """Cross-entropy and validation mIoU over the epochs: mean over the seeds, their range as a band.

    `none`, AttnFD and its runner-up stand out; the other methods are pale.

    Args:
        history: of `attnfd.analysis.tables.curves`; ablations are left out.
        rivals: runner-up by student.
    """
    history = history[history["variant"] == ""]
    rows = {TEACHER: history[history["student"] == TEACHER], **_students(history)}
    colour = colours(_methods(history))
    figure = Figure((WIDTH, 0.5 + 1.9 * len(rows)))
    all_axes = figure.subplots(len(rows), 2, sharex="row", squeeze=False)
    for (left, right), (student, of_student) in zip(all_axes, rows.items(), strict=True):
        named = [name for name in ("none", rivals.get(student), "attnfd") if name in colour]
        # What is named is drawn last, over the others.
        for method in sorted(of_student["method"].unique(), key=[*named, ""].__contains__):
            of_method = of_student[of_student["method"] == method]
            if method == "":
                look = {"color": INK, "label": TEACHER}
            elif method in named:
                look = {"color": colour[method], "label": method}
            else:
                look = {"color": PALE, "label": "other methods"}
            _curve(left, of_method, "ce", 1, look)
            _curve(right, of_method, "miou", 100, {"marker": ".", **look})
        left.set_title(f"{student}: cross-entropy")
        scale_curves(left, right)
    for axes in all_axes[-1]:
        axes.set_xlabel("epoch")
    _legend(figure, all_axes.flat)
    return figure


@styled
def per_class(table: pd.DataFrame) -> Figure:
    """IoU of every class and method, mean over the seeds: a panel per student.

    Many classes are rows, so that the figure grows downwards; few are columns.

    Args:
        table: of `attnfd.analysis.tables.per_class`; ablations are left out.
    """
    table = table[table["variant"] == ""]
    iou = table.groupby(["student", "method", "class"], sort=False)["iou"].mean()
    means = 100 * iou.unstack(sort=False)
    classes = list(table["class"].unique())
    teacher = means.loc[TEACHER].rename(index={"": TEACHER})
    panels = {student: pd.concat([means.loc[student], teacher]) for student in _students(table)}
    names = [short(name) for name in classes]
    if len(classes) > MANY:
        return _class_rows({student: rows[classes].T for student, rows in panels.items()}, names)
    figure, all_axes = _panels({student: len(rows) for student, rows in panels.items()})
    for axes, of_student in zip(all_axes, panels.values(), strict=True):
        shade(axes, of_student[classes].to_numpy(), numbered=True, aspect="auto")
        axes.set_yticks(range(len(of_student)), of_student.index)
    all_axes[-1].set_xticks(range(len(classes)), names, rotation=45, ha="right", rotation_mode="anchor")
    return figure


def _class_rows(panels: Mapping[str, pd.DataFrame], names: Sequence[str]) -> Figure:
    """A row per class and a column per method; the panels of the students are beside each other."""
    widths = [len(of_student.columns) for of_student in panels.values()]
    figure = Figure((max(WIDTH, 2.2 + COLUMN * sum(widths)), 1 + LOW_ROW * len(names)))
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=widths)[0]
    for axes, (student, of_student) in zip(all_axes, panels.items(), strict=True):
        shade(axes, of_student.to_numpy(), numbered=of_student.size <= NUMBERED, aspect="auto")
        axes.set_xticks(range(len(of_student.columns)), of_student.columns, rotation=90)
        axes.set_title(student)
    all_axes[0].set_yticks(range(len(names)), names, size=6.5)
    return figure


@styled
def gains(table: pd.DataFrame, rivals: Mapping[str, str]) -> Figure:
    """AttnFD's IoU minus its runner-up's for the classes that occur, largest first: mean over the seeds.

    Of many classes those are shown that gain most and least.

    Args:
        table: of `attnfd.analysis.tables.per_class`; ablations are left out.
        rivals: runner-up by student; the others have no panel.
    """
    table = table[table["variant"] == ""]
    found = {}
    for student, rival in rivals.items():
        rows = table[table["student"] == student]
        iou = 100 * rows.pivot_table(index=["class", "seed"], columns="method", values="iou", sort=False)
        pairs = iou[["attnfd", rival]].dropna().assign(gain=iou["attnfd"] - iou[rival])
        by_class = pairs.groupby("class", sort=False)
        gains = by_class.mean().assign(std=by_class["gain"].std()).sort_values("gain", ascending=False)
        ends = pd.concat([gains.head(MANY // 2), gains.tail(MANY // 2)])
        found[student] = gains if len(gains) <= MANY else ends
    figure, all_axes = _panels({student: len(rows) for student, rows in found.items()})
    for axes, (student, rows) in zip(all_axes, found.items(), strict=True):
        rival = rivals[student]
        axes.set_title(f"{student}: attnfd − {rival}")
        places = range(len(rows))
        axes.barh(places, rows["gain"], height=0.7, color=np.where(rows["gain"] >= 0, OURS, OTHERS[0]))
        axes.errorbar(rows["gain"], places, xerr=rows["std"], fmt="none", ecolor=INK, elinewidth=0.9)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(places, map(short, rows.index))
        for place, row in zip(places, rows.to_dict("records"), strict=True):
            _beside(axes, place, f"{row['gain']:+.1f} = {row['attnfd']:.1f} − {row[rival]:.1f}")
    all_axes[-1].set_xlabel("difference of IoU, points")
    all_axes[-1].xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    return figure


def _scores(
    table: pd.DataFrame, labels: pd.Series, baseline: str = "none"
) -> tuple[Figure, NDArray[np.object_]]:
    """A panel per student, a dot per row of the table with a stem from the score of the `baseline`."""
    panels = _students(table)
    figure, all_axes = _panels({student: len(rows) for student, rows in panels.items()})
    for axes, rows in zip(all_axes, panels.values(), strict=True):
        origin = 100 * rows.loc[rows["method"] == baseline, "miou"]
        if len(origin):
            axes.axvline(
                origin.item(), color=_colour(baseline), linewidth=1, linestyle=(0, (1, 2)), label=baseline
            )
        for label, row in zip(labels[rows.index], rows.to_dict("records"), strict=True):
            miou, colour = 100 * row["miou"], _colour(row["method"])
            if len(origin):
                axes.plot([origin.item(), miou], [label, label], color=colour, alpha=0.6)
            axes.errorbar(
                miou,
                label,
                xerr=_error(row["miou_std"]),
                fmt="o",
                color=colour,
                ecolor=INK,
                elinewidth=0.9,
                capsize=2,
            )
            _beside(axes, label, f"{spread(row['miou'], row['miou_std'])}  {signed(row['difference'])}")
    all_axes[-1].set_xlabel("mIoU, %")
    return figure, all_axes


def _panels(rows: Mapping[str, int]) -> tuple[Figure, NDArray[np.object_]]:
    """A panel per student below each other, each as high as its number of rows asks for."""
    heights = [0.45 + ROW * count for count in rows.values()]
    figure = Figure((WIDTH, sum(heights) + 0.6))
    all_axes = figure.subplots(len(rows), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (student, count) in zip(all_axes, rows.items(), strict=True):
        axes.set_title(student)
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


def _error(std: float) -> float | None:
    return None if pd.isna(std) else 100 * std


def _beside(axes: Axes, row: Any, text: str) -> None:
    axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center", size=7.5)


def _curve(axes: Axes, rows: pd.DataFrame, column: str, scale: float, look: Mapping[str, Any]) -> None:
    values = scale * rows.dropna(subset=column).groupby("epoch")[column].agg(["mean", "min", "max"])
    axes.plot(values.index, values["mean"], linewidth=1.3, **look)
    if look["color"] != PALE:
        axes.fill_between(
            values.index, values["min"], values["max"], color=look["color"], alpha=0.15, linewidth=0
        )


def _legend(figure: Figure, all_axes: Any) -> None:
    """One legend below the panels, each label in it once."""
    handles: dict[str, Any] = {}
    for axes in all_axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5)
