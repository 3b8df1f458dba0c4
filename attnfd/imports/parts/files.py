"""Reading the files of an export: text, JSON with required keys, and images inside other files."""

import json
from io import BytesIO
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Annotated, Any, TypeVar

from PIL import Image
from pydantic import AfterValidator, BaseModel, Field, ValidationError
from pydantic_core import PydanticCustomError

from attnfd.config.yaml_file import load_yaml
from attnfd.data.images import FORMATS, UNREADABLE
from attnfd.errors import UserError

INSTALL = "install it: pip install 'attnfd[import]'"
LONGEST = 60
"""How many characters of an invalid value a message shows."""


def read_text(file: Path) -> str:
    """The text of a file.

    Raises:
        UserError: it is missing, or not UTF-8 text.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text ({error})") from None


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: it is missing, or not valid JSON.
    """
    try:
        return json.loads(read_text(file))
    except ValueError as error:
        raise UserError(f"{file}: not valid JSON ({error})") from None


def _number_or_text(value: Any) -> Any:
    if isinstance(value, int | str):
        return value
    raise PydanticCustomError("id", "a number or a text")


Id = Annotated[Any, AfterValidator(_number_or_text)]
"""An id by which objects of a JSON file refer to each other."""

Byte = Annotated[int, Field(ge=0, le=255)]
Rgb = tuple[Byte, Byte, Byte]

Pixels = Annotated[int, Field(gt=0)]
"""Height or width."""


class Part(BaseModel):
    """What a part of a JSON file must contain; other keys are ignored."""


PartT = TypeVar("PartT", bound=Part)


def typed(kind: type[PartT], content: Any, where: str | Path) -> PartT:
    """The content of a JSON file or of a part of it, checked.

    Raises:
        UserError: it is invalid; the message names the first wrong key, and how many more there are.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first, *others = error.errors()
        key = ".".join(map(str, first["loc"])) or "it"
        wrong = f"found {json.dumps(first['input'], default=str)[:LONGEST]}; allowed: {_wanted(first['msg'])}"
        missing = first["type"] == "missing"
        more = f" (and {len(others)} more)" if others else ""
        raise UserError(f"{where}: {key}: {'missing' if missing else wrong}{more}") from None


def _wanted(message: str) -> str:
    return message.removeprefix("Input should be ").removeprefix("a valid ")


def read_yaml(file: Path) -> Any:
    """The content of a YAML file."""
    return load_yaml(read_text(file), str(file))


def mentions(file: Path, *words: str) -> bool:
    """Whether a text file contains all of these words, without reading it into memory."""
    try:
        with file.open("rb") as opened, mmap(opened.fileno(), 0, access=ACCESS_READ) as content:
            return all(content.find(word.encode()) >= 0 for word in words)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return False


def decoded(content: bytes) -> Image.Image:
    """Decode an image from bytes.

    Raises:
        ValueError: the bytes are not a readable image.
    """
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            image.load()
            return image.copy()
    except UNREADABLE as error:
        raise ValueError(f"contains no readable image ({error})") from None
