"""Reads files of other stages. A disk, a transfer or an editor may have damaged them."""

import zlib
from collections.abc import Collection, Container, Iterator
from contextlib import contextmanager
from zipfile import BadZipFile

from attnfd.errors import UserError


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Report an error in this context as a damaged file.

    Args:
        name: of the file.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        yield
    except (ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(f"{name}: damaged ({reason}); restore it: dvc checkout --force") from None


def need(names: Collection[str], found: Container[str]) -> None:
    """Check that a file has these columns or arrays.

    Raises:
        ValueError: some are missing.
    """
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"without {', '.join(missing)}")
