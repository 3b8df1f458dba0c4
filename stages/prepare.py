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
from attnfd.data.prepared import Prepared, dataset_root, write_warnings
from attnfd.discovery import component
from attnfd.scan.doubts import doubts
from attnfd.scan.files import scan
from attnfd.scan.index import describe, to_index
from attnfd.scan.show import show
from attnfd.scan.trainable import check_trainable


def prepare(params: Params, dataset: str) -> None:
    """Write the index and card of a dataset, or nothing, and print what it holds.

    Raises:
        UserError: an option is not valid, the dataset is not there, files of it are faulty, or nothing can be
            trained on it.
    """
    settings = params.prepare(dataset)
    kind = component("readers", settings.reader)
    options = validate(kind.Options, settings.options, f"{params.source}: recipes.{dataset}.prepare")

    with _whole(paths.prepared(dataset)) as folder:
        reader = kind(options, dataset_root(settings, folder))
        reader.draw()
        pairs = reader.pairs()
        images = sum(map(len, pairs.values()))
        findings = list(track(scan(reader, pairs), description=f"Checking {dataset}", total=images))
        index = to_index(findings, reader, dataset)
        card = describe(dataset, settings, reader, index)
        check_trainable(card, reader, findings)
        warnings = doubts(card, findings)
        Prepared(card, index, reader.root).write(folder)
        write_warnings(folder, warnings)
    show(card, warnings)


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
