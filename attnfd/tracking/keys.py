"""Names of settings, terms and classes as keys of MLflow, and back.

A key is a path of names, such as `val/iou/sky` or `prepare.classes.sky`. MLflow allows letters, digits, `_`,
`-`, `.`, `/`, `:` and spaces in it. It refuses paths such as `a//b` and `a/..`, and with them all keys of the
same batch. So any other character of a name becomes `_x<its code point in hexadecimal>_`, and so do dots,
slashes, colons and the spaces at both ends. An underscore before an x becomes `_x5f_`, so that no two names
give the same key.
"""

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, TypeVar

Names = tuple[str, ...]
Value = TypeVar("Value")

LONGEST = 250
"""The most characters of a key in MLflow."""

CUT = ":"
"""A longer key is cut and ends with this and a digest of the whole key. No encoded name contains it."""

_READABLE = re.compile(r"[^\w\- ]|^ | \Z|_(?=x)")
_LOWER = re.compile(r"[^a-z0-9_\- ]|^ | \Z|_(?=x)")
_EMPTY = "_x_"


def leaves(nested: Mapping[Any, Any], *above: str) -> dict[Names, Any]:
    """The leaves of nested mappings, by the names on their path from the outermost mapping."""
    found: dict[Names, Any] = {}
    for name, value in nested.items():
        path = (*above, str(name))
        found |= leaves(value, *path) if isinstance(value, Mapping) else {path: value}
    return found


def encode(values: Mapping[Names, Value], separator: str) -> dict[str, Value]:
    """Values by keys of MLflow instead of names.

    Some stores ignore case and accents. If two keys would be equal there, all keys become lower-case ASCII.

    Example:
        >>> encode({("iou", "bicycle, bike"): 0.5, ("iou", "sky"): 0.75}, "/")
        {'iou/bicycle_x2c_ bike': 0.5, 'iou/sky': 0.75}
    """
    keys = [_key(names, separator, _READABLE) for names in values]
    if len({_folded(key) for key in keys}) < len(keys):
        keys = [_key(names, separator, _LOWER) for names in values]
    return dict(zip(keys, values.values(), strict=True))


def decode(key: str, separator: str) -> Names:
    """The names of a key.

    Raises:
        ValueError: the key was cut; its names cannot be known.

    Example:
        >>> decode("iou/bicycle_x2c_ bike", "/")
        ('iou', 'bicycle, bike')
    """
    if CUT in key:
        raise ValueError(f"{key}: was cut to {LONGEST} characters")
    return tuple(re.sub("_x([0-9a-f]*)_", _character, part) for part in key.split(separator))


def _key(names: Names, separator: str, escaped: re.Pattern[str]) -> str:
    key = separator.join(escaped.sub(lambda found: f"_x{ord(found[0]):x}_", name) or _EMPTY for name in names)
    if len(key) <= LONGEST:
        return key
    end = f"{CUT}{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    return key[: LONGEST - len(end)] + end


def _folded(key: str) -> str:
    decomposed = unicodedata.normalize("NFKD", key.casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter)).casefold()


def _character(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)) if escape[1] else ""
