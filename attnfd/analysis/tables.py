"""Results of a dataset's cells as data frames; scores are between 0 and 1, like in `metrics.json`."""

import itertools
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attnfd import paths
from attnfd.analysis import statistics
from attnfd.analysis.reading import need, reading
from attnfd.analysis.statistics import Difference
from attnfd.config.params import Params
from attnfd.config.schema import LAYERS, Layer
from attnfd.data.prepared import Card
from attnfd.errors import UserError
from attnfd.evaluation.metrics import SCORES
from attnfd.paths import TEACHER, Cell

COUNTED = (*SCORES, "parameters", "multiply_adds", "images", "collapsed", "split", "val")
PAIRS = 1000
"""The most pairs of classes that a plot in a browser has room for."""
COMBINATIONS = [layers for count in range(4) for layers in itertools.combinations(LAYERS, count)]
"""Rows of the paper's Table 3, in its order: no layer, one, two, all three."""


def labels(cell: Cell) -> dict[str, str]:
    """The labels of a row in a table: student (or `teacher`), method, variant and seed; "" for none."""
    return {
        "student": cell.student or TEACHER,
        "method": cell.method or "",
        "variant": cell.variant or "",
        "seed": "" if cell.seed is None else str(cell.seed),
    }


def results(chosen: Sequence[Cell]) -> pd.DataFrame:
    """`metrics.json` of every cell, a row each: its labels, scores, `parameters`, `multiply_adds`, `images`,
    `collapsed`, the `split` of the scores, and `val_miou`, the mIoU on the validation split.

    `confusion` is the path of the cell's confusion matrices, which differences are computed from.

    Raises:
        UserError: a cell has no results yet.
    """
    rows = []
    for cell in chosen:
        metrics = described(cell, cell.results / paths.METRICS, COUNTED)
        kept = {key: metrics[key] for key in COUNTED if key != "val"}
        kept["val_miou"] = metrics["val"]["miou"]
        confusion = existing(cell, cell.results / paths.CONFUSION)
        rows.append({"cell": cell.name, **labels(cell), **kept, "confusion": confusion})
    return pd.DataFrame(rows)


def per_class(chosen: Sequence[Cell]) -> pd.DataFrame:
    """`per_class.csv` of all cells in one table, with the cells' labels.

    Raises:
        UserError: a cell has no results yet.
    """
    columns = ("class", "iou", "accuracy", "pixels")
    return _stack(chosen, [cell.results / paths.PER_CLASS for cell in chosen], columns)


def curves(chosen: Sequence[Cell]) -> pd.DataFrame:
    """`history.csv` of all cells in one table, with the cells' labels.

    Raises:
        UserError: a cell is not trained yet.
    """
    columns = ("epoch", "loss", "ce", "miou")
    return _stack(chosen, [cell.model / paths.HISTORY for cell in chosen], columns)


def confusion(chosen: Sequence[Cell], classes: Sequence[str]) -> pd.DataFrame:
    """Confusions of the teacher, `none` and AttnFD with the first seed: a row per pair of classes.

    Columns: the cell's labels, `truth` and `prediction`, and `share` of the pixels of `truth`, from 0 to 1.
    With many classes, only the right answers and confusions of at least half a per cent are listed, in this
    order.

    Raises:
        UserError: a cell has no results yet.
    """
    tables = []
    for cell in _representative(chosen):
        file = existing(cell, cell.results / paths.CONFUSION)
        matrix = statistics.read(file, file.as_posix()).matrices.sum(0, dtype=np.int64)
        pairs = pd.DataFrame(itertools.product(classes, classes), columns=["truth", "prediction"])
        pairs["share"] = (matrix / np.maximum(matrix.sum(1, keepdims=True), 1)).ravel()
        if len(pairs) > PAIRS:
            right = pairs["truth"] == pairs["prediction"]
            pairs = pd.concat([pairs[right], pairs[~right & (pairs["share"] >= 0.005)]])
        tables.append(_labelled(pairs, cell))
    return pd.concat(tables, ignore_index=True)


def existing(cell: Cell, file: Path) -> Path:
    """The path itself, if the file of the cell exists.

    Raises:
        UserError: the file is missing; the message names the cell and the command that makes it.
    """
    if not file.exists():
        target = "tune" if cell.stage == "tune" else f"report@{cell.dataset}"
        raise UserError(
            f"{file.as_posix()}: not found: {cell.name} of {cell.dataset} is not complete; "
            f"run dvc repro {target}"
        )
    return file


def described(cell: Cell, file: Path, keys: Collection[str]) -> dict[str, Any]:
    """The content of a JSON file of a cell, which must have these keys.

    Raises:
        UserError: the file is missing or damaged.
    """
    existing(cell, file)
    with reading(file.as_posix()):
        content = json.loads(file.read_bytes())
        need(keys, content)
    return content


def comparison(found: pd.DataFrame) -> pd.DataFrame:
    """The teacher, then a row per student and method (the paper's Tables 1 and 2); see `aggregate`."""
    return aggregate(found[found["variant"] == ""], "method", baseline="none")


def ablation(found: pd.DataFrame, params: Params, dataset: str) -> pd.DataFrame:
    """A row per student and set of distilled layers (the paper's Table 3, in its order); see `aggregate`.

    It has the variants that change only the layers, and two cells of `distill`: `none`, which distils no
    layer, and `attnfd`, the full method. Differences are to `none`. Empty if no such variant runs.
    """
    layers = {
        variant: _in_order(params.method("attnfd", dataset, variant).layers)
        for variant in params.run.ablate.variants
        if changes(params, variant).keys() == {"layers"}
    }
    if layers:
        layers |= {"none": (), "attnfd": _in_order(params.method("attnfd", dataset).layers)}
    variants = sorted(layers, key=lambda variant: COMBINATIONS.index(layers[variant]))
    table = aggregate(_ablated(found, params, variants), "variant", baseline="none")
    distilled = table["variant"].map(layers)
    for place, layer in enumerate(LAYERS, start=2):
        table.insert(place, layer, [layer in of_variant for of_variant in distilled])
    return table


def settings(found: pd.DataFrame, params: Params) -> pd.DataFrame:
    """A row per student and variant that changes more than the layers, after `attnfd`; see `aggregate`.

    `changed` lists the settings, as in `kd_weight = 1`. Differences are to `attnfd`, the full method. Empty
    if no such variant runs.
    """
    changed = {
        variant: ", ".join(f"{key} = {_spelled(value)}" for key, value in changes(params, variant).items())
        for variant in params.run.ablate.variants
        if changes(params, variant).keys() != {"layers"}
    }
    variants = ["attnfd", *changed] if changed else []
    table = aggregate(_ablated(found, params, variants), "variant", baseline="attnfd")
    table.insert(2, "changed", [changed.get(variant, "") for variant in table["variant"]])
    return table


def data(card: Card) -> pd.DataFrame:
    """A row per class and one for void: its pixels in every split, and their share of the split."""
    shares = {name: split.shares() for name, split in card.splits.items()}
    rows = []
    for key in (*card.classes, "void"):
        row: dict[str, Any] = {"class": key}
        for name, split in card.splits.items():
            row[f"{name}_pixels"] = {**split.pixels, "void": split.void}[key]
            row[f"{name}_share"] = shares[name][key]
        rows.append(row)
    return pd.DataFrame(rows)


def networks(table: pd.DataFrame) -> pd.DataFrame:
    """Parameters and multiply-adds of the networks of `comparison`, also as shares of the teacher's."""
    costs = table.groupby("student", sort=False)[["parameters", "multiply_adds"]].first()
    shares = (costs / costs.loc[TEACHER]).add_suffix("_share")
    return costs.join(shares).rename_axis("network").reset_index()


def changes(params: Params, variant: str) -> dict[str, Any]:
    """The settings of AttnFD that an ablation changes; nested ones have dotted keys."""
    (row,) = pd.json_normalize(params.raw["ablate"][variant]).to_dict("records")
    return {str(key): value for key, value in row.items()}


def aggregate(found: pd.DataFrame, by: str, baseline: str) -> pd.DataFrame:
    """Means over the seeds, a row per student and `by`, in the order of their first row.

    Columns: `student`, `by`, number of `seeds`, mean `miou`, its sample standard deviation `miou_std` (empty
    for one seed), means of the other `SCORES`, the `split` of these scores, mean `val_miou`, `parameters`,
    `multiply_adds`, how many seeds `collapsed`. Then the comparison with the student's row `baseline`, over
    the seeds that both have, by `attnfd.analysis.statistics.paired`: mean `difference` in mIoU, `low` and
    `high` of its 95 % interval, and `verdict`. One pair of trainings has no verdict.
    """
    means = {score: (score, "mean") for score in SCORES}
    table = found.groupby(["student", by], sort=False, as_index=False).agg(
        seeds=("miou", "size"),
        **{"miou": means["miou"], "miou_std": ("miou", "std"), **means},
        split=("split", "first"),
        val_miou=("val_miou", "mean"),
        parameters=("parameters", "first"),
        multiply_adds=("multiply_adds", "first"),
        collapsed=("collapsed", "sum"),
    )
    pairs = [
        None if name == baseline else difference(found, by, student, baseline, name)
        for student, name in zip(table["student"], table[by], strict=True)
    ]
    table["difference"] = [pair.mean if pair else None for pair in pairs]
    table["low"] = [pair.low if pair else None for pair in pairs]
    table["high"] = [pair.high if pair else None for pair in pairs]
    table["verdict"] = [pair.verdict if pair and pair.seeds > 1 else "" for pair in pairs]
    numbers = ["difference", "low", "high"]
    return table.astype(dict.fromkeys(numbers, float))


def difference(found: pd.DataFrame, by: str, student: str, a: str, b: str) -> Difference | None:
    """A student's mIoU with `b` minus that with `a`, over the seeds of both; None if they share no seed."""
    rows = found[found["student"] == student]
    ours, theirs = (rows[rows[by] == name].set_index("seed")["confusion"] for name in (b, a))
    seeds = ours.index.intersection(theirs.index, sort=False)
    return None if seeds.empty else statistics.difference(list(theirs[seeds]), list(ours[seeds]))


def nested(table: pd.DataFrame) -> dict[str, dict]:
    """Mean mIoU of `comparison` in per cent: the teacher's as `teacher`, all others by student and method."""
    tree: dict[str, dict] = {}
    for row in table.to_dict("records"):
        mean = {"miou": 100 * row["miou"]}
        if row["student"] == TEACHER:
            tree[TEACHER] = mean
        else:
            tree.setdefault(row["student"], {})[row["method"]] = mean
    return tree


def percent(value: float) -> str:
    """`0.7309` as `73.09`, or nothing if there is no score."""
    return "" if pd.isna(value) else f"{100 * value:.2f}"


def spread(mean: float, std: float) -> str:
    """`73.09 ± 0.06` in per cent; `73.09` without a deviation, such as for one seed."""
    return percent(mean) if pd.isna(std) else f"{percent(mean)} ± {percent(std)}"


def signed(value: float) -> str:
    """`+5.59` in per cent, or nothing if there is nothing to compare with."""
    return "" if pd.isna(value) else statistics.signed(value)


def _stack(chosen: Sequence[Cell], files: Sequence[Path], columns: Sequence[str]) -> pd.DataFrame:
    tables = []
    for cell, file in zip(chosen, files, strict=True):
        existing(cell, file)
        with reading(file.as_posix()):
            table = pd.read_csv(file)
            need(columns, table.columns)
            if "class" in columns:  # A name is text, even if it is 7, None or NA.
                table["class"] = pd.read_csv(file, usecols=["class"], dtype=str, keep_default_na=False)
            table[[name for name in columns if name != "class"]].astype(float)  # Checks that all are numbers.
        tables.append(_labelled(table, cell))
    return pd.concat(tables, ignore_index=True)


def _labelled(table: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    for place, (key, value) in enumerate({"cell": cell.name, **labels(cell)}.items()):
        table.insert(place, key, value)
    return table


def _representative(chosen: Sequence[Cell]) -> list[Cell]:
    """The teacher, and the first seed of every student without distillation and with AttnFD."""
    first: dict[tuple[str | None, str | None], Cell] = {}
    for cell in chosen:
        if cell.variant is None and cell.method in (None, "none", "attnfd"):
            first.setdefault((cell.student, cell.method), cell)
    return list(first.values())


def _ablated(found: pd.DataFrame, params: Params, variants: Sequence[str]) -> pd.DataFrame:
    """Rows of the ablation's students and seeds, in the order of `variants`; `distill` cells by method."""
    axes = params.run.ablate
    rank = {row: place for place, row in enumerate(itertools.product(axes.students, variants))}
    table = found[found["seed"].isin([str(seed) for seed in axes.seeds])].copy()
    table["variant"] = table["variant"].where(table["variant"] != "", table["method"])
    table["rank"] = [rank.get(row) for row in zip(table["student"], table["variant"], strict=True)]
    return table.dropna(subset="rank").sort_values("rank", kind="stable")


def _in_order(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    return tuple(layer for layer in LAYERS if layer in layers)


def _spelled(value: Any) -> str:
    """A value as `params.yaml` writes it."""
    return value if isinstance(value, str) else json.dumps(value)
