"""Sets single values of a params file, and keeps its comments, order and lines."""

from collections.abc import Mapping
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

Key = tuple[str, ...]


def edited(text: str, changes: Mapping[Key, Any]) -> str:
    """The text of a params file with other values.

    Args:
        changes: new values by their path of keys; a mapping replaces the old one.

    Example:
        >>> kept = "methods:\\n  kd: {weight: 1} # Hinton\\n"
        >>> print(edited(kept, {("methods", "kd", "on", "shapes", "weight"): 3.0}), end="")
        methods:
          kd: {weight: 1, on: {shapes: {weight: 3}}} # Hinton
    """
    editor = YAML(typ="rt")
    editor.preserve_quotes = True
    editor.width = 4096  # Lines stay as long as they are.
    editor.representer.add_representer(type(None), _null)
    params = editor.load(text)
    for (*parents, key), value in changes.items():
        inside = params
        for parent in parents:
            inside = _inside(inside, parent)
        inside[key] = _plain(value)
    written = StringIO()
    editor.dump(params, written)
    return written.getvalue()


def _inside(parent: CommentedMap, key: str) -> Any:
    """The mapping under a key. New and empty ones are written in one line, so comments keep their places."""
    if not isinstance(parent.get(key), dict) or not parent[key]:
        parent[key] = _plain({})
    return parent[key]


def _plain(value: Any) -> Any:
    """A value as a person would write it: whole numbers without a point, mappings and lists in one line."""
    if isinstance(value, Mapping):
        mapping = CommentedMap({key: _plain(inside) for key, inside in value.items()})
        mapping.fa.set_flow_style()
        return mapping
    if isinstance(value, float) and value == int(value):
        return int(value)
    return value


def _null(representer: Any, _: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")
