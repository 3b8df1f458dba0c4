"""Components found by file name: `attnfd/distillers/kd.py` is the method `kd`.

A package of components contains `base.py` with the base class, and one file per component. Each such file
defines one subclass. Names come from the file system, so that checking a name imports nothing.
"""

import difflib
import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

from attnfd.errors import UserError

PROJECT = __name__.partition(".")[0]
"""The name of this package; in a logged model its modules are in a package of another name."""

LISTED = 30
"""Most names that a message lists."""


def names(package: str) -> tuple[str, ...]:
    """Names of the components in `attnfd/<package>/`, sorted."""
    folder = Path(__file__).parent / package
    return tuple(sorted(file.stem for file in folder.glob("*.py") if file.stem not in ("__init__", "base")))


def one_of(found: str, allowed: tuple[str, ...], key: str) -> str:
    """Return `found` if it is allowed.

    Raises:
        UserError: it is not; the message contains `key`, the closest name, and the first allowed names.
    """
    if found in allowed:
        return found
    near = difflib.get_close_matches(str(found), allowed, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = ", ".join(allowed[:LISTED]) or "nothing yet"
    if len(allowed) > LISTED:
        listed += f", … ({len(allowed)} in all)"
    raise UserError(f"{key}: unknown name {found!r}; {hint}allowed: {listed}")


def component(package: str, name: str) -> Any:
    """The class that `attnfd/<package>/<name>.py` defines.

    Raises:
        UserError: there is no such file.
    """
    one_of(name, names(package), package)
    module = import_module(f"{PROJECT}.{package}.{name}")
    base = import_module(f"{PROJECT}.{package}.base").BASE
    found = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, base) and kind.__module__ == module.__name__
    ]
    assert len(found) == 1, f"{module.__name__} must define exactly one subclass of {base.__name__}"
    return found[0]
