"""Reading what other stages left, some of which a disk, a transfer or an editor may have damaged."""

import zlib
from collections.abc import Collection, Container, Iterator
from contextlib import contextmanager
from zipfile import BadZipFile

from attnfd.errors import UserError


@contextmanager
def reading(name: str) -> Iterator[None]:
    """What cannot be read inside is a damaged file.

    Args:
        name: of the file.

    Raises:
        UserError: the file is not what a stage wrote.
    """
    try:
        yield
    except (ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(f"{name}: damaged ({reason}); restore it: dvc checkout --force") from None


def need(names: Collection[str], found: Container[str]) -> None:
    """See that a file has these columns or arrays.

    Raises:
        ValueError: it has not.
    """
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"without {', '.join(missing)}")
