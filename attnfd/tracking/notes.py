"""The descriptions of models on the pages of MLflow, in Markdown."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from attnfd.analysis.tables import percent
from attnfd.paths import TEACHER, Cell

# The most characters for a list of classes: the description of a registered model may have 5000.
LONGEST_LIST = 4500


def title(cell: Cell) -> str:
    """A cell's model in one sentence."""
    if cell.student is None:
        return f"The teacher of **{cell.dataset}**."
    taught = "without a teacher" if cell.method == "none" else f"by **{cell.method}**"
    variant = f", variant **{cell.variant}**" if cell.variant else ""
    return f"**{cell.student}**, trained {taught}{variant} on **{cell.dataset}**, seed {cell.seed}."


def report(dataset: str, best: pd.DataFrame, found: pd.DataFrame) -> str:
    """The findings of a report, a line per student; both tables as in `attnfd.tracking.registry.best`."""
    teacher = percent(found.loc[found["student"] == TEACHER, "miou"].mean())
    lines = [
        f"Report of **{dataset}**: {len(found)} models. Mean mIoU, in per cent:\n",
        f"- teacher: {teacher}",
    ]
    for row in best.to_dict("records"):
        mean = f"{row['method']} with {percent(row['mean'])}"
        lines.append(f"- {row['student']}: the best method is {mean}")
    return "\n".join(lines) + "\n"


def registered(dataset: str, classes: Sequence[str]) -> str:
    """The description of a dataset's registered model: what is true for all of its versions."""
    numbered = ", ".join(f"{number} {name}" for number, name in enumerate(classes))
    numbered = textwrap.shorten(numbered, LONGEST_LIST, placeholder=" …")
    return (
        f"Students of **{dataset}**, registered by `attnfd report`. Alias `best`: the best of all; "
        "`best-<student>`: the best of each network.\n\n"
        "RGB images (B, H, W, 3), uint8 → class of every pixel (B, H, W), uint8. "
        f"Classes: {numbered}.\n"
    )


def version(cell: Cell, metrics: Mapping[str, Any], origin: Mapping[str, str]) -> str:
    """The card of a registered version: what it is, its scores, and its origin.

    A table of versions shows the beginning as plain text, so the first line has no Markdown.
    """
    summary = title(cell).replace("**", "").removesuffix(".")
    return (
        f"{summary}: mIoU {percent(metrics['miou'])} %\n\n{scores(metrics)}"
        "- chosen by its method's mean mIoU over the seeds, then by its own mIoU, on the images above\n"
        f"- data, SHA-256: `{origin['data']}`\n"
        f"- weights, SHA-256: `{origin['weights']}`\n"
        f"- trained at git commit: `{origin['commit']}`\n"
    )


def scores(metrics: Mapping[str, Any]) -> str:
    """The main numbers of `metrics.json`, and the best and the worst class."""
    # A class without a pixel in the split has no IoU.
    called = "test" if metrics["split"] == "test" else "validation"
    known = {name: value for name, value in metrics["iou"].items() if pd.notna(value)}
    best, worst = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
    return (
        f"- mIoU **{percent(metrics['miou'])}**, mean class accuracy {percent(metrics['mean_accuracy'])}, "
        f"pixel accuracy {percent(metrics['pixel_accuracy'])}, in per cent\n"
        f"- best class {best} ({percent(known[best])}), worst {worst} ({percent(known[worst])})\n"
        f"- {metrics['images']} {called} images at their original size\n"
        f"- {metrics['parameters'] / 1e6:.1f} M parameters\n"
    )
