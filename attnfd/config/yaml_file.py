"""Reads a YAML file that may come from anywhere."""

import itertools
import json
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import CollectionNode, MappingNode

from attnfd.errors import UserError

LARGEST = 100_000
"""The most keys and values of a YAML file. The content of an alias counts each time."""


def load_yaml(text: str, source: str) -> Any:
    """The content of a YAML file; code in the file does not run.

    DVC reads it with a library in C, which refuses more files and crashes on lists nested without end.

    Raises:
        UserError: the text is not YAML, or has values that JSON does not have; the message begins with
            `source`.
    """
    try:
        if _size(YAML(typ="safe", pure=True).compose(text), {}) > LARGEST:
            raise ValueError(f"found more than {LARGEST} keys and values, counting the content of each alias")
        raw = YAML(typ="safe").load(text)
        json.dumps(raw, default=str)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        hint = "; between { and }, put a value with a : in quotes" if "unexpected ':'" in str(problem) else ""
        raise UserError(f"{source}{line}: {' '.join(str(problem).split())}{hint}") from None
    except Exception as error:  # A tag on a value of another type raises anything; so do endless aliases.
        reason = " ".join(str(error).split())
        raise UserError(f"{source}: {reason}; allowed: plain keys and values") from None
    return raw


def _size(node: Any, known: dict[int, int]) -> int:
    """Number of keys and values of a YAML node. Aliases share nodes, so each node is visited once."""
    if not isinstance(node, CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = LARGEST + 1  # The result for a node that is inside itself.
        parts = itertools.chain(*node.value) if isinstance(node, MappingNode) else node.value
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]
