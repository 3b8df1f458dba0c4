"""`params.yaml` with other values: DVC reads the changed text instead of the file, which is not changed."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ruamel.yaml import YAML

from attnfd.config.params import PARAMS_FILE
from attnfd.config.yaml_file import load_yaml
from attnfd.errors import UserError

if TYPE_CHECKING:
    from dvc.fs import LocalFileSystem

OPTION = "--set"


def change(text: str, changes: Sequence[str]) -> str:
    """The text of a params file with other values, each given as `training.lr=0.01`.

    Raises:
        UserError: a change has no value, or its key is inside a value that has no keys.
    """
    # Without this copy, sections that share a YAML alias would change together.
    raw = json.loads(json.dumps(load_yaml(text, PARAMS_FILE), default=str))
    for given in changes:
        key, equals, value = given.partition("=")
        if not (equals and key):
            raise UserError(f"{OPTION}: found {given!r}; allowed: KEY=VALUE, such as training.lr=0.01")
        _put(raw, key, load_yaml(value, f"{OPTION} {key}"))
    changed = io.BytesIO()
    YAML(typ="safe").dump(raw, changed)  # The reader's library: it quotes what the reader would refuse.
    return changed.getvalue().decode()


def _put(raw: Any, key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for done, name in enumerate(sections, start=1):
        raw = raw.setdefault(name, {})
        if not isinstance(raw, dict):
            section = ".".join(sections[:done])
            raise UserError(
                f"{OPTION} {key}: {section} is {json.dumps(raw)} and has no keys; set {section} itself"
            )
    raw[last] = value


def files_with(text: str) -> "LocalFileSystem":
    """The files on this disk, with this text instead of the content of `params.yaml`."""
    from dvc.fs import LocalFileSystem

    params = Path(PARAMS_FILE).absolute()

    class Changed(LocalFileSystem):
        def open(self, path: Any, mode: str = "r", **options: Any) -> IO[Any]:
            if Path(path).absolute() == params and mode == "r":
                return io.StringIO(text)
            return super().open(path, mode, **options)

    return Changed()
