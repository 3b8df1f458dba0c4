"""report: write tables, figures and the page of all results on a dataset."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from attnfd import paths
from attnfd.analysis import tables, trials
from attnfd.config.params import Params
from attnfd.config.task import Task
from attnfd.data.prepared import Prepared, open_prepared, read_warnings
from attnfd.paths import Cell
from attnfd.report import budget, gallery, html, latex, markdown, paper, provenance, public, vector
from attnfd.report.layout import Picture
from attnfd.report.names import Names
from attnfd.report.page import for_a_paper, page


def report(tasks: Sequence[Task]) -> list[Path]:
    """Read the results of each dataset's cells. Write `report.html`, `report.md` and all that they show.

    Returns:
        The pages.

    Raises:
        UserError: a cell has no results yet.
    """
    return [_report(task.params, task.cell.dataset) for task in tasks]


def _report(params: Params, dataset: str) -> Path:
    prepared = open_prepared(params, dataset)
    cells = Cell.all(params.run, dataset)
    names = Names.of(params, dataset)
    found = tables.results(cells)
    history = tables.curves(cells)
    hours = budget.with_hours(history, params, prepared.card)
    comparison = budget.beside(tables.comparison(found), history, hours)
    frames = {
        **{
            name: paper.comparison(part, paper.printed(prepared.card))
            for name, part in budget.split(comparison, params, dataset).items()
        },
        "ablation": paper.ablation(tables.ablation(found, params, dataset), paper.printed(prepared.card)),
        "settings": tables.settings(found, params),
        "public": public.baselines(comparison, paper.printed(prepared.card)),
        "networks": tables.networks(comparison),
        "data": tables.data(prepared.card),
        "recipe": provenance.recipe(params, dataset),
    }
    if tried := trials.cells(params, dataset):
        frames["tuning"] = trials.table(trials.scores(tried))
    plots = {
        "curves": history,
        "per_class": tables.per_class(cells),
        "confusion": tables.confusion(cells, prepared.card.classes),
    }
    drawn = gallery.draw(prepared, cells, names, {**frames, **plots, "hours": hours})
    described = page(
        f"{params.report.title}: {dataset}",
        _subtitle(prepared),
        found,
        frames,
        names,
        pictures=[Picture(name, picture.caption, picture.folded) for name, picture in drawn.items()],
        warnings=read_warnings(paths.prepared(dataset)),
        made=provenance.facts(params, prepared, names),
    )

    files: dict[str, bytes] = {}
    for name, picture in drawn.items():
        files[f"figures/{name}.svg"], files[f"pdf/{name}.pdf"] = vector.files(picture.figure, name)
    for name, frame in plots.items():
        files[f"plots/{name}.csv"] = _csv(frame)
    for table in (table for section in described.sections for table in section.tables):
        files[f"tables/{table.name}.csv"] = _csv(frames[table.name])
        files[f"tables/{table.name}.tex"] = latex.write(table, f"{dataset}-{table.name}").encode()
    files["tables/comparison_full.tex"] = files["tables/comparison.tex"]
    short = for_a_paper(frames["comparison"], names)
    files["tables/comparison.tex"] = latex.write(short, f"{dataset}-comparison").encode()
    files["report.md"] = markdown.write(described).encode()
    files["report.html"] = html.write(described, files).encode()
    for name, content in files.items():
        file = paths.report(dataset) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    summary = json.dumps(tables.nested(comparison), indent=2)
    paths.summary(dataset).parent.mkdir(parents=True, exist_ok=True)
    paths.summary(dataset).write_text(summary + "\n", encoding="utf-8")
    return paths.report(dataset) / "report.html"


def _subtitle(prepared: Prepared) -> str:
    card = prepared.card
    reported = prepared.reported
    kind = "test" if reported == "test" else "validation"
    others = [f"{split.images} in {name}" for name, split in card.splits.items() if name != reported]
    images = ", ".join([f"{card.splits[reported].images} {kind} images", *others])
    return f"{card.name}: {len(card.classes)} classes; {images}"


def _csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, lineterminator="\n").encode()
