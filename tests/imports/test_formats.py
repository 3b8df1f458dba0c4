"""Every format in its tool's layout is read exactly, and every fault gives one line."""
# ruff: noqa: E501

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from attnfd import discovery, paths
from attnfd.data.prepared import Prepared
from attnfd.errors import UserError
from attnfd.readers.camvid import CamVid
from attnfd.sources.imports import formats, import_export
from stages.prepare import prepare
from tests import tasks
from tests.data.trees import params_of
from tests.imports import trees
from tests.imports.trees import BOTH, LEFT, TREES, TWO, Tree, ink
from tests.readers.trees import noise, write

MORE = {
    "coco_official": ("coco", Tree(
        trees.coco_official, TWO,
        {"train2017/1": ink(BOTH), "train2017/2": ink(LEFT), "val2017/1": ink(BOTH)},
        {"train": ["train2017/1", "train2017/2"], "val": ["val2017/1"]},
    )),
    "coco_cvat": ("coco", Tree(
        trees.coco_cvat, TWO, {"1": ink(BOTH), "2": ink(LEFT), "3": ink(LEFT)}, {},
    )),
    "yolo_cvat": ("yolo", Tree(
        trees.yolo_cvat, TWO, {"train/a/1": ink(BOTH), "val/2": ink(LEFT)}, {"train": ["train/a/1"], "val": ["val/2"]},
    )),
    "labelme_voc": ("voc", Tree(
        trees.labelme_voc, {"background": 0, "cat": 1, "dog": 2}, {"1": ink(BOTH), "2": ink(trees.VOIDED)}, {},
    )),
}  # fmt: skip
ALL = {name: (name, tree) for name, tree in TREES.items()} | MORE


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for key in ("DVC_ROOT", "ATTNFD_FOLDER_ROOT"):
        monkeypatch.delenv(key, raising=False)


def masks(folder: Path) -> dict[str, np.ndarray]:
    files = sorted((folder / "masks").rglob("*.png"))
    return {
        file.relative_to(folder / "masks").with_suffix("").as_posix(): np.array(Image.open(file))
        for file in files
    }


def test_every_format_has_a_tree() -> None:
    assert set(TREES) == set(discovery.names("imports"))
    assert len(formats()) == len(TREES)


@pytest.mark.parametrize("name", ALL)
def test_masks_classes_and_lists_are_those_of_the_export(name: str, tmp_path: Path) -> None:
    kind, tree = ALL[name]
    tree.make(tmp_path / "export")
    report = import_export(kind, tmp_path / "export", Path("datasets/new"))
    made = masks(Path("datasets/new"))
    assert made.keys() == tree.masks.keys()
    for mask, values in tree.masks.items():
        np.testing.assert_array_equal(made[mask], values, err_msg=mask)
    card = YAML(typ="safe").load(Path("datasets/new/classes.yaml").read_text())
    assert card == {"classes": tree.classes}
    lists = {file.stem: file.read_text().split("\n")[:-1] for file in Path("datasets/new").glob("*.txt")}
    assert lists.pop("import") == report.split("\n")
    if tree.splits:
        assert lists == tree.splits
    else:
        assert sorted(lists["train"] + lists["val"]) == sorted(tree.masks)
        assert "val is chosen at random" in report


@pytest.mark.parametrize("name", ALL)
def test_prepare_takes_what_was_imported(name: str, tmp_path: Path) -> None:
    kind, tree = ALL[name]
    tree.make(tmp_path / "export")
    report = import_export(kind, tmp_path / "export", Path("datasets/new"))
    recipe = YAML(typ="safe").load(report[report.index("  new:\n") :])["new"]
    if not Path("datasets/new/val.txt").read_text() or not tree.splits:
        names = sorted(tree.masks)  # Such a small tree has too few images for a random split.
        Path("datasets/new/val.txt").write_text(f"{names[0]}\n")
        Path("datasets/new/train.txt").write_text("".join(f"{name}\n" for name in names[1:]))
    options = recipe["prepare"]
    prepare(tasks.of(params_of(options.pop("reader"), **options), "new"))
    found = Prepared.load(paths.prepared("new"), Path("datasets/new"))
    assert set(found.card.classes) == set(tree.classes)


@pytest.mark.parametrize("name", ALL)
def test_a_format_knows_its_own_export_and_no_other(name: str, tmp_path: Path) -> None:
    kind, tree = ALL[name]
    tree.make(tmp_path / "export")
    fitting = {
        other
        for other in discovery.names("imports")
        if discovery.component("imports", other)().fits(tmp_path / "export")
    }
    assert fitting == {kind}
    wrong = "yolo" if kind != "yolo" else "coco"
    with pytest.raises(UserError, match=f"looks like {kind}"):
        import_export(wrong, tmp_path / "export", Path("new"))
    with pytest.raises(UserError, match=f"unknown name 'coko'; did you mean 'coco'.*looks like {kind}"):
        import_export("coko", tmp_path / "export", Path("new"))
    assert not Path("new").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export"]


@pytest.mark.parametrize("name", ALL)
def test_a_missing_image_is_named_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    kind, tree = ALL[name]
    if kind == "huggingface":
        pytest.skip("images are inside")
    tree.make(tmp_path / "export")
    image = discovery.component("imports", kind)().read(tmp_path / "export").samples[0].image
    image.unlink()
    with pytest.raises(UserError) as raised:
        import_export(kind, tmp_path / "export", Path("new"))
    assert f"{image.stem}" in str(raised.value)
    assert "missing" in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export"]


def test_images_are_linked_and_a_broken_one_stops_it(tmp_path: Path) -> None:
    trees.coco_cvat(tmp_path / "export")
    report = import_export("coco", tmp_path / "export", Path("new"))
    assert "3 linked" in report
    assert Path("new/images/1.jpg").samefile("export/images/1.jpg")
    (tmp_path / "export/images/1.jpg").unlink()
    (tmp_path / "export/images/1.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"images/1\.jpg: no readable image"):
        import_export("coco", tmp_path / "export", Path("other"))
    with pytest.raises(UserError, match="new: already exists"):
        import_export("coco", tmp_path / "export", Path("new"))


def test_overlaps_cuts_and_lost_objects_are_reported(tmp_path: Path) -> None:
    content = trees.coco_json(["1.jpg", "2.jpg"])
    content["annotations"] += [
        {"id": 7, "image_id": 2, "category_id": 3, "segmentation": [[6, 3, 12, 3, 12, 5, 6, 5]]},
        {"id": 8, "image_id": 2, "category_id": 3, "segmentation": [[6.1, 0.1, 6.2, 0.1, 6.2, 0.2]]},
    ]
    trees.images(tmp_path / "export", "1.jpg", "2.jpg")
    trees.text(tmp_path / "export/all.json", content)
    report = import_export("coco", tmp_path / "export", Path("new"))
    assert (
        "Where objects overlap, the smaller object gets the pixel: 4 pixels in 1 images, such as 1." in report
    )
    assert "Cut at the border of their image: 1 objects in 1 images, such as 2." in report
    assert "Left out, smaller than a pixel: 1 objects in 1 images, such as 2." in report
    assert "categories without objects: things" in report
    np.testing.assert_array_equal(
        masks(Path("new"))["2"], ink("aaaa.... aaaa.... aaaa.... aaaa..bb aaaa..bb aaaa....")
    )


def test_a_mask_of_the_stored_image_is_turned_with_it(tmp_path: Path) -> None:
    """Some COCO tools write the size of the image as stored, others as shown."""
    exif = Image.Exif()
    exif[0x0112] = 6  # the image is shown rotated by 90° clockwise
    for name in ("1", "2"):
        write(tmp_path / f"export/{name}.jpg", noise(name), exif=exif)
    trees.text(tmp_path / "export/all.json", trees.coco_json(["1.jpg", "2.jpg"]))
    report = import_export("coco", tmp_path / "export", Path("new"))
    assert "Turned by the EXIF orientation of their image: 2 masks" in report
    np.testing.assert_array_equal(masks(Path("new"))["1"], np.rot90(ink(BOTH), -1))


FAULTS = [
    ("coco", {"segmentation": [[20, 20, 30, 20, 30, 30]]}, "object 2 is outside of the image of 8×6"),
    ("coco", {"segmentation": [[1, 1, 2, 2]]}, "object 2: a polygon has fewer than 3 corners"),
    ("coco", {"segmentation": {"size": [5, 5], "counts": [25]}}, r"object 2: its RLE has the size \[5, 5\]"),
    ("coco", {"category_id": 9}, "objects have category 9, which has no name"),
]


@pytest.mark.parametrize(("kind", "change", "message"), FAULTS)
def test_faults_of_coco_objects(kind: str, change: dict, message: str, tmp_path: Path) -> None:
    content = trees.coco_json(["1.jpg", "2.jpg"])
    content["annotations"][1] |= change
    trees.images(tmp_path / "export", "1.jpg", "2.jpg")
    trees.text(tmp_path / "export/all.json", content)
    with pytest.raises(UserError, match=message) as raised:
        import_export(kind, tmp_path / "export", Path("new"))
    assert "all.json" in str(raised.value)
    assert not Path("new").exists()


def edit(path: str, old: str, new: str) -> None:
    file = Path("export", path)
    content = file.read_text()
    assert old in content
    file.write_text(content.replace(old, new, 1))


def edited(kind: str, tmp_path: Path, path: str, old: str, new: str) -> str:
    """The message for an export in which a text of a file was replaced."""
    TREES[kind].make(tmp_path / "export")
    edit(path, old, new)
    with pytest.raises(UserError) as raised:
        import_export(kind, Path("export"), Path("new"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export"]
    return str(raised.value)


@pytest.mark.parametrize(
    ("kind", "path", "old", "new", "message"),
    [
        ("coco", "valid/_annotations.coco.json", '"cat"', '"horse"', "category 1 is 'cat' in one and 'horse' in the"),
        ("coco", "valid/_annotations.coco.json", '"cat"', '""', "category 1 has no name"),
        ("coco", "valid/_annotations.coco.json", '"images": [', '"images": [3', "not valid JSON"),
        ("labelme", "1.json", '"label": "cat", ', "", "1.json: a shape has no label"),
        ("labelme", "1.json", "[3, 5]", "[90, 5], [3, 5]", ""),
        ("labelme", "1.json", "[[2, 2], [5, 3]]", "[[20, 20], [50, 30]]", r"shape 2 \(dog\) is outside of the image"),
        ("labelme", "1.json", '"rectangle"', '"heart"', "shape 2 (dog), a heart, cannot be drawn"),
        ("labelme", "1.json", '"imageHeight": 6', '"imageHeight": 60', "has 8×60 pixels, its image 8×6"),
        ("cvat", "labelmap.txt", "cat:250,50,83::\n", "", "#fa3253 in it, for which the export has no name"),
        ("cvat", "labelmap.txt", "horse:1,2,3", "horse:250,50,83", "horse has the colour of another label"),
        ("cvat", "labelmap.txt", "horse:1,2,3", "horse:1,2", "found 'horse:1,2::'; allowed: label:red,green,blue::"),
        ("cvat", "ImageSets/Segmentation/default.txt", "frame_000000", "gone", "gone has neither an image nor a mask"),
        ("roboflow", "valid/_classes.csv", "2, dog", "2, horse", "name different classes; they are two datasets: import them separately"),
        ("roboflow", "train/_classes.csv", "2, dog", "2, ", "value 2 has no name"),
        ("labelstudio", "project-1.json", '"id": 13', '"id": 99', "the JSON export has no task 13"),
        ("labelstudio", "project-1.json", '["big dog"]', '["fish"]', "has none of the labels of the JSON export"),
        ("supervisely", "train/ann/1.jpg.json", '"classTitle": "cat"', '"classTitle": "cow"', "the class 'cow'"),
        ("supervisely", "train/ann/1.jpg.json", '"origin": [2, 2]', '"origin": [20, 2]', "is outside of the image"),
        ("supervisely", "train/ann/1.jpg.json", '"data": "', '"data": "AAAA', "a bitmap, cannot be drawn"),
        ("yolo", "train/labels/1.txt", "1 ", "7 ", "line 1: found class 7, which has no name; allowed: 0 to 1"),
        ("yolo", "train/labels/1.txt", "1 0.25", "1 2500", "line 1: corners are pixels"),
        ("yolo", "valid/labels/3.txt", " 0.500000 1.000000 0.000000 1.000000", "", "line 1: is a box"),
        ("yolo", "data.yaml", "'dog'", "''", "class 1 has no name"),
        ("yolo", "data.yaml", "names: ['cat', 'dog']", "names: {cat: 0}", "found names ['cat']; allowed: numbers and"),
        ("yolo", "data.yaml", "../valid/images", "list.txt", "list.txt of val is missing; allowed: a folder of images, or a"),
        ("coco", "train/_annotations.coco.json", '"file_name": "1.jpg", ', "", "coco.json: images.0.file_name: missing"),
        ("coco", "train/_annotations.coco.json", '"image_id": 1', '"image_id": 8', "objects refer to image 8, which is not in images"),
        ("coco", "train/_annotations.coco.json", '"image_id": 1', '"image_id": [8]', "annotations.0.image_id: found [8]; allowed: a number or a text"),
        ("coco", "train/_annotations.coco.json", "[0, 24, 24]", "[0, 24, 25]", "object 3: its RLE has invalid counts; allowed: runs of 48 pixels"),
        ("coco", "train/_annotations.coco.json", "[[2, 2, 6, 2, 6, 4, 2, 4]]", "[[[2, 2], [6, 2], [6, 4]]]", "object 1: allowed: polygons [[x, y, x, y, …], …]"),
        ("labelme", "1.json", '"imageWidth": 8', '"imageWidth": 8.5', "1.json: imageWidth: found 8.5; allowed: integer"),
        ("labelme", "1.json", "[[2, 2], [5, 3]]", "[[2, 2]]", "shape 2 (dog), a rectangle, cannot be drawn (found 1 points; allowed: 2 or more)"),
        ("labelme", "1.json", "[[2, 2], [5, 3]]", "[2, 2, 5, 3]", "1.json: shapes.1.points.0: found 2; allowed: tuple (and 3 more)"),
        ("labelstudio", "project-1.json", '"id": 13', '"id": "x"', "project-1.json: id: found \"x\"; allowed: integer"),
        ("supervisely", "meta.json", '"title": "dog"', '"title": ""', "meta.json: classes.1.title: found"),
        ("supervisely", "val/ann/2.jpg.json", '"height": 6', '"height": -6', "2.jpg.json: size.height: found -6; allowed: greater than 0"),
        ("supervisely", "train/ann/1.jpg.json", '"geometryType": "polygon"', '"geometryType": "bitmap"', "object 1 (cat), a bitmap, cannot be drawn (it has no bitmap)"),
        ("mapillary", "config_v2.0.json", "[0, 0, 142]", "[0, 0, 300]", "labels.1.color.2: found 300; allowed: less than or equal to 255"),
        ("voc", "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt", "33", "32", "lists 2007_000032 in train and val"),
        ("voc", "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt", "33", "99", "2007_000099 has neither an image nor a mask"),
        ("camvid", "class_dict.csv", "Bridge,0,128,64\n", "", "#008040 in it, for which the export has no name"),
        ("camvid", "class_dict.csv", "Bridge", "Brücke", "found Brücke; allowed: the 32 classes of CamVid"),
        ("ade20k", "objectInfo150.txt", "2\t0.10", "x\t0.10", "allowed: a heading, then lines of Idx"),
        ("mapillary", "config_v2.0.json", '"readable": "Car", ', "", "config_v2.0.json: labels.1.readable: missing"),
        ("huggingface", "id2label.json", '"2"', '"7"', "row 1: found 2 in it, for which the export has no name"),
        ("huggingface", "id2label.json", '"2"', '"two"', "allowed: numbers and names"),
    ],
)  # fmt: skip
def test_faults_name_the_file(kind: str, path: str, old: str, new: str, message: str, tmp_path: Path) -> None:
    if not message:
        TREES[kind].make(tmp_path / "export")
        edit(path, old, new)
        assert "Cut at the border of their image: 1 objects" in import_export(
            kind, Path("export"), Path("new")
        )
        return
    said = edited(kind, tmp_path, path, old, new)
    assert message.replace("\\", "") in said


def test_files_of_coco_that_are_wrong_come_at_once(tmp_path: Path) -> None:
    TREES["coco"].make(tmp_path / "export")
    for split in ("train", "valid"):
        edit(f"{split}/_annotations.coco.json", '"file_name"', '"name"')
    with pytest.raises(UserError) as raised:
        import_export("coco", Path("export"), Path("new"))
    lines = str(raised.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines] == [
        f"export/{split}/_annotations.coco.json" for split in ("train", "valid")
    ]
    assert all("images.0.file_name: missing" in line for line in lines)


def test_label_files_of_no_split_are_counted(tmp_path: Path) -> None:
    trees.yolo_cvat(tmp_path / "export")
    report = import_export("yolo", Path("export"), Path("new"))
    assert "1 label files are in no split of data.yaml, such as export/labels/train/unlisted.txt" in report


WRONG: list[object] = [None, "x", "", -1, 0.5, True, [], {}, [[1]], {"a": 1}]


def places(content: object, at: tuple = ()) -> Iterator[tuple]:
    """The paths of all values in the content of a JSON file."""
    inner = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    for key, value in inner:
        yield (*at, key)
        yield from places(value, (*at, key))


def spoilt(content: object, rng: random.Random) -> object:
    """The content with one value replaced or removed."""
    content = json.loads(json.dumps(content))
    *path, last = rng.choice(list(places(content)))
    inner: Any = content
    for key in path:
        inner = inner[key]
    if rng.random() < 0.3:
        del inner[last]
    else:
        inner[last] = rng.choice(WRONG)
    return content


@pytest.mark.parametrize(
    "name", ["coco", "labelme", "labelstudio", "supervisely", "mapillary", "huggingface"]
)
def test_json_of_any_content_is_taken_or_refused_in_words(name: str, tmp_path: Path) -> None:
    rng = random.Random(name)
    for number in range(30):
        root = tmp_path / f"export{number}"
        TREES[name].make(root)
        file = rng.choice(sorted(root.rglob("*.json")))
        content = spoilt(json.loads(file.read_text()), rng)
        file.write_text(json.dumps(content))
        said = None
        try:
            import_export(name, root, tmp_path / "new")
        except UserError as error:
            said = str(error)
        assert said is None or (str(root) in said and not (tmp_path / "new").exists())
        shutil.rmtree(tmp_path / "new", ignore_errors=True)
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


CAMVID_11 = {
    "sky": ["128 128 128"],
    "building": ["0 128 64", "128 0 0", "64 192 0", "64 0 64", "192 0 128"],
    "pole": ["192 192 128", "0 0 64"],
    "road": ["128 64 128", "128 0 192", "192 0 64"],
    "pavement": ["0 0 192", "64 192 128", "128 128 192"],
    "tree": ["128 128 0", "192 192 0"],
    "sign_symbol": ["192 128 128", "128 128 64", "0 64 64"],
    "fence": ["64 64 128"],
    "car": ["64 0 128", "64 128 192", "192 128 192", "192 64 128", "128 64 64"],
    "pedestrian": ["64 64 0", "192 128 64", "64 0 192", "64 128 64"],
    "bicyclist": ["0 128 192", "192 0 192"],
}
"""Colours of the 32 classes in the 11 of SegNet, as MATLAB's example of semantic segmentation lists them."""
LABEL_COLOURS = """64 128 64 Animal
192 0 128 Archway
0 128 192 Bicyclist
0 128 64 Bridge
128 0 0 Building
64 0 128 Car
64 0 192 CartLuggagePram
192 128 64 Child
192 192 128 Column_Pole
64 64 128 Fence
128 0 192 LaneMkgsDriv
192 0 64 LaneMkgsNonDriv
128 128 64 Misc_Text
192 0 192 MotorcycleScooter
128 64 64 OtherMoving
64 192 128 ParkingBlock
64 64 0 Pedestrian
128 64 128 Road
128 128 192 RoadShoulder
0 0 192 Sidewalk
192 128 128 SignSymbol
128 128 128 Sky
64 128 192 SUVPickupTruck
0 0 64 TrafficCone
0 64 64 TrafficLight
192 64 128 Train
128 128 0 Tree
192 128 192 Truck_Bus
64 0 64 Tunnel
192 192 0 VegetationMisc
0 0 0 Void
64 192 0 Wall
"""
"""`label_colors.txt` of CamVid."""


def test_all_colours_of_camvid_become_the_published_classes(tmp_path: Path) -> None:
    root = tmp_path / "export"
    trees.text(root / "label_colors.txt", LABEL_COLOURS)
    colours = [[int(part) for part in line.split()[:3]] for line in LABEL_COLOURS.splitlines()]
    for name in ("a", "b"):
        write(root / f"LabeledApproved_full/{name}_L.png", Image.fromarray(np.array([colours] * 4, np.uint8)))
        write(root / f"701_StillsRaw_full/{name}.png", noise(name, (4, 32)))
    import_export("camvid", root, Path("new"))
    with Image.open("new/masks/a.png") as image:
        row = np.array(image)[0].tolist()
    found = {" ".join(map(str, colour)): value for colour, value in zip(colours, row, strict=True)}
    assert found.pop("0 0 0") == 255
    assert found == {colour: value for value, listed in enumerate(CAMVID_11.values()) for colour in listed}
    assert list(CAMVID_11) == list(CamVid.classes)


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    TREES["labelme"].make(tmp_path / "export")
    edit("1.json", "[[2, 2], [5, 3]]", "[[20, 20], [50, 30]]")
    edit("3.json", '"imageHeight": 6', '"imageHeight": 7')
    Path("export/sub/2.png").unlink()
    with pytest.raises(UserError) as raised:
        import_export("labelme", Path("export"), Path("new"))
    assert [line.split(":")[0] for line in str(raised.value).splitlines()] == [
        "export", "  export/sub/2.json", "  export/1.json", "  export/3.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "file", "message"),
    [
        ("cvat", "labelmap.txt", "found 2 exports, one, two: import them separately"),
        (
            "labelstudio",
            "task-12-annotation-9-by-2-tag-cat-0.png",
            "task 12 has annotations 3, 9; keep one of them",
        ),
    ],
)
def test_an_export_of_two_tasks(kind: str, file: str, message: str, tmp_path: Path) -> None:
    if kind == "cvat":
        for task in ("one", "two"):
            TREES[kind].make(tmp_path / "export" / task)
    else:
        TREES[kind].make(tmp_path / "export")
        write(tmp_path / "export" / file, trees.picture(ink(LEFT) * 255))
    with pytest.raises(UserError, match=message):
        import_export(kind, tmp_path / "export", Path("new"))


def test_names_that_would_be_one_file(tmp_path: Path) -> None:
    trees.images(tmp_path / "export", "1.jpg", "1.png")
    trees.text(tmp_path / "export/all.json", trees.coco_json(["1.jpg", "1.png"]))
    with pytest.raises(UserError, match="1: 2 images have this name"):
        import_export("coco", tmp_path / "export", Path("new"))


def test_a_file_name_does_not_lead_out_of_the_export(tmp_path: Path) -> None:
    trees.images(tmp_path, "secret.jpg")
    trees.images(tmp_path / "export", "1.jpg")
    trees.text(tmp_path / "export/all.json", trees.coco_json(["1.jpg", "../secret.jpg"]))
    with pytest.raises(UserError, match=r"its image \.\./secret\.jpg is missing"):
        import_export("coco", tmp_path / "export", Path("new"))


def test_boxes_alone_and_panoptic_files_are_refused(tmp_path: Path) -> None:
    content = trees.coco_json(["1.jpg", "2.jpg"])
    for entry in content["annotations"]:
        entry["segmentation"] = []
    trees.images(tmp_path / "export", "1.jpg", "2.jpg")
    file = trees.text(tmp_path / "export/all.json", content)
    with pytest.raises(UserError, match="its objects have only boxes"):
        import_export("coco", tmp_path / "export", Path("new"))
    content["annotations"] = [{"image_id": 1, "segments_info": [], "file_name": "1.png"}]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="panoptic"):
        import_export("coco", tmp_path / "export", Path("new"))


def test_a_packed_export_and_a_target_inside_are_refused(tmp_path: Path) -> None:
    (tmp_path / "export.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match="is an archive; unpack it"):
        import_export("coco", Path("export.zip"), Path("new"))
    trees.coco(tmp_path / "export")
    with pytest.raises(UserError, match="is inside the export"):
        import_export("coco", Path("export"), Path("export/new"))
    with pytest.raises(UserError, match="gone: not found"):
        import_export("coco", Path("gone"), Path("new"))
