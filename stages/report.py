"""report: tables, figures and the page of everything that ran on a dataset."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from attnfd import paths
from attnfd.analysis import tables
from attnfd.config.params import Params
from attnfd.config.task import Task
from attnfd.data.prepared import Prepared, open_prepared, read_warnings
from attnfd.paths import Cell
from attnfd.report import gallery, html, latex, markdown, paper
from attnfd.report.page import page
from attnfd.results import style

TABLES = "tables"
FIGURES = "figures"
PLOTS = "plots"


def report(tasks: Sequence[Task]) -> list[Path]:
    """Read the results of each dataset's cells and write `report.html` and `report.md`, with all they show.

    Returns:
        The pages.

    Raises:
        UserError: a cell has no results yet.
    """
    return [_report(task.params, task.cell.dataset) for task in tasks]


def _report(params: Params, dataset: str) -> Path:
    prepared = open_prepared(params, dataset)
    cells = Cell.all(params.run, dataset)
    found = tables.results(cells)
    comparison = tables.comparison(found)
    frames = {
        "comparison": paper.comparison(comparison, paper.printed(prepared.card)),
        "ablation": paper.ablation(tables.ablation(found, params, dataset), paper.printed(prepared.card)),
        "settings": tables.settings(found, params),
        "networks": tables.networks(comparison),
        "data": tables.data(prepared.card),
    }
    plots = {
        "curves": tables.curves(cells),
        "per_class": tables.per_class(cells),
        "confusion": tables.confusion(cells, prepared.card.classes),
    }
    drawn = gallery.draw(prepared, cells, comparison, frames["ablation"], frames["settings"], plots["curves"])
    captions = {name: picture.caption for name, picture in drawn.items()}
    title, warnings = f"{params.report.title}: {dataset}", read_warnings(paths.prepared(dataset))
    described = page(title, _subtitle(prepared), found, frames, captions, warnings)

    folder = paths.report(dataset)
    for part in (folder / TABLES, folder / FIGURES, folder / PLOTS, paths.summary(dataset).parent):
        part.mkdir(parents=True, exist_ok=True)
    for name, picture in drawn.items():
        style.save(picture.figure, folder / FIGURES / f"{name}.png")
    for name, frame in plots.items():
        _write_csv(frame, folder / PLOTS / f"{name}.csv")
    for section in described.sections:
        for table in section.tables:
            _write_csv(frames[table.name], folder / TABLES / f"{table.name}.csv")
            text = latex.write(table, f"{dataset}-{table.name}")
            (folder / TABLES / f"{table.name}.tex").write_text(text, encoding="utf-8")
    embedded = {name: (folder / FIGURES / f"{name}.png").read_bytes() for name in captions}
    (folder / "report.html").write_text(html.write(described, embedded), encoding="utf-8")
    (folder / "report.md").write_text(markdown.write(described), encoding="utf-8")
    summary = json.dumps(tables.nested(comparison), indent=2)
    paths.summary(dataset).write_text(summary + "\n", encoding="utf-8")
    return folder / "report.html"


def _subtitle(prepared: Prepared) -> str:
    card = prepared.card
    others = [f"{split.images} in {name}" for name, split in card.splits.items() if name != "val"]
    return (
        f"{card.splits['val'].images} validation images of {len(card.classes)} classes"
        f"{' beside ' * bool(others)}{', '.join(others)}; data {card.sha256[:12]}, read by {card.reader}"
    )


def _write_csv(frame: pd.DataFrame, file: Path) -> None:
    frame.to_csv(file, index=False, lineterminator="\n")
