"""Tasks for stages that tests call without the command line."""

from attnfd.config.params import Params
from attnfd.config.task import Task
from attnfd.paths import Cell


def of(params: Params, dataset: str) -> list[Task]:
    """The task of a stage that processes a whole dataset."""
    return [Task(params, Cell.teacher(dataset))]
