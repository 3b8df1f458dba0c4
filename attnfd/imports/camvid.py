"""CamVid as first published, in 32 colours (Brostow et al. 2009), grouped into the usual 11 classes."""

import csv
from collections.abc import Mapping
from pathlib import Path

from attnfd.data.images import IMAGES
from attnfd.data.labels import VOID
from attnfd.errors import UserError
from attnfd.imports.base import SPLITS, Export, Importer, all_masks, by_name, pair
from attnfd.imports.parts.canvas import colour
from attnfd.imports.parts.files import read_text
from attnfd.readers.camvid import CamVid

CLASSES = "class_dict.csv"
COLOURS = "label_colors.txt"
SUFFIX = "_L"

GROUPS = {
    "sky": ("Sky",),
    "building": ("Building", "Bridge", "Wall", "Tunnel", "Archway"),
    "pole": ("Column_Pole", "TrafficCone"),
    "road": ("Road", "LaneMkgsDriv", "LaneMkgsNonDriv"),
    "pavement": ("Sidewalk", "ParkingBlock", "RoadShoulder"),
    "tree": ("Tree", "VegetationMisc"),
    "sign_symbol": ("SignSymbol", "Misc_Text", "TrafficLight"),
    "fence": ("Fence",),
    "car": ("Car", "SUVPickupTruck", "Truck_Bus", "Train", "OtherMoving"),
    "pedestrian": ("Pedestrian", "Child", "CartLuggagePram", "Animal"),
    "bicyclist": ("Bicyclist", "MotorcycleScooter"),
}
"""The 32 classes grouped into the 11 of SegNet (Badrinarayanan et al. 2017); `Void` stays void."""


class CamVid32(Importer):
    """`train/x.png` and `train_labels/x_L.png`, also for `val` and `test`; or all images in two folders."""

    about = "CamVid in 32 colours with class_dict.csv; its classes become the usual 11"

    def fits(self, root: Path) -> bool:
        return (root / CLASSES).is_file() or (root / COLOURS).is_file()

    def read(self, root: Path) -> Export:
        index = {name: CamVid.classes.index(group) for group, names in GROUPS.items() for name in names}
        index["Void"] = VOID
        file = root / CLASSES if (root / CLASSES).is_file() else root / COLOURS
        colours = _listed(file) if file.name == CLASSES else _spaced(file)
        unknown = sorted(colours.keys() - index.keys())
        if unknown:
            raise UserError(
                f"{file}: found {', '.join(unknown)}; allowed: the 32 classes of CamVid; for your own "
                "classes, use the reader `folder` with these colours; docs/your-data.md shows how"
            )
        export = Export(dict(enumerate(CamVid.classes)), palette=dict(enumerate(CamVid.palette)))
        labels = {colour(rgb): index[name] for name, rgb in colours.items()}
        for images, masks, split in _folders(root):
            found = {
                name.removesuffix(SUFFIX): mask
                for name, mask in all_masks(masks).items()
                if name.endswith(SUFFIX)
            }
            pair(export, by_name(images, IMAGES), found, labels, split, f"{split}/" if split else "")
        return export


def _folders(root: Path) -> list[tuple[Path, Path, str | None]]:
    """Folders of images, folders of masks, and their splits; the first publication has no splits."""
    splits = [name for name in ("train", "val", "test") if (root / f"{name}_labels").is_dir()]
    if splits:
        return [(root / name, root / f"{name}_labels", SPLITS[name]) for name in splits]
    return [(root / "701_StillsRaw_full", root / "LabeledApproved_full", None)]


def _listed(file: Path) -> Mapping[str, tuple[int, ...]]:
    """Colours from lines of `name,r,g,b`."""
    rows = [row for row in csv.reader(read_text(file).splitlines()) if row]
    try:
        return {row[0].strip(): tuple(int(value) for value in row[1:4]) for row in rows[1:]}
    except (ValueError, IndexError):
        raise UserError(f"{file}: allowed: a heading, then lines of name,r,g,b") from None


def _spaced(file: Path) -> Mapping[str, tuple[int, ...]]:
    """Colours from lines of `r g b name`."""
    rows = [line.split() for line in read_text(file).splitlines() if line.strip()]
    try:
        return {row[3]: tuple(int(value) for value in row[:3]) for row in rows}
    except (ValueError, IndexError):
        raise UserError(f"{file}: allowed: lines of red, green, blue and name") from None
