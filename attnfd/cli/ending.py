"""The last lines that a stage prints: its scores, and where to find more."""

from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from attnfd.analysis import tables
from attnfd.config.schema import Run
from attnfd.paths import TEACHER, Cell

WIDTH = 80


def show_report(axes: Run, dataset: str, page: Path) -> None:
    """Print scores and intervals of the gains, the report's path, and the command that shows the runs."""
    found = tables.results(Cell.all(axes, dataset))
    reported = "test" if found["split"].iloc[0] == "test" else "validation"
    images = f"{found['images'].iloc[0]} {reported} images"
    console = Console(highlight=False, soft_wrap=True)
    seeds = "1 seed" if len(axes.seeds) == 1 else f"{len(axes.seeds)} seeds"
    console.print(f"{dataset} · {images} · {seeds}", markup=False)
    console.print(scores(tables.comparison(found)), width=WIDTH)
    console.print(f"Report   {page}\nRuns     attnfd ui", markup=False)


def scores(comparison: pd.DataFrame) -> Table:
    """mIoU of the rows of `tables.comparison`, and the gain over `none` with its 95 % interval."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("student", "method"):
        table.add_column(name, overflow="fold")
    for name in ("mIoU", "vs. none", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in comparison.to_dict("records"):
        gain = "" if pd.isna(row["difference"]) else f"{100 * row['difference']:+.1f}"
        interval = f"\\[{100 * row['low']:.1f}, {100 * row['high']:.1f}]" if gain else ""
        method = "" if row["student"] == TEACHER else row["method"]
        table.add_row(row["student"], method, f"{100 * row['miou']:.1f}", gain, interval)
    return table


def show_score(cell: Cell, miou: float) -> None:
    """Print the mIoU of an evaluation in one line."""
    print(f"{cell.dataset} {cell.name}: mIoU {100 * miou:.1f}")
