"""report: tables and figures of everything that ran on a dataset."""

import json
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from attnfd import paths
from attnfd.config import Params
from attnfd.data.prepared import Prepared, open_prepared
from attnfd.paths import Cell
from attnfd.report import examples, figures, pictures, style, tables
from attnfd.report.page import page

TABLES = "tables"
FIGURES = "figures"


def report(params: Params, dataset: str) -> None:
    """Read the results of the dataset's cells and write `report.md` with its tables and figures.

    Raises:
        UserError: a cell has no results yet.
    """
    cells = tables.cells(params.run, dataset)
    found = tables.results(cells)
    curves = tables.curves(cells)
    comparison = tables.comparison(found)
    ablation = tables.ablation(found, params, dataset)
    charts = {
        "comparison": figures.comparison(comparison),
        "curves": figures.curves(curves),
        "per_class": figures.per_class(tables.per_class(cells)),
        "overlays": _overlays(open_prepared(params, dataset), _pictured(cells)),
    }

    folder = paths.report(dataset)
    for part in (folder / TABLES, folder / FIGURES, paths.summary(dataset).parent):
        part.mkdir(parents=True, exist_ok=True)
    for name, table in {"comparison": comparison, "ablation": ablation, "curves": curves}.items():
        table.to_csv(folder / TABLES / f"{name}.csv", index=False, lineterminator="\n")
    for name, figure in charts.items():
        style.save(figure, folder / FIGURES / f"{name}.png")
    summary = json.dumps(tables.nested(comparison), indent=2)
    paths.summary(dataset).write_text(summary + "\n", encoding="utf-8")
    text = page(params.report.title, dataset, found, comparison, ablation)
    (folder / "report.md").write_text(text, encoding="utf-8")


def _pictured(cells: Sequence[Cell]) -> list[Cell]:
    """The teacher, and of every student the first seed without distillation and with AttnFD."""
    first: dict[tuple[str | None, str | None], Cell] = {}
    for cell in cells:
        if cell.variant is None and cell.method in (None, "none", "attnfd"):
            first.setdefault((cell.student, cell.method), cell)
    return list(first.values())


def _overlays(prepared: Prepared, cells: Sequence[Cell]) -> Figure:
    """Predictions of the cells beside each other, on the images that `evaluate` kept them of."""
    preds = {}
    for cell in cells:
        title = "teacher" if cell.student is None else f"{cell.student}\n{cell.method}"
        with np.load(tables.existing(cell, cell.results / paths.PREDICTIONS)) as maps:
            ids = list(maps)
            preds[title] = np.stack([maps[id] for id in ids])
    shown = examples.read(prepared, ids)
    return pictures.overlays(shown, preds, prepared.card.classes, prepared.card.palette)
