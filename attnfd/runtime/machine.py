"""Settings of the machine: they never change a result, so they are no params.

Given by the environment or a `.env` file in the working directory.
"""

import os
from typing import Literal

from dotenv import dotenv_values
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from attnfd.errors import UserError

ENV_FILE = ".env"


class Machine(BaseSettings):
    """`ATTNFD_DEVICE`, `ATTNFD_WORKERS`, `ATTNFD_CHECKPOINT_SECONDS`."""

    model_config = SettingsConfigDict(env_prefix="ATTNFD_", env_file=ENV_FILE, extra="ignore", frozen=True)

    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="where training runs")
    workers: int | None = Field(default=None, ge=0, description="loader processes; unset: from the cores")
    checkpoint_seconds: float = Field(
        default=60, ge=0, description="least time between two checkpoints of a training; 0: after every epoch"
    )


def settings() -> Machine:
    """Read the settings.

    Raises:
        UserError: a value is not allowed, or `.env` is no text.
    """
    try:
        return Machine()
    except UnicodeDecodeError as error:
        raise UserError(f"{ENV_FILE}: no text in UTF-8 ({error}); save it as UTF-8") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = f"ATTNFD_{str(first['loc'][0]).upper()}"
        raise UserError(
            f"{key}: found {first['input']!r}; allowed: {first['msg'].removeprefix('Input should be ')}"
        ) from None


def root_key(reader: str) -> str:
    """Name of the setting that says where a reader's files lie on this machine."""
    return f"ATTNFD_{reader.upper()}_ROOT"


def root(reader: str) -> str | None:
    """Where a reader's files lie on this machine, if that is set."""
    key = root_key(reader)
    return os.environ.get(key) or dotenv_values(ENV_FILE).get(key)
