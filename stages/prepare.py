"""prepare: read or draw a dataset, check every file, and write `data/<dataset>/` (card and index)."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import track

from attnfd import paths
from attnfd.config.params import Params
from attnfd.config.section import validate
from attnfd.data.prepared import Prepared, dataset_root
from attnfd.discovery import component
from attnfd.scan.files import scan
from attnfd.scan.index import describe, to_index


def prepare(params: Params, dataset: str) -> None:
    """Write the index and card of a dataset, or nothing.

    Raises:
        UserError: an option does not hold, the dataset is not there, or files of it are faulty.
    """
    settings = params.prepare(dataset)
    kind = component("readers", settings.reader)
    options = validate(kind.Options, settings.options, f"{params.source}: recipes.{dataset}.prepare")

    with _whole(paths.prepared(dataset)) as folder:
        reader = kind(options, dataset_root(params, dataset, folder))
        reader.draw()
        pairs = reader.pairs()
        images = sum(map(len, pairs.values()))
        findings = track(scan(reader, pairs), description=f"Checking {dataset}", total=images)
        index = to_index(findings, reader, dataset)
        card = describe(dataset, settings, reader, index)
        Prepared(card, index, reader.root).write(folder)


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of `folder` once it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        new = Path(scratch, folder.name)
        new.mkdir()
        yield new
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)
