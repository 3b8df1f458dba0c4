"""trials: what the trials of each method begin from, a file per method.

Trials depend on these files rather than on `methods.<method>`: a weight that is chosen from them is written
there, and must not make them stale.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from attnfd import paths
from attnfd.config.task import Task


def trials(tasks: Sequence[Task]) -> list[Path]:
    """Write the settings of every method on each dataset, without those that are chosen from trials.

    Returns:
        The folders.
    """
    return [_write(task) for task in tasks]


def _write(task: Task) -> Path:
    dataset = task.cell.dataset
    folder = paths.untuned(dataset)
    folder.mkdir(parents=True, exist_ok=True)
    for method in task.params.raw["methods"]:
        text = json.dumps(task.params.untuned(method, dataset), indent=2, sort_keys=True)
        (folder / f"{method}.json").write_text(text + "\n", encoding="utf-8")
    return folder
