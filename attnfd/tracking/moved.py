"""Updates the addresses in a store after its project was moved or copied.

MLflow stores absolute addresses of files, and has no way to change them.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns of MLflow's database that contain the address of a file."""


def follow(database: Path) -> None:
    """Rewrite the addresses of experiments that now have their files next to the database.

    An experiment keeps its addresses if it has no files there, or if its old folder is the same folder, for
    example through a link.
    """
    with closing(sqlite3.connect(database, timeout=60)) as opened:
        known = {table for (table,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not known >= {table for table, _ in ADDRESSES}:
            return  # MLflow has not created its tables yet, or has to migrate them to this version.
        for old, new in list(_moved(opened, database.parent)):
            with opened:
                for table, column in ADDRESSES:
                    opened.execute(
                        f"UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1) "
                        f"WHERE {column} = :old OR substr({column}, 1, length(:old) + 1) = :old || '/'",
                        {"old": old, "new": new},
                    )


def files(root: Path, experiment: str) -> Path:
    """Where the files of an experiment are, in the folder of the database."""
    return root / "mlruns" / experiment


def _moved(opened: sqlite3.Connection, root: Path) -> Iterator[tuple[str, str]]:
    """The old and the new address of each experiment that was moved."""
    for name, old in opened.execute("SELECT name, artifact_location FROM experiments"):
        here = files(root, name)
        tail = here.as_uri().removeprefix(root.as_uri())
        if old and old.endswith(tail) and here.is_dir() and not _same(old, here):
            yield old, here.as_uri()


def _same(address: str, folder: Path) -> bool:
    there = Path(url2pathname(urlsplit(address).path))
    return there.is_dir() and there.samefile(folder)
