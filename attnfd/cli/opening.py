"""The first line that a stage prints: its cell, and the number of the cell in the graph."""

from collections.abc import Sequence

from attnfd.config.params import Params
from attnfd.paths import Cell

STAGES = {
    "prepare": "train_teacher",
    "train_teacher": "train_teacher",
    "evaluate_teacher": "train_teacher",
    "freeze": "train_teacher",
    "trials": "train_teacher",
    "tune": "tune",
    "distill": "distill",
    "evaluate": "distill",
    "ablate": "ablate",
    "report": "train_teacher",
}
"""The stages in the order of `dvc repro`, each with the stage that trains the models of its cells."""


def announce(stage: str, cells: Sequence[Cell], params: Params) -> None:
    """Print a line for each cell. Of several processes, only the first one prints."""
    from attnfd.runtime import processes

    if processes.rank() == 0:
        for cell in cells:
            print(line(stage, cell, params), flush=True)


def line(stage: str, cell: Cell, params: Params) -> str:
    """`cell 7 of 16 · distill shapes mobilenetv2 attnfd, seed 0`; no number if the graph lacks the cell."""
    names = (cell.dataset, cell.student, cell.variant or cell.method, cell.factor)
    seed = "" if cell.seed is None else f", seed {cell.seed}"
    shown = f"{stage} {' '.join(name for name in names if name)}{seed}"
    cells = graph(params)
    if (stage, cell) not in cells:
        return shown
    return f"cell {cells.index((stage, cell)) + 1} of {len(cells)} · {shown}"


def graph(params: Params) -> list[tuple[str, Cell]]:
    """Stage and model of every cell of the graph, in the order of `dvc repro`."""
    axes = params.run
    return [
        (stage, cell)
        for stage, trained_by in STAGES.items()
        for dataset in axes.datasets
        for cell in (*Cell.all(axes, dataset), *Cell.trials(axes.tune, params.tune.factors, dataset))
        if cell.stage == trained_by
    ]
