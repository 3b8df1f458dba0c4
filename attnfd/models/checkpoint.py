"""A trained network on disk: `model.safetensors`, and `card.json`, which describes it."""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import safetensors.torch
from pydantic import Field

from attnfd import paths
from attnfd.config.section import Section
from attnfd.data.depth import Depth
from attnfd.data.prepared import Card
from attnfd.data.transforms import MEAN, STD
from attnfd.errors import UserError
from attnfd.models.network import Network
from attnfd.models.restore import restore

Channels = tuple[float, float, float]


class Legend(Section):
    """What you need to use a trained model without its dataset.

    The classes of its output, and how an RGB image becomes its input: (x / 255 - mean) / std.
    """

    dataset: str = Field(description="the dataset that it was trained on, a recipe of params.yaml")
    classes: tuple[str, ...] = Field(description="a name per class index")
    palette: tuple[tuple[int, int, int], ...] = Field(description="an RGB colour per class")
    mean: Channels = Field(description="of red, green and blue, between 0 and 1")
    std: Channels = Field(description="of red, green and blue, in the same unit")
    depth: Depth | None = Field(
        default=None, description="how images of more than 8 bits become RGB; null: the upper 8 of 16 bits"
    )


def legend(card: Card) -> Legend:
    """The legend of a model that was trained on the dataset of this card."""
    return Legend(
        dataset=card.name, classes=card.classes, palette=card.palette, mean=MEAN, std=STD, depth=card.depth
    )


def save(folder: str | Path, model: Network, card: Mapping[str, Any]) -> None:
    """Write a network and its card. The same network and card give the same bytes.

    Args:
        folder: created if it is missing.
        card: further content of the card; `architecture`, `frozen` and `sha256` are added.
    """
    folder = Path(folder)
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    content = safetensors.torch.save(state)
    own = {
        "architecture": model.architecture.model_dump(mode="json"),
        "frozen": model.margins is not None,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert not own.keys() & card.keys()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / paths.MODEL).write_bytes(content)
    text = json.dumps({**card, **own}, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (folder / paths.CARD).write_text(text + "\n", encoding="utf-8")


def load(folder: str | Path) -> tuple[Network, dict[str, Any]]:
    """Read a network and its card. Never runs code from a file.

    Returns:
        The network in eval mode, on the CPU and channels last; and the card.

    Raises:
        UserError: a file is missing or damaged, or the card describes another file.
    """
    folder = Path(folder)
    card = _read_card(folder / paths.CARD)
    file = folder / paths.MODEL
    if fingerprint(folder) != card["sha256"]:
        raise UserError(f"{file}: damaged, or not the file that its {paths.CARD} describes; {_FIX}")
    return restore(card, file, str(folder / paths.CARD)), card


def fingerprint(folder: str | Path) -> str:
    """SHA-256 of the weights in a folder.

    Raises:
        UserError: the file cannot be read.
    """
    return digest(Path(folder, paths.MODEL))


def digest(file: str | Path) -> str:
    """SHA-256 of a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        found = Path(file).stat()
        return _digest(Path(file), found.st_ino, found.st_size, found.st_mtime_ns)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); {_FIX}") from None


@lru_cache(maxsize=256)  # A teacher has 240 MB, and its digest is needed several times.
def _digest(file: Path, *version: int) -> str:
    """SHA-256 of this version of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


_FIX = "write it again with `dvc repro`, or fetch it with `dvc pull`"


def _read_card(file: Path) -> dict[str, Any]:
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); {_FIX}") from None
    except ValueError as error:
        raise UserError(f"{file}: not a JSON file ({error}); {_FIX}") from None
    for key in ("architecture", "frozen", "sha256"):
        if not isinstance(card, dict) or key not in card:
            raise UserError(f"{file}: {key} is missing; {_FIX}")
    return card
