"""A section of `params.yaml`: what its values may be, and how a wrong one is reported."""

import difflib
import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from attnfd.errors import UserError

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


RENAMED = {"tap": "point"}
"""Keys that had another name before version 0.2, and their names now."""


class Section(BaseModel):
    """A section of `params.yaml`: keyword-only, frozen, strict about types and keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


SectionT = TypeVar("SectionT", bound=Section)


def validate(kind: type[SectionT], raw: Mapping[str, Any], where: str) -> SectionT:
    """Type a section; `where` opens the message when it does not hold."""
    try:
        return typed(kind, raw)
    except ValidationError as error:
        raise UserError(f"{where}.{explain(kind, error)}") from None


def typed(kind: type[SectionT], raw: Mapping[str, Any]) -> SectionT:
    # By way of JSON, strict types still take a list for a tuple and a whole number for a float.
    return kind.model_validate_json(json.dumps(raw, default=str))


def explain(kind: type[Section], error: ValidationError) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        if path[-1] in RENAMED:
            return f"{key}: is now named {RENAMED[path[-1]]!r}; rename it in your file"
        allowed = _keys(kind, path[:-1])
        near = difflib.get_close_matches(path[-1], allowed, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{key}: unknown key; {hint}allowed: {', '.join(allowed)}"
    if first["type"] == "missing":
        return f"{key}: missing; give it a value"
    if first["type"] == "value_error":
        return ".".join([*path, str(first["ctx"]["error"])])
    message = first["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"{key}: found {json.dumps(first['input'])}; allowed: {message}"


def _keys(kind: type[Section], path: list[str]) -> tuple[str, ...]:
    """The keys of the section that lies at `path` inside a section."""
    for part in path:
        annotation = kind.model_fields[part].annotation
        # `Attention | None` has its section among its alternatives.
        kind = next(
            option for option in (annotation, *get_args(annotation)) if hasattr(option, "model_fields")
        )
    return tuple(kind.model_fields)
