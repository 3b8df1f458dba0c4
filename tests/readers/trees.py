"""Small trees, exactly in the published layout of each dataset."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat
from scipy.sparse import csc_array

from tests.data.trees import camvid_tree

WHITE_LINED = [0, 0, 0, 128, 0, 0, 0, 128, 0]
"""The first colours of VOC's palette; the last of its 256, of the value 255, is white."""


def noise(name: str, size: tuple[int, int] = (6, 8)) -> Image.Image:
    """A different image for each name."""
    rng = np.random.default_rng(list(name.encode()))
    return Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))


def write(path: Path, image: Image.Image, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def voc_mask(values: np.ndarray) -> Image.Image:
    """A palette image like those of VOC."""
    mask = Image.fromarray(values.astype(np.uint8)).convert("P")
    mask.frombytes(values.astype(np.uint8).tobytes())
    mask.putpalette(WHITE_LINED + [0] * (3 * 252) + [255, 255, 255])
    return mask


def lined(value: int) -> np.ndarray:
    """An object (6, 8) of a class on the background, with void around it."""
    values = np.zeros((6, 8), dtype=np.uint8)
    values[1:5, 1:6] = 255
    values[2:4, 2:5] = value
    return values


def voc_tree(root: Path) -> Path:
    """Two images to train on, one to validate, one test image without mask."""
    home = root / "VOCdevkit/VOC2012"
    splits = {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033"]}
    lists = home / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    both = [*splits["train"], *splits["val"]]
    for split, names in {**splits, "trainval": both}.items():
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    for value, name in enumerate(both, start=1):
        write(home / f"JPEGImages/{name}.jpg", noise(name))
        write(home / f"SegmentationClass/{name}.png", voc_mask(lined(value)))
        write(home / f"SegmentationObject/{name}.png", voc_mask(lined(1)))
        (home / "Annotations").mkdir(exist_ok=True)
        (home / f"Annotations/{name}.xml").write_text("<annotation/>")
    write(home / "JPEGImages/2008_000001.jpg", noise("2008_000001"))
    return root


def sbd_tree(root: Path) -> Path:
    """SBD beside VOC: one image of VOC's train split, one of its val split, and two others."""
    home = root / "benchmark_RELEASE/dataset"
    splits = {"train": ["2008_000002", "2007_000032"], "val": ["2007_000033", "2008_000001"]}
    for folder in ("cls", "inst", "img"):
        (home / folder).mkdir(parents=True)
    for split, names in splits.items():
        (home / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            write(root / f"VOCdevkit/VOC2012/JPEGImages/{name}.jpg", noise(name))
            write(home / f"img/{name}.jpg", noise(name))
            sbd_mask(home / f"cls/{name}.mat", np.where(lined(15) == 255, 0, lined(15)))
    return root


def sbd_mask(path: Path, values: np.ndarray) -> None:
    """`GTcls` as released: a struct with segmentation, boundaries and the classes that occur."""
    boundaries = np.empty((20, 1), dtype=object)
    boundaries[:] = [[csc_array(values.shape)] for _ in range(20)]
    struct = {"Boundaries": boundaries, "Segmentation": values.astype(np.uint8), "CategoriesPresent": [[15]]}
    savemat(path, {"GTcls": struct}, do_compression=True)


def cityscapes_tree(root: Path) -> Path:
    """Two cities for training and one for validation, with all the files that are next to the label ids."""
    for split, city, frame in (
        ("train", "aachen", "000000_000019"),
        ("train", "zurich", "000001_000019"),
        ("val", "munster", "000002_000019"),
    ):
        stem = f"{city}_{frame}"
        folder = root / "gtFine" / split / city
        write(root / f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png", noise(stem))
        for kind in ("labelIds", "instanceIds", "color"):
            values = np.arange(48).reshape(6, 8) % 34 if kind == "labelIds" else np.full((6, 8), 77)
            write(folder / f"{stem}_gtFine_{kind}.png", Image.fromarray(values.astype(np.uint8)))
        (folder / f"{stem}_gtFine_polygons.json").write_text('{"objects": [{"label": "license plate"}]}')
    return root


def folder_tree(root: Path) -> Path:
    """Images in several formats, index masks, a class card, and lists of the splits."""
    for number in range(6):
        write(root / f"images/{number}.jpg", noise(str(number)))
        values = np.full((6, 8), 10 * (number % 3), dtype=np.uint8)
        write(root / f"masks/{number}.png", Image.fromarray(values))
    (root / "classes.yaml").write_text("classes: {ground: 0, cat: 10, dog: 20}\n")
    (root / "train.txt").write_text("0\n1\n2.jpg\n\n3\n")
    (root / "val.txt").write_text("4\n5\n")
    return root


def _camvid(root: Path) -> Path:
    return camvid_tree(root, {"train": ((6, 8), (4, 4)), "val": ((6, 8),)})


TREES = {"camvid": _camvid, "cityscapes": cityscapes_tree, "folder": folder_tree, "voc": voc_tree}
"""A tree per reader with a root."""
