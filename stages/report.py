"""report: tables and figures of everything that ran on a dataset."""

import json

from attnfd import paths
from attnfd.config import Params
from attnfd.data.prepared import open_prepared
from attnfd.report import gallery, style, tables
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
    drawn = gallery.draw(open_prepared(params, dataset), cells, comparison, ablation, curves)

    folder = paths.report(dataset)
    for part in (folder / TABLES, folder / FIGURES, paths.summary(dataset).parent):
        part.mkdir(parents=True, exist_ok=True)
    for name, table in {"comparison": comparison, "ablation": ablation, "curves": curves}.items():
        table.to_csv(folder / TABLES / f"{name}.csv", index=False, lineterminator="\n")
    for name, picture in drawn.items():
        style.save(picture.figure, folder / FIGURES / f"{name}.png")
    summary = json.dumps(tables.nested(comparison), indent=2)
    paths.summary(dataset).write_text(summary + "\n", encoding="utf-8")
    text = page(params.report.title, dataset, found, comparison, ablation, drawn)
    (folder / "report.md").write_text(text, encoding="utf-8")
