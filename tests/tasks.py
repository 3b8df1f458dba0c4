"""Tasks for stages that are called without the command line."""

from attnfd.config.params import Params
from attnfd.config.task import Task
from attnfd.paths import Cell


def of(params: Params, dataset: str) -> list[Task]:
    """The task of a stage that works on a whole dataset."""
    return [Task(params, Cell.teacher(dataset))]
