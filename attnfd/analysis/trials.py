"""The scores of the trials of each method's weight, and the weights that they choose."""

from collections.abc import Sequence

import pandas as pd

from attnfd import paths
from attnfd.analysis.tables import described
from attnfd.config.params import Params
from attnfd.paths import Cell

READ = ("weight", "trained_on", "scored_on", "miou")


def cells(params: Params, dataset: str) -> list[Cell]:
    """The trials that `run.tune` and `tune.factors` ask for."""
    return Cell.trials(params.run.tune, params.tune.factors, dataset)


def scores(chosen: Sequence[Cell]) -> pd.DataFrame:
    """A row per trial: `student`, `method`, `factor`, `seed`, `weight`, its number of images `trained_on` and
    `scored_on`, and its `miou`.

    Raises:
        UserError: a trial has not run.
    """
    rows = []
    for cell in chosen:
        card = described(cell, cell.model / paths.CARD, READ)
        named = {"student": cell.student, "method": cell.method, "factor": cell.factor, "seed": cell.seed}
        rows.append({**named, **{key: card[key] for key in READ}})
    return pd.DataFrame(rows)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """A row per method and factor: its weight, the mean `miou` over its `trials`, and whether it is `chosen`.

    The factor with the highest mean over students and seeds is chosen; of equal ones, the one nearest to 1.
    """
    means = found.groupby(["method", "factor"], sort=False, as_index=False).agg(
        weight=("weight", "first"), trials=("miou", "size"), miou=("miou", "mean")
    )
    # Rounded, because the last digits of a mean depend on the order of its terms.
    ranked = means.assign(miou=means["miou"].round(9), distance=means["factor"].map(_distance))
    best = ranked.sort_values(["miou", "distance"], ascending=[False, True]).drop_duplicates("method")
    return means.assign(chosen=means.index.isin(best.index))


def _distance(factor: str) -> float:
    return max(float(factor), 1 / float(factor))
