"""A section of `params.yaml`: the values that are valid, and the message for one that is not."""

import difflib
import json
from collections.abc import Mapping
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from attnfd.errors import UserError


def within(least: float, most: float, why: str) -> AfterValidator:
    """Bounds of a value, and the reason for them, which the message shows."""

    def check(value: float) -> float:
        if least <= value <= most:
            return value
        low, high = (int(bound) if bound == int(bound) else bound for bound in (least, most))
        raise PydanticCustomError("bounds", f"{low} to {high}, as {why}")

    return AfterValidator(check)


Positive = Annotated[int, Field(gt=0), within(1, 1e6, "no machine has time or memory for more")]
Count = Annotated[int, Field(ge=0), within(0, 1e6, "no machine has time or memory for more")]
NonNegative = Annotated[float, Field(ge=0), within(0, 1e9, "losses with larger factors overflow")]
Divisor = Annotated[
    float,
    Field(gt=0),
    within(1e-9, 1e9, "a loss overflows with a smaller one and vanishes with a larger one"),
]
Side = Annotated[int, Field(gt=0), within(1, 16384, "larger images do not fit into memory")]
Batch = Annotated[int, Field(gt=0), within(1, 4096, "all images of a step are in memory at once")]
Rate = Annotated[
    float,
    Field(gt=0),
    within(1e-9, 1e3, "SGD learns nothing with a smaller one and diverges with a larger one"),
]
Temperature = Annotated[
    float,
    Field(gt=0),
    within(1e-3, 1e3, "a softmax picks one class at lower temperatures and is flat at higher ones"),
]
Probability = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


RENAMED = {"tap": "point"}
"""Keys that had another name before version 0.2, and their names now."""


if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _Called(ModelMetaclass):
    """A section made in Python code: lists count as tuples, and an invalid value gives a one-line error."""

    if not TYPE_CHECKING:  # Type checkers use the section's own fields.

        def __call__(cls, *args: Any, **values: Any) -> Any:  # noqa: N805
            if args:
                first = next(iter(cls.model_fields))
                raise TypeError(f"{cls.__qualname__}: give every value by its name, such as {first}=…")
            try:
                return super().__call__(**values)
            except ValidationError:
                return validate(cls, values, cls.__qualname__)


class Section(BaseModel, metaclass=_Called):
    """A section of `params.yaml`: keyword-only, frozen, strict about types and keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


LONGEST = 80
"""The most characters of an invalid value that a message shows."""

SectionT = TypeVar("SectionT", bound=Section)


def validate(kind: type[SectionT], raw: Mapping[str, Any], where: str) -> SectionT:
    """A section from plain values.

    Raises:
        UserError: a value is not valid; the message begins with `where`.
    """
    try:
        return typed(kind, raw)
    except ValidationError as error:
        raise UserError(f"{where}.{explain(kind, error)}") from None


def typed(kind: type[SectionT], raw: Mapping[str, Any]) -> SectionT:
    # From JSON, strict types accept a list for a tuple and a whole number for a float.
    return kind.model_validate_json(json.dumps(raw, default=_plain))


def _plain(value: Any) -> Any:
    """A value that JSON does not have: a section as its keys and values, anything else as text."""
    return value.model_dump() if isinstance(value, Section) else str(value)


def explain(kind: type[Section], error: ValidationError) -> str:
    """The first error, in the words of YAML."""
    first, *others = error.errors()
    path = [str(part) for part in first["loc"]]
    choice = bool(path) and _is_choice(kind, path[0])
    if choice:
        path = path[:1]  # The next part is the name of one of the allowed types.
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
    same = [first, *(other for other in others if choice and other["loc"][0] == path[0])]
    return f"{key}: found {_shown(first['input'])}; allowed: {', or '.join(map(_wanted, same))}"


def _shown(value: Any) -> str:
    """A value as it is in the file, or the beginning of a long one."""
    text = json.dumps(value, default=_plain, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _is_choice(kind: type[Section], key: str) -> bool:
    """Whether a key takes values of several types, without counting None."""
    field = kind.model_fields.get(key)
    return field is not None and sum(one is not type(None) for one in _alternatives(field.annotation)) > 1


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _wanted(error: Any) -> str:
    """What pydantic expects, with an example if YAML has another word for it."""
    found = json.dumps(error["input"], default=_plain)
    if error["type"] in ("list_type", "tuple_type"):
        return f"a list, such as {found if isinstance(error['input'], list) else f'[{found}]'}"
    if error["type"] in ("dict_type", "model_type", "model_attributes_type"):
        made = error.get("ctx", {}).get("class_name")
        return f"keys with values, such as {{a: 0, b: 1}}{f', in Python {made}(…)' if made else ''}"
    if error["type"] in ("too_short", "too_long"):
        least = error["type"] == "too_short"
        count = error["ctx"]["min_length" if least else "max_length"]
        return f"at {'least' if least else 'most'} {count} {'value' if count == 1 else 'values'}"
    return error["msg"].removeprefix("Input should be ").removeprefix("a valid ")


def _keys(kind: type[Section], path: list[str]) -> tuple[str, ...]:
    """The keys of the section at `path` inside a section."""
    for part in path:
        annotation = kind.model_fields[part].annotation
        # `Attention | None` has its section among its alternatives.
        kind = next(
            option for option in (annotation, *get_args(annotation)) if hasattr(option, "model_fields")
        )
    return tuple(kind.model_fields)
