"""Reads a YAML file that may come from anywhere."""

import itertools
import json
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import CollectionNode, MappingNode

from attnfd.errors import UserError

LARGEST = 100_000
"""Most keys and values of a YAML file. What an alias stands for counts each time."""


def load_yaml(text: str, source: str) -> Any:
    """The content of a YAML file, without running code out of it; `source` opens the message.

    DVC reads it with a library in C, which refuses more, and crashes where lists are nested without end.

    Raises:
        UserError: it is no YAML, or has values that JSON cannot have.
    """
    try:
        if _size(YAML(typ="safe", pure=True).compose(text), {}) > LARGEST:
            raise ValueError(f"found more than {LARGEST} keys and values, aliases counted by what they name")
        raw = YAML(typ="safe").load(text)
        json.dumps(raw, default=str)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "no YAML"
        hint = "; between { and }, put a value with a : in quotes" if "unexpected ':'" in str(problem) else ""
        raise UserError(f"{source}{line}: {' '.join(str(problem).split())}{hint}") from None
    except Exception as error:  # a tag on a value that it does not fit raises anything; so do endless aliases
        reason = " ".join(str(error).split())
        raise UserError(f"{source}: {reason}; allowed: plain keys and values") from None
    return raw


def _size(node: Any, known: dict[int, int]) -> int:
    """Keys and values of a YAML node. Aliases share nodes, so each node is looked at once."""
    if not isinstance(node, CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = LARGEST + 1  # For a node that is inside itself.
        parts = itertools.chain(*node.value) if isinstance(node, MappingNode) else node.value
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]
