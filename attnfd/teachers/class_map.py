"""The class map of a teacher with other classes: which of its classes are merged into each dataset class."""

from collections.abc import Sequence

from attnfd.config.schema import TrainTeacher
from attnfd.discovery import one_of
from attnfd.errors import UserError
from attnfd.models.network import ClassMap

KEY = "train_teacher.class_map"


def numbers(config: TrainTeacher, dataset: Sequence[str]) -> ClassMap | None:
    """For each class of the dataset, the numbers of the teacher's classes that `config` maps to it.

    Args:
        dataset: the names of the dataset's classes.

    Returns:
        The numbers; None if there is no `class_map`.

    Raises:
        UserError: a class does not exist, is named twice, or no class is mapped to it.

    Example:
        >>> config = TrainTeacher.model_construct(
        ...     classes=("road", "car", "sky", "bus"), class_map={"road": "a", "car": "b", "bus": "b"}
        ... )
        >>> numbers(config, ["b", "a"])
        ((1, 3), (0,))
    """
    if config.class_map is None:
        return None
    theirs = config.classes
    assert theirs is not None
    if twice := [name for name in theirs if theirs.count(name) > 1]:
        raise UserError(f"train_teacher.classes: found {twice[0]!r} twice; allowed: each name once")
    for source, target in config.class_map.items():
        one_of(source, theirs, KEY)
        one_of(target, tuple(dataset), f"{KEY}.{source}")
    found = tuple(
        tuple(number for number, name in enumerate(theirs) if config.class_map.get(name) == target)
        for target in dataset
    )
    for target, sources in zip(dataset, found, strict=True):
        if not sources:
            raise UserError(
                f"{KEY}: found no class of the teacher for {target!r} of the dataset; map one or several "
                "to it"
            )
    return found
