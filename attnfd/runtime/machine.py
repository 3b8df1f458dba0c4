"""Settings of the machine: they never change a result, so they are not params.

Set them in the environment or in the file `.env` of the main root, which temporary clones of DVC read too.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from dotenv import dotenv_values
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from attnfd.errors import UserError
from attnfd.paths import main_root


class Machine(BaseSettings):
    """`ATTNFD_DEVICE`, `ATTNFD_WORKERS`, `ATTNFD_CHECKPOINT_SECONDS`, `ATTNFD_PROJECT`."""

    model_config = SettingsConfigDict(env_prefix="ATTNFD_", extra="ignore", frozen=True)

    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="where training runs")
    workers: int | None = Field(
        default=None, ge=0, description="loader processes; unset: depends on the number of cores"
    )
    checkpoint_seconds: float = Field(
        default=60, ge=0, description="least time between two checkpoints; 0: a checkpoint after every epoch"
    )
    project: str | None = Field(
        default=None,
        pattern=r"^[\w-]*$",
        description="prefix of names on an MLflow server; unset: from Git's origin, or the folder",
    )


def env_file() -> Path:
    """The file of settings. Git ignores it, so it is not in the clones in which DVC runs experiments."""
    return main_root() / ".env"


def settings() -> Machine:
    """Read the settings.

    Raises:
        UserError: a value is not allowed, or `.env` is not UTF-8 text.
    """
    try:
        return Machine(_env_file=env_file())  # type: ignore[call-arg]
    except UnicodeDecodeError as error:
        raise UserError(f"{env_file()}: not UTF-8 text ({error}); save it as UTF-8") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = f"ATTNFD_{str(first['loc'][0]).upper()}"
        raise UserError(
            f"{key}: found {first['input']!r}; allowed: {first['msg'].removeprefix('Input should be ')}"
        ) from None


def root_key(recipe: str) -> str:
    """Name of the setting that says where the files of a recipe are on this machine."""
    return f"ATTNFD_ROOT_{recipe.upper()}"


def root(recipe: str, reader: str, options: Mapping[str, str]) -> str | None:
    """The folder of a recipe's files on this machine, from the recipe's own key or its reader's, or None.

    Args:
        options: the option `root` of every recipe that has this reader, by the recipe's name.

    Raises:
        UserError: the reader's key would apply to several recipes that read different folders.
    """
    found = {**_env(), **os.environ}
    if own := found.get(root_key(recipe)):
        return own
    key = f"ATTNFD_{reader.upper()}_ROOT"
    if not found.get(key):
        return None
    sharing = [name for name in options if not found.get(root_key(name))]
    if len({os.path.normpath(options[name]) for name in sharing}) > 1:
        raise UserError(
            f"{key}: found {found[key]!r}, but the recipes {', '.join(sharing)} read different folders; "
            f"set {root_key(recipe)} for {recipe}, and the same for the others"
        )
    return found[key]


def _env() -> dict[str, str]:
    return {key: value for key, value in dotenv_values(env_file()).items() if value is not None}
