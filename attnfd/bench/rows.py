"""The rows of a benchmark's table."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np
from rich.table import Table


class Row(NamedTuple):
    """One timing: median, 10th and 90th percentile over the rounds.

    `ratio`: to the part's first row. `memory_mib`: peak memory of a process that ran nothing else.
    """

    part: str
    name: str
    ms: float
    ms_p10: float
    ms_p90: float
    ratio: float
    images_per_second: float | None = None
    memory_mib: float | None = None


def to_rows(part: str, seconds: Mapping[str, Sequence[float]]) -> list[Row]:
    """Rows of a part; the ratios are to the first row.

    Example:
        >>> [(row.name, row.ms, row.ratio) for row in to_rows("", {"a": [1, 2, 4], "b": [3, 4, 4]})]
        [('a', 2000.0, 1.0), ('b', 4000.0, 2.0)]
    """
    first = next(iter(seconds.values()))
    rows = []
    for name, taken in seconds.items():
        p10, p90 = (1000 * float(value) for value in np.percentile(taken, [10, 90]))
        ratio = median(own / other for own, other in zip(taken, first, strict=True))
        rows.append(Row(part, name, 1000.0 * median(taken), p10, p90, ratio))
    return rows


def table(rows: Sequence[Row]) -> Table:
    """The rows of a part as a table."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column(rows[0].part, no_wrap=True)
    for column in ("ms", "p10–p90", "ratio", "images/s", "peak MiB"):
        shown.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        speed = "" if row.images_per_second is None else f"{row.images_per_second:.1f}"
        memory = "" if row.memory_mib is None else f"{row.memory_mib:.0f}"
        spread = f"{row.ms_p10:.1f}–{row.ms_p90:.1f}"
        shown.add_row(row.name, f"{row.ms:.1f}", spread, f"{row.ratio:.2f}", speed, memory)
    return shown


def metric_name(name: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in name)
