"""Results of a dataset's cells as tables: tidy data frames, CSV and Markdown.

Scores are between 0 and 1 in data frames and CSV, like in `metrics.json`, and in per cent in Markdown.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from attnfd import paths
from attnfd.config import Params, Run
from attnfd.errors import UserError
from attnfd.paths import Cell

TEACHER = "teacher"
SCORES = ["miou", "mean_accuracy", "pixel_accuracy", "fw_iou"]
LAYERS = ("backbone", "encoder", "decoder")


def cells(run: Run, dataset: str) -> list[Cell]:
    """Every model that the axes of `run` ask for on a dataset: teacher, students, ablations."""
    teacher = Cell(stage="train_teacher", dataset=dataset)
    distilled = [
        Cell(stage="distill", dataset=dataset, student=student, method=method, seed=seed)
        for student in run.students
        for method in run.methods
        for seed in run.seeds
    ]
    ablated = [
        Cell(stage="ablate", dataset=dataset, student=student, method="attnfd", variant=variant, seed=seed)
        for student in run.ablate.students
        for variant in run.ablate.variants
        for seed in run.ablate.seeds
    ]
    return [teacher, *distilled, *ablated]


def labels(cell: Cell) -> dict[str, str]:
    """What tells a row of a table from others: student (or `teacher`), method, variant and seed, or ""."""
    return {
        "student": cell.student or TEACHER,
        "method": cell.method or "",
        "variant": cell.variant or "",
        "seed": "" if cell.seed is None else str(cell.seed),
    }


def results(chosen: Sequence[Cell]) -> pd.DataFrame:
    """`metrics.json` of every cell, a row each: its labels, scores, `parameters`, `images`, `collapsed`.

    Raises:
        UserError: a cell has no results yet.
    """
    rows = []
    for cell in chosen:
        metrics = json.loads(existing(cell, cell.results / paths.METRICS).read_bytes())
        kept = {key: metrics[key] for key in (*SCORES, "parameters", "images", "collapsed")}
        rows.append({"cell": cell.name, **labels(cell), **kept})
    return pd.DataFrame(rows)


def per_class(chosen: Sequence[Cell]) -> pd.DataFrame:
    """`per_class.csv` of every cell below each other, with the cell's labels.

    Raises:
        UserError: a cell has no results yet.
    """
    return _stack(chosen, [cell.results / paths.PER_CLASS for cell in chosen])


def curves(chosen: Sequence[Cell]) -> pd.DataFrame:
    """`history.csv` of every cell below each other, with the cell's labels.

    Raises:
        UserError: a cell is not trained yet.
    """
    return _stack(chosen, [cell.model / paths.HISTORY for cell in chosen])


def existing(cell: Cell, file: Path) -> Path:
    """`file` of a cell.

    Raises:
        UserError: it is missing; the message names the cell and the command that makes it.
    """
    if not file.exists():
        raise UserError(
            f"{file.as_posix()}: not found: {cell.name} of {cell.dataset} is not complete; "
            f"run dvc repro report@{cell.dataset}"
        )
    return file


def comparison(found: pd.DataFrame) -> pd.DataFrame:
    """Means over the seeds: the teacher, then a row per student and method; see `aggregate`."""
    return aggregate(found[found["variant"] == ""], ("student", "method"), baseline="none")


def ablation(found: pd.DataFrame, params: Params, dataset: str) -> pd.DataFrame:
    """Means over the ablation's seeds: a row per student and variant, and the layers that it distils.

    Two cells of `distill` belong to it: variant `none` has no layers, and `attnfd` is the full method.
    """
    axes = params.run.ablate
    layers = {
        "none": (),
        **{variant: params.method("attnfd", dataset, variant).layers for variant in axes.variants},
        "attnfd": params.method("attnfd", dataset).layers,
    }
    rank = {row: place for place, row in enumerate(itertools.product(axes.students, layers))}
    table = found[found["seed"].isin([str(seed) for seed in axes.seeds])].copy()
    table["variant"] = table["variant"].where(table["variant"] != "", table["method"])
    table["rank"] = [rank.get(row) for row in zip(table["student"], table["variant"], strict=True)]
    table = table.dropna(subset="rank").sort_values("rank", kind="stable")
    table = aggregate(table, ("student", "variant"), baseline="none")
    for place, layer in enumerate(LAYERS, start=2):
        table.insert(place, layer, [layer in layers[variant] for variant in table["variant"]])
    return table


def aggregate(found: pd.DataFrame, by: tuple[str, str], baseline: str) -> pd.DataFrame:
    """Means over the seeds, a row per combination of `by`, in the order of their first row.

    Columns: `by`, number of `seeds`, mean `miou`, its sample standard deviation `miou_std` (empty for one
    seed), mean `mean_accuracy`, `pixel_accuracy` and `fw_iou`, `parameters`, how many seeds `collapsed`, and
    `difference` of the mean mIoU to the student's row `baseline`.
    """
    table = found.groupby(list(by), sort=False, as_index=False).agg(
        seeds=("miou", "size"),
        miou=("miou", "mean"),
        miou_std=("miou", "std"),
        mean_accuracy=("mean_accuracy", "mean"),
        pixel_accuracy=("pixel_accuracy", "mean"),
        fw_iou=("fw_iou", "mean"),
        parameters=("parameters", "first"),
        collapsed=("collapsed", "sum"),
    )
    is_baseline = table[by[1]] == baseline
    undistilled = table[is_baseline].set_index("student")["miou"]
    table["difference"] = (table["miou"] - table["student"].map(undistilled)).mask(is_baseline)
    return table


def nested(table: pd.DataFrame) -> dict[str, dict]:
    """Mean scores of `comparison`: the teacher's as `teacher`, the others by student and method."""
    tree: dict[str, dict] = {}
    for row in table.to_dict("records"):
        means = {score: row[score] for score in SCORES}
        if row["student"] == TEACHER:
            tree[TEACHER] = means
        else:
            tree.setdefault(row["student"], {})[row["method"]] = means
    return tree


def markdown(table: pd.DataFrame) -> str:
    """A table of `comparison` or `ablation` in Markdown, scores in per cent."""
    columns = {
        "student": table["student"],
        **({"method": table["method"]} if "method" in table else {}),
        **({"variant": table["variant"]} if "variant" in table else {}),
        **{layer: table[layer].map({True: "✓", False: ""}) for layer in LAYERS if layer in table},
        "mIoU": [spread(mean, std) for mean, std in zip(table["miou"], table["miou_std"], strict=True)],
        "vs. none": [signed(value) for value in table["difference"]],
        "mean class accuracy": [percent(value) for value in table["mean_accuracy"]],
        "pixel accuracy": [percent(value) for value in table["pixel_accuracy"]],
        "parameters": [f"{value / 1e6:.1f} M" for value in table["parameters"]],
        "seeds": [f"n = {value}" for value in table["seeds"]],
    }
    names = {"student", "method", "variant"}
    lines = [
        list(columns),
        [":--" if name in names else ":-:" if name in LAYERS else "--:" for name in columns],
        *(list(row) for row in zip(*columns.values(), strict=True)),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def percent(value: float) -> str:
    """`0.7309` as `73.09`."""
    return f"{100 * value:.2f}"


def spread(mean: float, std: float) -> str:
    """`73.09 ± 0.06` in per cent; without a deviation, as of one seed, `73.09`."""
    return percent(mean) if pd.isna(std) else f"{percent(mean)} ± {percent(std)}"


def signed(value: float) -> str:
    """`+5.59` in per cent, or nothing where there is nothing to compare with."""
    return "" if pd.isna(value) else f"{100 * value:+.2f}"


def _stack(chosen: Sequence[Cell], files: Sequence[Path]) -> pd.DataFrame:
    tables = []
    for cell, file in zip(chosen, files, strict=True):
        table = pd.read_csv(existing(cell, file))
        for place, (key, value) in enumerate({"cell": cell.name, **labels(cell)}.items()):
            table.insert(place, key, value)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
