"""Shell completion: names from `params.yaml`, and folders of results and models.

It reads files and imports no large package. It offers nothing if it cannot read a file.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from attnfd import paths

Offer = Callable[[str], list[str]]
"""Takes the beginning of a word, and returns the words to choose from."""


def names(section: str) -> Offer:
    """The names in a section of `params.yaml`."""

    def offer(incomplete: str) -> list[str]:
        return _starting(incomplete, _section(section))

    return offer


def cells(incomplete: str) -> list[str]:
    """What `compare` takes: cells that have results, and methods with all of their seeds."""
    found = _folders(paths.METRICS, paths.RESULTS) + _folders(paths.METRICS, paths.ABLATION)
    addresses = [folder.relative_to(folder.parts[0]) for folder in found]
    of_all_seeds = [address.parent for address in addresses if address.name != paths.TEACHER]
    return _starting(incomplete, (address.as_posix() for address in (*of_all_seeds, *addresses)))


def models(incomplete: str) -> list[str]:
    """Folders of trained models, without the prefix `models/` unless the word begins with it."""
    trained = [folder for folder in _folders(paths.MODEL, paths.MODELS) if folder.name != paths.FROZEN]
    short = [folder.relative_to(paths.MODELS) for folder in trained]
    own = [*short, *_folders(paths.MODEL, paths.ABLATION)]
    whole = trained if incomplete.startswith(f"{paths.MODELS}/") else []
    return _starting(incomplete, (folder.as_posix() for folder in (*own, *whole)))


def _starting(incomplete: str, words: Iterable[str]) -> list[str]:
    return sorted({word for word in words if word.startswith(incomplete)})


def _folders(file: str, root: Path) -> list[Path]:
    return [found.parent for found in root.rglob(file)]


def _section(name: str) -> list[str]:
    from attnfd.config.yaml_file import load_yaml
    from attnfd.errors import UserError

    try:
        section = load_yaml(Path("params.yaml").read_text(encoding="utf-8"), "params.yaml")[name]
        return [str(key) for key in section]
    except (OSError, ValueError, UserError, LookupError, TypeError):
        return []
