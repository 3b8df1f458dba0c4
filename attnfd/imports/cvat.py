"""CVAT's "Segmentation mask 1.1": masks in colours, and a file that names them."""

from pathlib import Path

from attnfd.data.images import IMAGES
from attnfd.data.labels import VOID
from attnfd.errors import UserError
from attnfd.imports.base import SPLITS, Export, Importer, all_masks, by_name, pair_listed
from attnfd.imports.parts.canvas import colour
from attnfd.imports.parts.files import read_text

MAP = "labelmap.txt"
LISTS = "ImageSets/Segmentation"


class Cvat(Importer):
    """`labelmap.txt`, `ImageSets/Segmentation/*.txt`, `SegmentationClass/x.png`, `JPEGImages/x.jpg`."""

    about = 'CVAT, "Segmentation mask 1.1", exported with "Save images"'

    def fits(self, root: Path) -> bool:
        return (root / MAP).is_file()

    def read(self, root: Path) -> Export:
        if not (root / MAP).is_file():
            tasks = [place.parent.name for place in sorted(root.glob(f"*/{MAP}"))]
            hint = f"found {len(tasks)} exports, {', '.join(tasks)}: import them separately" if tasks else ""
            raise UserError(f"{root / MAP}: not found; {hint or 'export the task as Segmentation mask 1.1'}")
        colours = _colours(root / MAP)
        classes = [name for name in colours if name not in ("ignored", "void")]
        labels = {
            colour(rgb): classes.index(name) if name in classes else VOID for name, rgb in colours.items()
        }
        export = Export(
            dict(enumerate(classes)), palette={classes.index(name): colours[name] for name in classes}
        )
        images = by_name(root / "JPEGImages", IMAGES)
        masks = all_masks(root / "SegmentationClass")
        if masks and not images:
            raise UserError(
                f"{root / 'JPEGImages'}: contains no image; export again with Save images, or copy them there"
            )
        pair_listed(export, images, masks, labels, _splits(root / LISTS))
        return export


def _splits(folder: Path) -> dict[str | None, set[str]]:
    """The names in the list of every subset; CVAT calls a single subset `default`."""
    found: dict[str | None, set[str]] = {}
    for file in sorted(folder.glob("*.txt")):
        names = {line.strip() for line in read_text(file).splitlines() if line.strip()}
        found.setdefault(SPLITS.get(file.stem.lower()), set()).update(names)
    return found


def _colours(file: Path) -> dict[str, tuple[int, ...]]:
    """The colour of every label, from lines of `label:red,green,blue:parts:actions`."""
    found: dict[str, tuple[int, ...]] = {}
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        try:
            rgb = tuple(int(value) for value in rest.split(":")[0].split(","))
            bytes(rgb)
        except ValueError:
            rgb = ()
        if len(rgb) != 3 or not name.strip():
            raise UserError(f"{file}, line {number}: found {line!r}; allowed: label:red,green,blue::")
        if rgb in found.values():
            raise UserError(f"{file}, line {number}: {name} has the colour of another label; give it its own")
        found[name.strip()] = rgb
    return found
