"""trials: write the settings that the trials of each tuned method start from, a file per method.

Trials depend on these files and not on `methods.<method>`: `attnfd choose` writes the weight that they choose
there, and this must not make the trials stale.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attnfd import paths
from attnfd.config.task import Task


def trials(tasks: Sequence[Task]) -> list[Path]:
    """Write the settings of every tuned method on each dataset, without those that trials choose.

    Returns:
        The folders. Each has `methods.json`, the list of the methods, even if it is empty.
    """
    return [_write_all(task) for task in tasks]


def _write_all(task: Task) -> Path:
    dataset, methods = task.cell.dataset, task.params.run.tune.methods
    folder = paths.untuned(dataset)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "methods.json", methods)
    for method in methods:
        _write(folder / f"{method}.json", task.params.untuned(method, dataset))
    return folder


def _write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
