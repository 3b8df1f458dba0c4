"""The layout of PASCAL VOC: the usual form of VOC 2012 with SBD, and the output of labelme2voc and others."""

from pathlib import Path

from attnfd.data.images import IMAGES
from attnfd.errors import UserError
from attnfd.imports.base import SPLITS, Export, Importer, all_masks, by_name, pair_listed, to_void
from attnfd.imports.parts.files import read_text
from attnfd.readers.voc import Voc

IMAGE_FOLDER = "JPEGImages"
MASK_FOLDERS = ("SegmentationClassAug", "SegmentationClassPNG", "SegmentationClass")
"""Folders of index masks, the most complete first."""
LISTS = "ImageSets/Segmentation"
NAMES = "class_names.txt"


class VocStyle(Importer):
    """`JPEGImages/`, index masks, and lists of one or two columns; 255 is void."""

    about = (
        "Pascal VOC style: JPEGImages/, SegmentationClassAug/ or -Class/, lists; also output of labelme2voc"
    )

    def fits(self, root: Path) -> bool:
        home = _home(root)
        return home is not None and not (home / "labelmap.txt").is_file()

    def read(self, root: Path) -> Export:
        home = _home(root)
        if home is None:
            raise UserError(f"{root}: found no {IMAGE_FOLDER} beside one of {', '.join(MASK_FOLDERS)}")
        own = home / NAMES
        classes = _names(own) if own.is_file() else dict(enumerate(Voc.classes))
        export = Export(classes, palette={} if own.is_file() else dict(enumerate(Voc.palette)))
        masks: dict[str, Path] = {}
        folders = [folder for folder in MASK_FOLDERS if all_masks(home / folder)]
        for folder in reversed(folders):  # later masks replace earlier ones
            masks |= all_masks(home / folder)
        export.remarks.append(f"masks are from {', else from '.join(folders)}")
        images, labels = by_name(home / IMAGE_FOLDER, IMAGES), to_void({value: value for value in classes})
        pair_listed(export, images, masks, labels, _splits(home, export))
        return export


def _home(root: Path) -> Path | None:
    """The folder that contains the images; it may be deeper, as in VOCdevkit/VOC2012."""
    for home in (root, *sorted(root.glob("VOC*")), *sorted(root.glob("VOC*/VOC*"))):
        if (home / IMAGE_FOLDER).is_dir() and any((home / folder).is_dir() for folder in MASK_FOLDERS):
            return home
    return None


def _names(file: Path) -> dict[int, str]:
    names = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    named = [name.strip("_") for name in names if name != "__ignore__"]  # its value is -1
    return dict(enumerate(named))


def _splits(home: Path, export: Export) -> dict[str | None, set[str]]:
    """Names by split; `trainaug` contains `train`, and replaces it."""
    files = {file.stem: file for folder in (LISTS, ".") for file in sorted((home / folder).glob("*.txt"))}
    chosen = {stem: file for stem, file in files.items() if stem in ("train", "trainaug", "val", "test")}
    if "trainaug" in chosen:
        chosen.pop("train", None)
        export.remarks.append("trainaug.txt is used as the split train")
    found: dict[str | None, set[str]] = {}
    for stem, file in sorted(chosen.items()):
        names = {_first(line) for line in read_text(file).splitlines() if line.strip()}
        if SPLITS[stem] == "test" and not names & all_masks(home / MASK_FOLDERS[-1]).keys():
            export.remarks.append(f"{len(names)} images of test.txt have no mask")
        else:
            found[SPLITS[stem]] = names
    both = found.get("train", set()) & found.get("val", set())
    export.faults += [f"{home / LISTS}: lists {name} in train and val" for name in sorted(both)]
    return found


def _first(line: str) -> str:
    """The name of an image, from `a`, `a.jpg` or `/JPEGImages/a.jpg /SegmentationClassAug/a.png`."""
    path = Path(line.split()[0])
    return (path.with_suffix("") if path.suffix.lower() in IMAGES else path).name
