"""prepare: read or draw a dataset, check every file, and write `data/<dataset>/` (card and index)."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.progress import track

from attnfd import paths
from attnfd.config.section import validate
from attnfd.config.task import Task
from attnfd.data.prepared import Card, Prepared, dataset_root, write_warnings
from attnfd.discovery import component
from attnfd.scan.doubts import doubts
from attnfd.scan.files import scan
from attnfd.scan.index import describe, to_index
from attnfd.scan.show import show
from attnfd.scan.trainable import check_trainable
from attnfd.scan.whole import choose_depth, compare, remarks


def prepare(tasks: Sequence[Task]) -> list[Card]:
    """Write the index and card of each dataset, and print what it contains. After an error, write nothing.

    Returns:
        The cards.

    Raises:
        UserError: an option is not valid, the dataset is not there, some of its files are faulty, or nothing
            can be trained on it.
    """
    return [_prepare(task) for task in tasks]


def _prepare(task: Task) -> Card:
    params, dataset = task.params, task.cell.dataset
    settings = task.settings.prepare
    kind = component("readers", settings.reader)
    options = validate(kind.Options, settings.options, f"{params.source}: recipes.{dataset}.prepare")

    with _whole(paths.prepared(dataset)) as folder:
        reader = kind(options, dataset_root(params, dataset, folder))
        reader.draw()
        pairs = reader.pairs()
        images = sum(map(len, pairs.values()))
        findings = list(track(scan(reader, pairs), description=f"Checking {dataset}", total=images))
        depth = choose_depth(settings, reader.root, findings)
        compare(reader, findings, depth)
        index = to_index(findings, reader, dataset, pairs)
        card = describe(dataset, settings, reader, index, depth)
        check_trainable(card, reader, findings)
        warnings = [*doubts(card, findings), *reader.remarks, *remarks(settings, reader, findings, depth)]
        Prepared(card, index, reader.root).write(folder)
        write_warnings(folder, warnings)
    show(card, warnings)
    return card


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A new folder that replaces `folder` once it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        new = Path(scratch, folder.name)
        new.mkdir()
        yield new
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)
