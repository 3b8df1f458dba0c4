"""Mapillary Vistas (Neuhold et al. 2017), versions 1.0 to 2.0."""

from pathlib import Path

from attnfd.data.labels import VOID
from attnfd.errors import UserError
from attnfd.imports.base import SPLITS, Export, Importer, all_masks, by_name, pair
from attnfd.imports.parts.files import Part, Rgb, read_json, typed

CONFIGS = ("config_v2.0.json", "config_v1.2.json", "config.json")
FOLDERS = ("training", "validation")


class Label(Part):
    """An entry of `labels`; its position is its value in the masks."""

    readable: str
    color: Rgb | None = None
    evaluate: bool = True


class Config(Part):
    """A config JSON."""

    labels: list[Label]


class Mapillary(Importer):
    """`training/images/x.jpg`, and `training/v2.0/labels/x.png`, `v1.2/labels` or `labels`."""

    about = "Mapillary Vistas with its config JSON; labels that it does not evaluate become void"

    def fits(self, root: Path) -> bool:
        return _config(root) is not None and (root / "training").is_dir()

    def read(self, root: Path) -> Export:
        config = _config(root)
        if config is None:
            raise UserError(f"{root}: found none of {', '.join(CONFIGS)}")
        entries = typed(Config, read_json(config), config).labels
        kept = {value: entry for value, entry in enumerate(entries) if entry.evaluate}
        export = Export(
            {value: entry.readable for value, entry in kept.items()},
            palette={value: entry.color for value, entry in kept.items() if entry.color},
        )
        labels = {value: value if value in kept else VOID for value in range(len(entries))}
        version = config.stem.removeprefix("config").removeprefix("_")
        for folder in FOLDERS:
            masks = all_masks(root / folder / version / "labels")
            pair(export, by_name(root / folder / "images"), masks, labels, SPLITS[folder], f"{folder}/")
        void = [entry.readable for value, entry in enumerate(entries) if value not in kept]
        export.remarks.append(f"labels are from {config.name}; it makes void: {', '.join(void) or 'none'}")
        return export


def _config(root: Path) -> Path | None:
    """The newest config whose labels exist."""
    for name in CONFIGS:
        version = name.removesuffix(".json").removeprefix("config").removeprefix("_")
        if (root / name).is_file() and (root / "training" / version / "labels").is_dir():
            return root / name
    return next((root / name for name in CONFIGS if (root / name).is_file()), None)
