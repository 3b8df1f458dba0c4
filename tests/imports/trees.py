"""A small export of every format, in its tool's layout, and the expected masks.

Images have 6 rows and 8 columns. `.` is class 0, `a` the first of the other classes, `b` the second, `x` void.
"""
# ruff: noqa: E501

import base64
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from pycocotools import mask as coco_mask

from tests.readers.trees import noise, voc_mask, write

PLAIN = "........ ........ ........ ........ ........ ........"
LEFT = "aaaa.... aaaa.... aaaa.... aaaa.... aaaa.... aaaa...."
BOTH = "aaaa.... aaaa.... aabbbb.. aabbbb.. aaaa.... aaaa...."
VOIDED = "aaaa...x aaaa...x aabbbb.x aabbbb.x aaaa...x aaaa...x"
INK = {".": 0, "a": 1, "b": 2, "x": 255}


class Tree(NamedTuple):
    """An export: a function that writes it, and the expected classes and masks by name and split."""

    make: Callable[[Path], object]
    classes: dict[str, int]
    masks: dict[str, np.ndarray]
    splits: dict[str, list[str]]


def ink(drawing: str, values: dict[str, int] = INK) -> np.ndarray:
    return np.array([[values[letter] for letter in row] for row in drawing.split()], dtype=np.uint8)


def picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8))


def coloured(drawing: str, colours: dict[str, tuple[int, int, int]]) -> Image.Image:
    return Image.fromarray(np.array([[colours[one] for one in row] for row in drawing.split()], np.uint8))


def images(root: Path, *names: str, size: tuple[int, int] = (6, 8)) -> None:
    for name in names:
        write(root / name, noise(name, size))


def text(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# Polygons of COCO have areas: columns 0 to 3 are x from 0 to 4.
LEFT_AREA = [0, 0, 4, 0, 4, 6, 0, 6]
SMALL_AREA = [2, 2, 6, 2, 6, 4, 2, 4]


def coco_json(names: list[str], **changes: Any) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(ink(LEFT)))
    objects = [
        {"id": 1, "image_id": 1, "category_id": 3, "segmentation": [SMALL_AREA], "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 1, "segmentation": [LEFT_AREA], "iscrowd": 0},
        {"id": 3, "image_id": 2, "category_id": 1, "iscrowd": 1,
         "segmentation": {"size": [6, 8], "counts": [0, 24, 24]}},
        {"id": 4, "image_id": 3, "category_id": 1, "iscrowd": 0,
         "segmentation": {"size": [6, 8], "counts": rle["counts"].decode()}},
    ]  # fmt: skip
    return {
        "info": {}, "licenses": [],
        "categories": [{"id": 0, "name": "things", "supercategory": "none"}, {"id": 1, "name": "cat"},
                       {"id": 3, "name": "dog"}],
        "images": [{"id": 1 + place, "file_name": name, "width": 8, "height": 6}
                   for place, name in enumerate(names)],
        "annotations": [entry for entry in objects if entry["image_id"] <= len(names)],
        **changes,
    }  # fmt: skip


def coco(root: Path) -> None:
    """As Roboflow writes it: a JSON file in the image folder of every split."""
    images(root, "train/1.jpg", "train/2.jpg", "train/3.jpg", "valid/1.jpg")
    text(root / "train/_annotations.coco.json", coco_json(["1.jpg", "2.jpg", "3.jpg"]))
    text(root / "valid/_annotations.coco.json", coco_json(["1.jpg"]))


def coco_official(root: Path) -> None:
    """As COCO itself is published, with files of other tasks."""
    images(root, "train2017/1.jpg", "train2017/2.jpg", "val2017/1.jpg")
    text(root / "annotations/instances_train2017.json", coco_json(["1.jpg", "2.jpg"]))
    text(root / "annotations/instances_val2017.json", coco_json(["1.jpg"]))
    text(root / "annotations/captions_val2017.json", coco_json(["1.jpg"], annotations=[{"caption": "a cat"}]))


def coco_cvat(root: Path) -> None:
    """As CVAT and Label Studio write it: one file, images in `images`."""
    images(root, *(f"images/{number}.jpg" for number in range(1, 4)))
    text(root / "annotations/instances_default.json", coco_json(["1.jpg", "2.jpg", "3.jpg"]))


def labelme_json(name: str, shapes: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    return {
        "version": "5.4.1", "flags": {}, "imagePath": name, "imageData": None, "imageHeight": 6, "imageWidth": 8,
        "shapes": [{"group_id": None, "flags": {}, "shape_type": "polygon", **shape} for shape in shapes],
        **changes,
    }  # fmt: skip


# Polygons of LabelMe include their corners: columns 0 to 3 are x from 0 to 3.
LEFT_CORNERS = [[0, 0], [3, 0], [3, 5], [0, 5]]
SMALL_CORNERS = [[2, 2], [5, 2], [5, 3], [2, 3]]


def labelme(root: Path) -> None:
    images(root, "1.jpg", "sub/2.png", "lonely.jpg")
    text(root / "1.json", labelme_json("1.jpg", [
        {"label": "cat", "points": LEFT_CORNERS},
        {"label": "dog", "points": [[2, 2], [5, 3]], "shape_type": "rectangle"},
    ]))  # fmt: skip
    text(root / "sub/2.json", labelme_json(r"..\sub\2.png", [{"label": "cat", "points": LEFT_CORNERS}]))
    inside = io.BytesIO()
    noise("3").resize((8, 6)).save(inside, "PNG")
    part = io.BytesIO()
    Image.fromarray(np.ones((2, 4), bool)).save(part, "PNG")
    text(root / "3.json", labelme_json("3.png", [
        {"label": "cat", "points": LEFT_CORNERS},
        {"label": "dog", "points": [[2, 2], [5, 3]], "shape_type": "mask",
         "mask": base64.b64encode(part.getvalue()).decode()},
        {"label": "__ignore__", "points": [[7, 0], [7, 5]], "shape_type": "rectangle"},
    ], imageData=base64.b64encode(inside.getvalue()).decode()))  # fmt: skip


def cvat(root: Path) -> None:
    colours = {".": (0, 0, 0), "a": (250, 50, 83), "b": (50, 183, 250)}
    names = ["frame_000000", "sub/frame_000001"]
    text(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:250,50,83::\n"
         "dog:50,183,250::\nhorse:1,2,3::\n")  # fmt: skip
    text(root / "ImageSets/Segmentation/default.txt", "".join(f"{name}\n" for name in names))
    for name, drawing in zip(names, (BOTH, LEFT), strict=True):
        mask = coloured(drawing, colours)
        # CVAT writes palette images or RGB images.
        write(root / f"SegmentationClass/{name}.png", mask if drawing is BOTH else mask.quantize(4))
        write(root / f"SegmentationObject/{name}.png", mask)
    images(root / "JPEGImages", *(f"{name}.jpg" for name in names), "frame_000002.jpg")


def roboflow(root: Path) -> None:
    for split, names in {"train": ("1", "2"), "valid": ("3",), "test": ("4",)}.items():
        text(root / split / "_classes.csv", "Pixel Value, Class\n0, background\n1, cat\n2, dog\n")
        for name in names:
            stem = f"{name}_jpg.rf.0c1e{name}"
            images(root / split, f"{stem}.jpg")
            write(root / split / f"{stem}_mask.png", picture(ink(BOTH)))


def labelstudio(root: Path) -> None:
    tasks = [
        {"id": 12, "data": {"image": "/data/upload/1/3f2a9c1e-1.jpg"}, "annotations": [
            {"id": 3, "result": [{"value": {"format": "rle", "rle": [], "brushlabels": ["cat"]}},
                                 {"value": {"format": "rle", "rle": [], "brushlabels": ["big dog"]}}]}]},
        {"id": 13, "data": {"image": "/data/local-files/?d=some/2.jpg"}, "annotations": [
            {"id": 4, "result": [{"value": {"format": "rle", "rle": [], "brushlabels": ["cat"]}}]}]},
        {"id": 14, "data": {"image": "/data/upload/1/3f2a9c1e-none.jpg"}, "annotations": []},
    ]  # fmt: skip
    text(root / "project-1.json", tasks)
    images(root / "images", "3f2a9c1e-1.jpg", "2.jpg")
    soft = ink(LEFT) * np.uint8(255)
    soft[:, 4] = 60  # the soft edge of a brush
    write(root / "task-12-annotation-3-by-1-tag-cat-0.png", picture(soft))
    write(root / "task-12-annotation-3-by-1-tag-big dog-0.png", picture((ink(BOTH) == 2) * 255))
    write(
        root / "task-13-annotation-4-by-me@some-site.org-tag-cat-0.png",
        picture(ink(LEFT)[:3] * 255).resize((8, 6)),
    )


def supervisely(root: Path) -> None:
    text(root / "meta.json", {"classes": [
        {"title": "cat", "shape": "polygon", "color": "#FF0000"},
        {"title": "dog", "shape": "bitmap", "color": "#00FF00"}, {"title": "line", "shape": "line"},
    ], "tags": []})  # fmt: skip
    part = np.zeros((2, 4, 4), np.uint8)
    part[..., 3] = 255
    packed = io.BytesIO()
    Image.fromarray(part).save(packed, "PNG")
    data = base64.b64encode(zlib.compress(packed.getvalue())).decode()
    cat = {
        "classTitle": "cat",
        "geometryType": "polygon",
        "points": {"exterior": LEFT_CORNERS, "interior": []},
    }
    dog = {"classTitle": "dog", "geometryType": "bitmap", "bitmap": {"data": data, "origin": [2, 2]}}
    line = {"classTitle": "line", "geometryType": "line", "points": {"exterior": [[0, 0], [3, 3]]}}
    ring = {**cat, "points": {"exterior": [[0, 0], [7, 0], [7, 5], [0, 5]],
                              "interior": [[[4, 0], [7, 0], [7, 5], [4, 5]]]}}  # fmt: skip
    for split, number, objects in (("train", 1, [cat, dog, line]), ("val", 2, [ring])):
        images(root / split / "img", f"{number}.jpg")
        text(root / split / f"ann/{number}.jpg.json", {"size": {"height": 6, "width": 8}, "objects": objects})


def yolo_line(number: int, corners: list[int]) -> str:
    places = [f"{place / (6 if index % 2 else 8):.6f}" for index, place in enumerate(corners)]
    return f"{number} {' '.join(places)}\n"


def yolo(root: Path) -> None:
    """As Ultralytics and Roboflow write it; an image with an empty label file has no object."""
    text(
        root / "data.yaml",
        "path: .\ntrain: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']\n",
    )
    both = yolo_line(1, SMALL_AREA) + yolo_line(0, LEFT_AREA)
    for split, name, lines in (
        ("train", "1", both),
        ("train", "2", ""),
        ("valid", "3", yolo_line(0, LEFT_AREA)),
    ):
        images(root / split / "images", f"{name}.jpg")
        text(root / split / f"labels/{name}.txt", lines)


def yolo_cvat(root: Path) -> None:
    """As CVAT writes it: a split is a list of images."""
    text(root / "data.yaml", "path: ./\ntrain: train.txt\nval: val.txt\nnames:\n  0: cat\n  1: dog\n")
    both = yolo_line(1, SMALL_AREA) + yolo_line(0, LEFT_AREA)
    for split, name, lines in (("train", "a/1", both), ("val", "2", yolo_line(0, LEFT_AREA))):
        images(root / "images" / split, f"{name}.jpg")
        text(root / f"labels/{split}/{name}.txt", lines)
        text(root / f"{split}.txt", f"images/{split}/{name}.jpg\n")
    images(root / "images/train", "unlisted.jpg")
    text(root / "labels/train/unlisted.txt", both)


def voc(root: Path) -> None:
    """VOC 2012 as most people have it, with SBD's masks and a list with two columns."""
    home = root / "VOCdevkit/VOC2012"
    drawn = {"2007_000032": BOTH, "2008_000002": LEFT, "2007_000033": VOIDED}
    images(home / "JPEGImages", *(f"{name}.jpg" for name in drawn))
    for name, drawing in drawn.items():
        write(home / f"SegmentationClassAug/{name}.png", picture(ink(drawing, VOC_INK)))
    write(home / "SegmentationClass/2007_000033.png", voc_mask(ink(VOIDED, VOC_INK)))
    lists = home / "ImageSets/Segmentation"
    text(lists / "train.txt", "2007_000032\n")
    text(lists / "trainaug.txt", "".join(
        f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png\n" for name in ("2007_000032", "2008_000002")
    ))  # fmt: skip
    text(lists / "val.txt", "2007_000033\n")


VOC_INK = {".": 0, "a": 8, "b": 12, "x": 255}


def labelme_voc(root: Path) -> None:
    """The output of labelme2voc."""
    images(root / "JPEGImages", "1.jpg", "2.jpg")
    text(root / "class_names.txt", "_background_\ncat\ndog\n")
    for name, drawing in (("1", BOTH), ("2", VOIDED)):
        write(root / f"SegmentationClass/{name}.png", voc_mask(ink(drawing)))
        write(root / f"SegmentationClassVisualization/{name}.jpg", noise(name))


CAMVID = "Sky,128,128,128\nBuilding,128,0,0\nBridge,0,128,64\nRoad,128,64,128\nLaneMkgsDriv,128,0,192\nVoid,0,0,0\n"


def camvid(root: Path) -> None:
    text(root / "class_dict.csv", f"name,r,g,b\n{CAMVID}")
    colours = {"S": (128, 128, 128), "H": (128, 0, 0), "h": (0, 128, 64), "r": (128, 64, 128), "l": (128, 0, 192),
               "x": (0, 0, 0)}  # fmt: skip
    drawing = "SSSSSSSS SSHHHHSS SSHhhHSS rrrllrrr rrrllrrr xxxxxxxx"
    for split, name in (("train", "0001TP_006690"), ("val", "0016E5_07959"), ("test", "Seq05VD_f00000")):
        images(root / split, f"{name}.png")
        write(root / f"{split}_labels/{name}_L.png", coloured(drawing, colours))


CAMVID_MASK = ink("SSSSSSSS SSHHHHSS SSHHHHSS rrrrrrrr rrrrrrrr xxxxxxxx", {"S": 0, "H": 1, "r": 3, "x": 255})


def ade20k(root: Path) -> None:
    text(root / "objectInfo150.txt", "Idx\tRatio\tTrain\tVal\tName\n1\t0.15\t11664\t1172\twall\n"
         "2\t0.10\t6046\t612\tbuilding, edifice\n3\t0.01\t10\t2\tscreen, silver screen\n"
         "4\t0.01\t10\t2\tscreen, CRT screen\n")  # fmt: skip
    for split, name in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
        images(root / f"images/{split}", f"{name}.jpg")
        write(root / f"annotations/{split}/{name}.png", picture(ink(BOTH)))


def cocostuff(root: Path) -> None:
    for split, name in (("train2017", "000000000009"), ("val2017", "000000000139")):
        images(root / f"images/{split}", f"{name}.jpg")
        values = ink(VOIDED, {".": 0, "a": 91, "b": 181, "x": 255})
        write(root / f"annotations/{split}/{name}.png", picture(values))


def mapillary(root: Path) -> None:
    labels = [
        {"name": "construction--flat--road", "readable": "Road", "color": [128, 64, 128], "evaluate": True},
        {"name": "object--vehicle--car", "readable": "Car", "color": [0, 0, 142], "evaluate": True},
        {"name": "void--unlabeled", "readable": "Unlabeled", "color": [0, 0, 0], "evaluate": False},
    ]
    text(root / "config_v2.0.json", {"version": "2.0", "labels": labels})
    text(root / "config_v1.2.json", {"version": "1.2", "labels": labels[:1]})
    for split, name in (("training", "aB-1"), ("validation", "cD_2")):
        images(root / f"{split}/images", f"{name}.jpg")
        write(root / f"{split}/v2.0/labels/{name}.png", voc_mask(ink(BOTH)))
        write(root / f"{split}/v1.2/labels/{name}.png", voc_mask(ink(PLAIN)))
    images(root / "testing/images", "eF.jpg")


def packed(image: Image.Image) -> dict[str, Any]:
    content = io.BytesIO()
    image.save(content, "PNG")
    return {"bytes": content.getvalue(), "path": "some.png"}


def huggingface(root: Path) -> None:
    (root / "data").mkdir(parents=True)
    text(root / "id2label.json", {"0": "ground", "1": "cat", "2": "dog"})
    for split, drawings in {"train": (BOTH, VOIDED), "validation": (LEFT,)}.items():
        rows = [
            {"image": packed(noise(drawing)), "label": packed(picture(ink(drawing)))} for drawing in drawings
        ]
        pd.DataFrame(rows).to_parquet(root / f"data/{split}-00000-of-00001.parquet", row_group_size=1)


TWO = {"background": 0, "cat": 1, "dog": 2}
TREES: dict[str, Tree] = {
    "ade20k": Tree(
        ade20k, {"wall": 0, "building": 1},
        dict.fromkeys(("training/ADE_train_00000001", "validation/ADE_val_00000001"),
                      ink(BOTH, {".": 255, "a": 0, "b": 1})),
        {"train": ["training/ADE_train_00000001"], "val": ["validation/ADE_val_00000001"]},
    ),
    "camvid": Tree(
        camvid, {"sky": 0, "building": 1, "road": 3},
        dict.fromkeys(("train/0001TP_006690", "val/0016E5_07959", "test/Seq05VD_f00000"), CAMVID_MASK),
        {"train": ["train/0001TP_006690"], "val": ["val/0016E5_07959"], "test": ["test/Seq05VD_f00000"]},
    ),
    "coco": Tree(
        coco, TWO,
        {"train/1": ink(BOTH), "train/2": ink(LEFT), "train/3": ink(LEFT), "valid/1": ink(BOTH)},
        {"train": ["train/1", "train/2", "train/3"], "val": ["valid/1"]},
    ),
    "cocostuff": Tree(
        cocostuff, {"person": 0, "banner": 91, "wood": 181},
        dict.fromkeys(("train2017/000000000009", "val2017/000000000139"),
                      ink(VOIDED, {".": 0, "a": 91, "b": 181, "x": 255})),
        {"train": ["train2017/000000000009"], "val": ["val2017/000000000139"]},
    ),
    "cvat": Tree(cvat, TWO, {"frame_000000": ink(BOTH), "sub/frame_000001": ink(LEFT)}, {}),
    "huggingface": Tree(
        huggingface, {"ground": 0, "cat": 1, "dog": 2},
        {"train/000000": ink(BOTH), "train/000001": ink(VOIDED), "val/000000": ink(LEFT)},
        {"train": ["train/000000", "train/000001"], "val": ["val/000000"]},
    ),
    "labelme": Tree(labelme, TWO, {"1": ink(BOTH), "sub/2": ink(LEFT), "3": ink(VOIDED)}, {}),
    "labelstudio": Tree(
        labelstudio, {"background": 0, "big dog": 1, "cat": 2},
        {"3f2a9c1e-1": ink(BOTH, {".": 0, "a": 2, "b": 1}), "2": ink(LEFT, {".": 0, "a": 2})}, {},
    ),
    "mapillary": Tree(
        mapillary, {"Road": 0, "Car": 1},
        dict.fromkeys(("training/aB-1", "validation/cD_2"), ink(BOTH, {".": 0, "a": 1, "b": 255})),
        {"train": ["training/aB-1"], "val": ["validation/cD_2"]},
    ),
    "roboflow": Tree(
        roboflow, TWO,
        {f"{split}/{name}_jpg.rf.0c1e{name}": ink(BOTH)
         for split, name in (("train", 1), ("train", 2), ("valid", 3), ("test", 4))},
        {"train": ["train/1_jpg.rf.0c1e1", "train/2_jpg.rf.0c1e2"], "val": ["valid/3_jpg.rf.0c1e3"],
         "test": ["test/4_jpg.rf.0c1e4"]},
    ),
    "supervisely": Tree(
        supervisely, TWO, {"train/1": ink(BOTH), "val/2": ink("aaaa.... " * 6)},
        {"train": ["train/1"], "val": ["val/2"]},
    ),
    "voc": Tree(
        voc, {"background": 0, "cat": 8, "dog": 12},
        {"2007_000032": ink(BOTH, VOC_INK), "2008_000002": ink(LEFT, VOC_INK), "2007_000033": ink(VOIDED, VOC_INK)},
        {"train": ["2007_000032", "2008_000002"], "val": ["2007_000033"]},
    ),
    "yolo": Tree(
        yolo, TWO, {"train/1": ink(BOTH), "train/2": ink(PLAIN), "valid/3": ink(LEFT)},
        {"train": ["train/1", "train/2"], "val": ["valid/3"]},
    ),
}  # fmt: skip
