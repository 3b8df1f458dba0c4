"""Your own images and masks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attnfd import paths
from attnfd.data.images import IMAGES, read_classes
from attnfd.data.labels import label_table
from attnfd.data.loaders import Segmentation
from attnfd.data.prepared import SPLITS, Prepared, read_warnings
from attnfd.data.strata import stratify
from attnfd.errors import UserError
from attnfd.readers.folder import Folder, labels_of
from stages.prepare import prepare
from tests import tasks
from tests.data.trees import params_of
from tests.readers.trees import folder_tree, noise, write

COLOURS = {"ground": [0, 0, 0], "water": [0, 0, 255], "tree": [10, 200, 30]}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for key in ("DVC_ROOT", "ATTNFD_FOLDER_ROOT"):
        monkeypatch.delenv(key, raising=False)
    return folder_tree(tmp_path / "mine")


def prepared(root: Path, **options: Any) -> Prepared:
    if "val" in options:  # A list and a share are two ways to split.
        for name in ("train.txt", "val.txt"):
            (root / name).unlink(missing_ok=True)
    prepare(tasks.of(params_of("folder", root=str(root), **options), "mine"))
    return Prepared.load(paths.prepared("mine"), root)


def ids(found: Prepared, split: str) -> list[str]:
    return found.split(split)["id"].str.removeprefix("images/").tolist()


def coloured(indices: list[list[int]]) -> Image.Image:
    return Image.fromarray(np.array(list(COLOURS.values()), dtype=np.uint8)[np.array(indices)])


def paint(root: Path, masks: list[Image.Image]) -> None:
    """Replace the tree's images by images of 2×3 pixels, one for each mask."""
    for path in [*root.glob("images/*"), *root.glob("masks/*")]:
        path.unlink()
    for number, mask in enumerate(masks):
        write(root / f"images/{number}.png", noise(f"paint{number}", (2, 3)))
        write(root / f"masks/{number}.png", mask)
    (root / "train.txt").write_text("".join(f"{number}\n" for number in range(1, len(masks))))
    (root / "val.txt").write_text("0\n")


def test_splits_are_listed_and_classes_come_from_the_card(root: Path) -> None:
    found = prepared(root)
    assert (ids(found, "train"), ids(found, "val")) == (["0", "1", "2", "3"], ["4", "5"])
    assert found.card.classes == ("ground", "cat", "dog")
    assert found.card.labels == {0: 0, 10: 1, 20: 2, 255: 255}
    assert found.card.splits["val"].pixels == {"ground": 0, "cat": 48, "dog": 48}


def test_classes_may_be_in_the_params(root: Path) -> None:
    (root / "classes.yaml").unlink()
    (root / "val.txt").write_text("3\n4\n5\n")
    (root / "train.txt").write_text("0\n1\n2\n")
    found = prepared(root, classes={"animal": 10, "ground": 0}, void=[20])
    assert found.card.classes == ("animal", "ground")
    assert (found.card.splits["val"].pixels["animal"], found.card.splits["val"].void) == (48, 48)


def test_colour_masks_are_read_by_colour_in_every_form(root: Path) -> None:
    indices = [[0, 1, 2], [2, 2, 1]]
    rgb = coloured(indices)
    paint(root, [rgb, rgb.convert("RGBA"), rgb.quantize(3), rgb.quantize(3).convert("RGB")])
    found = prepared(root, classes=COLOURS)
    assert found.card.palette == tuple(map(tuple, COLOURS.values()))
    for index in range(3):
        np.testing.assert_array_equal(Segmentation(found, "train")[index][1].numpy(), indices)
    assert found.split("val").iloc[0][list(COLOURS)].tolist() == [1, 2, 3]


def test_void_colours_are_void(root: Path) -> None:
    paint(root, [coloured([[0, 1, 2], [2, 2, 1]])] * 2)
    two = {name: COLOURS[name] for name in ("ground", "tree")}
    assert prepared(root, classes=two, void=[COLOURS["water"]]).card.splits["val"].void == 2


SMOOTHED = r"; was the mask resized, smoothed or saved as JPEG\?"


@pytest.mark.parametrize("found", [(0, 128, 255), (0, 2, 253, 255), (0, 85, 170, 255)])
def test_values_between_those_of_two_classes_come_with_their_cause(
    root: Path, found: tuple[int, ...]
) -> None:
    values = np.resize(np.array(found, np.uint8), 6).reshape(2, 3)
    paint(root, [Image.fromarray(values)] * 2)
    cause = SMOOTHED if len(found) > 3 else "$"
    with pytest.raises(UserError, match=f"allowed: 0, 255{cause}"):
        prepared(root, classes={"ground": 0, "cat": 255})


def test_colours_between_those_of_two_classes_come_with_their_cause(root: Path) -> None:
    mixed = coloured([[0, 1, 2], [2, 2, 1]]).resize((5, 2), Image.Resampling.BILINEAR)
    paint(root, [mixed, coloured([[0, 1, 2], [2, 2, 1]])])
    write(root / "images/0.png", noise("0", (2, 5)))
    with pytest.raises(UserError, match=SMOOTHED):
        prepared(root, classes=COLOURS)
    strange = np.array(coloured([[0, 1, 2], [2, 2, 1]]))
    strange[0, 0], strange[0, 1] = (250, 250, 0), (9, 250, 250)
    paint(root, [Image.fromarray(strange)] * 2)
    with pytest.raises(UserError, match=r"#0ac81e$"):
        prepared(root, classes=COLOURS)


def test_unknown_colours_are_named_and_a_flood_of_them_is_cut(root: Path) -> None:
    paint(root, [noise("flood", (2, 3)), coloured([[0, 1, 2], [2, 2, 1]])])
    with pytest.raises(UserError) as raised:
        prepared(root, classes=COLOURS)
    assert "masks/0.png: found labels [#" in str(raised.value)
    assert "allowed: #000000, #0000ff, #0ac81e" in str(raised.value)
    write(root / "masks/0.png", noise("flood", (20, 30)))
    with pytest.raises(UserError, match=r"\] and 592 more; allowed"):
        prepared(root, classes=COLOURS)
    with pytest.raises(UserError, match=r"#0ac81e; was the mask resized, smoothed or saved as JPEG\?"):
        prepared(root, classes=COLOURS)


def test_numbers_of_objects_are_asked_about(root: Path) -> None:
    write(root / "masks/0.png", Image.fromarray(np.arange(48).reshape(6, 8).astype(np.uint8) % 5))
    with pytest.raises(
        UserError, match=r"found labels \[1, 2, 3, 4\]; allowed: 0, 10, 20, 255; are the values num"
    ):
        prepared(root)


def test_hidden_files_are_passed_over_and_suffixes_may_be_capitals(root: Path) -> None:
    (root / "images/5.jpg").rename(root / "images/5.JPG")
    (root / "masks/5.png").rename(root / "masks/5.PNG")
    for name in (".DS_Store", "._4.jpg", "._4.png", "Thumbs.db"):
        (root / "images" / name).write_bytes(b"\0")
        (root / "masks" / name).write_bytes(b"\0")
    (root / "images/.cache").mkdir()
    write(root / "images/.cache/9.jpg", noise("9"))
    found = prepared(root, val=0.5)
    assert sorted(ids(found, "train") + ids(found, "val")) == list("012345")


def test_folders_below_and_a_suffix_of_the_masks(root: Path) -> None:
    write(root / "images/far/away/7.tif", noise("7"))
    for path in root.glob("masks/*.png"):
        path.rename(path.with_stem(f"{path.stem}_mask"))
    write(root / "masks/far/away/7_mask.png", Image.new("L", (8, 6)))
    with (root / "val.txt").open("a") as listed:
        listed.write("far/away/7.tif\n")
    assert ids(prepared(root, mask_suffix="_mask"), "val") == ["4", "5", "far/away/7"]


def test_a_split_by_share_follows_its_seed_alone(root: Path) -> None:
    for number in range(6, 40):
        write(root / f"images/{number}.png", noise(str(number)))
        write(root / f"masks/{number}.png", Image.new("L", (8, 6), 10 * (number % 3)))
    first = ids(prepared(root, val=0.25), "val")
    assert len(first) == 10
    assert first == ids(prepared(root, val=0.25), "val")
    assert first != ids(prepared(root, val=0.25, seed=1), "val")


def test_a_third_part_tests(root: Path) -> None:
    paint(root, [Image.fromarray(np.array([[0, 10, 20]] * 2, dtype=np.uint8))] * 6)
    (root / "train.txt").unlink()
    (root / "val.txt").unlink()
    found = prepared(root, val=0.34, test=0.34)
    parts = [set(ids(found, split)) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [2, 2, 2]
    assert set().union(*parts) == set("012345")
    assert parts[1] == set(ids(prepared(root, val=0.34), "val"))  # Not changed by the share of test.


def test_a_list_of_test_images_is_read(root: Path) -> None:
    (root / "train.txt").write_text("0\n1\n2\n")
    (root / "test.txt").write_text("3\n")
    assert ids(prepared(root), "test") == ["3"]


def test_a_list_of_no_test_images_is_refused(root: Path) -> None:
    (root / "train.txt").write_text("0\n1\n2\n")
    (root / "test.txt").write_text("\n")
    with pytest.raises(UserError, match=r"split test: found no image among .*or remove the split"):
        prepared(root)


def test_rare_classes_are_shared_out_evenly() -> None:
    present = np.zeros((200, 4), dtype=bool)
    present[:, 0] = True
    present[:20, 1] = True  # a tenth has class 1; half of that tenth also has class 2
    present[:10, 2] = True
    present[195:, 3] = True
    for seed in range(5):
        chosen = stratify(present, 0.2, seed)
        assert present[chosen].sum(0).tolist() == [40, 4, 2, 1]


@pytest.mark.parametrize(("share", "chosen"), [(0.2, 2), (0.5, 5), (0.52, 5), (0.8, 8)])
def test_images_without_a_common_class_are_shared_out_too(share: float, chosen: int) -> None:
    assert stratify(np.eye(10, dtype=bool), share, 0).sum() == chosen


def test_a_group_goes_to_one_side_as_a_whole() -> None:
    groups = np.arange(90) // 3
    present = np.column_stack([np.ones(90, dtype=bool), groups % 5 == 0])
    for seed in range(5):
        chosen = stratify(present, 0.2, seed, groups)
        assert chosen.sum() == 18
        assert chosen[present[:, 1]].sum() == 3
        assert all(len(set(chosen[groups == group])) == 1 for group in range(30))


@pytest.mark.parametrize("folders", [("",), ("first/", "second/")], ids=["one folder", "two exports"])
def test_copies_of_one_original_are_on_one_side(root: Path, folders: tuple[str, ...]) -> None:
    for path in [*root.glob("images/*"), *root.glob("masks/*")]:
        path.unlink()
    for number in range(90):
        name = f"{folders[number % len(folders)]}frame_{number // 3:04}_jpg.rf.{number:032x}"
        write(root / f"images/{name}.jpg", noise(name))
        write(root / f"masks/{name}_mask.png", Image.fromarray(np.full((6, 8), 10 * (number % 3), np.uint8)))
    found = prepared(root, val=0.2, mask_suffix="_mask")
    train, val = ({name.split(".rf.")[0].split("/")[-1] for name in ids(found, split)} for split in SPLITS)
    assert (len(ids(found, "val")), len(val)) == (18, 6)
    assert not train & val


def test_a_share_and_lists_are_two_ways_to_split(root: Path) -> None:
    options = {"root": str(root), "val": 0.5}
    with pytest.raises(
        UserError, match=r"found train.txt and val.txt, and prepare.val: 0.5 in the recipe; .*"
    ):
        prepare(tasks.of(params_of("folder", **options), "mine"))
    (root / "train.txt").unlink()
    with pytest.raises(UserError, match=r"found val.txt, and prepare.val: 0.5"):
        prepare(tasks.of(params_of("folder", **options), "mine"))
    (root / "val.txt").unlink()
    prepare(tasks.of(params_of("folder", **options), "mine"))


@pytest.mark.parametrize(("images", "masks"), [("both", "both"), (".", "."), ("both", "./both")])
def test_masks_beside_their_images_are_no_images(root: Path, images: str, masks: str) -> None:
    (root / "images").rename(root / "both")
    for path in (root / "masks").iterdir():
        path.rename(root / "both" / f"{path.stem}_mask.png")
    below = "both/" if images == "." else ""
    found = prepared(root, images=images, masks=masks, mask_suffix="_mask", val=0.5)
    assert sorted(found.index["image"]) == [f"both/{number}.jpg" for number in range(6)]
    (root / "train.txt").write_text("".join(f"{below}{number}\n" for number in range(4)))
    (root / "val.txt").write_text(f"{below}4_mask\n")
    with pytest.raises(UserError, match=f"found '{below}4_mask'; allowed"):
        prepared(root, images=images, masks=masks, mask_suffix="_mask")


def test_masks_in_a_folder_below_the_images_are_no_images(root: Path) -> None:
    for path in (root / "images").iterdir():
        path.rename(root / path.name)
    found = prepared(root, images=".", val=0.5)
    assert sorted(found.index["image"]) == [f"{number}.jpg" for number in range(6)]


def test_home_is_spelled_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root.parent))
    prepare(tasks.of(params_of("folder", root="~/mine"), "mine"))
    monkeypatch.setenv("ATTNFD_FOLDER_ROOT", "~/mine")
    prepare(tasks.of(params_of("folder", root="nowhere"), "mine"))


def test_images_without_class_are_shared_out_too() -> None:
    assert stratify(np.zeros((10, 3), dtype=bool), 0.3, 0).sum() == 3


def test_a_duplicate_in_both_splits_is_refused(root: Path) -> None:
    (root / "images/5.jpg").write_bytes((root / "images/0.jpg").read_bytes())
    with pytest.raises(UserError, match=r"images/5.jpg: same content as images/0.jpg"):
        prepared(root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda root: (root / "masks/3.png").unlink(),
            r"masks: found no mask \(.*\) for 1 image, such as 3",
        ),
        (
            lambda root: [path.rename(path.with_suffix(".npy")) for path in root.glob("masks/*")],
            r"masks: contains 6 × .npy; allowed: masks of .bmp, .png, .*; save each array by Image.fromarray",
        ),
        (
            lambda root: [path.rename(path.with_suffix(".JPEG")) for path in root.glob("masks/*")],
            r"masks: contains 6 × .jpeg; allowed: masks of .bmp, .*; JPEG changes pixels, so export",
        ),
        (
            lambda root: [path.rename(path.with_suffix(".json")) for path in root.glob("masks/*")],
            r"masks: contains 6 × .json; .*; attnfd data import makes masks from exported polygons",
        ),
        (
            lambda root: [path.rename(path.with_suffix(".heic")) for path in root.glob("images/*")],
            r"images: contains 6 × .heic; allowed: images of .*; convert them to PNG, or .*prepare.images",
        ),
        (
            lambda root: [path.unlink() for path in root.glob("masks/*")],
            r"masks: contains no file; name another folder in prepare.masks, or",
        ),
        (
            lambda root: (root / "masks").rename(root / "labels"),
            r"masks: no such folder; name it in prepare.masks",
        ),
        (
            lambda root: [path.rename(path.with_stem(f"{path.stem}_seg")) for path in root.glob("masks/*")],
            r"for 4 images, such as 0 \(there is 0_seg: set prepare.mask_suffix to '_seg'\?\)",
        ),
        (
            lambda root: [
                path.rename(path.with_name(f"{path.stem}.jpg.png")) for path in root.glob("masks/*")
            ],
            r"such as 0 \(there is 0.jpg: set prepare.mask_suffix to '.jpg'\?\)",
        ),
        (
            lambda root: [
                (root / "images/3.jpg").rename(root / "images/caf\u00e9.jpg"),
                (root / "masks/3.png").rename(root / "masks/cafe\u0301.png"),
                (root / "train.txt").write_text("0\ncaf\u00e9\n"),
            ],
            r"such as caf. \(there is cafe., which differs in capitals or in its Unicode form: rename",
        ),
        (
            lambda root: (root / "val.txt").write_text("images/4.jpg\n"),
            r"line 1: found 'images/4.jpg'; allowed: one image per line, .* relative to .*images, such as 4$",
        ),
        (
            lambda root: (root / "val.txt").write_text(f"{root}/images/5.jpg\n"),
            r"line 1: found '/.*/images/5.jpg'; allowed: one image per line, .* such as 5$",
        ),
        (
            lambda root: (root / "val.txt").write_text("/Set/val/5.jpg /Set/valannot/5.png\n"),
            r"line 1: found '/Set/val/5.jpg /Set/valannot/5.png'; allowed: one image per line, .* such as 5$",
        ),
        (
            lambda root: (root / "classes.yaml").write_text("Pixel Value, Class\n0, ground\n"),
            r"found no `classes`; allowed: a YAML file such as `classes: {ground: 0, cat: 1}`; or write",
        ),
        (
            lambda root: [
                write(path, Image.open(path).convert("RGB").point(lambda value: 9 * value))
                for path in root.glob("masks/*")
            ],
            r"the masks in .*mine have colours, such as \[0, 0, 0\]; the classes have numbers: give each",
        ),
        (
            lambda root: [(root / "train.txt").write_text("0\n"), (root / "val.txt").write_text("")],
            r"split val: found no image among the 1 of .*; allowed: one or more: list some for it",
        ),
        (lambda root: (root / "val.txt").unlink(), r"val.txt: not found; .*prepare.val"),
        (lambda root: (root / "val.txt").write_text("4\nnine\n"), r"val.txt, line 2: found 'nine'; allowed"),
        (lambda root: write(root / "images/4.png", noise("4")), r"found 4.jpg and 4.png; allowed: one"),
        (lambda root: (root / "classes.yaml").write_text("a: [\n"), r"classes.yaml, line 2: expected"),
        (
            lambda root: (root / "classes.yaml").write_text("- a\n"),
            r"classes.yaml: found no `classes`; allowed",
        ),
        (lambda root: (root / "classes.yaml").write_text("classes: {a: 0, b: 0}"), r"classes.b: found 0"),
        (
            lambda root: (root / "classes.yaml").write_text("classes: {a: 0, b: 1}\nviod: []"),
            r"viod: unknown key",
        ),
    ],
)
def test_what_is_invalid_is_named_in_one_line(root: Path, change: Any, message: str) -> None:
    change(root)
    with pytest.raises(UserError, match=message) as raised:
        prepared(root)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": {"a": 0}}, r"prepare.classes: found 1 of them; allowed: 2 to 254"),
        ({"classes": {"a": 0, "b": 256}}, r"classes.b: found 256; allowed: 0 to 255, or \[red, green"),
        ({"classes": {"a": 0, "b": True}}, r"classes.b: found True"),
        ({"classes": {"a": [0, 0], "b": 1}}, r"classes.a: found \[0, 0\]"),
        ({"classes": {"a": 0, "b": [0, 0, 1]}}, r"classes: found numbers and colours"),
        ({"classes": {"a": 0, "b": 1}, "void": [1]}, r"void.0: found 1, which is used already"),
        ({"classes": {"a": 0, "split": 1}}, r"classes.split: has the name of an index column"),
        ({"void": [3]}, r"void: found \[3\]; allowed: nothing; write void into classes.yaml"),
        ({"val": 1.5}, r"prepare.val: found 1.5; allowed: less than 1"),
        ({"ratio": 0.5}, r"prepare.ratio: unknown key"),
        (
            {"classes": ["a", "b"]},
            r'prepare.classes: found \["a", "b"\]; allowed: keys with values, such as {a: 0, b: 1}, or',
        ),
        (
            {"classes": {"a": 0, "b": 1}, "void": 255},
            r"prepare.void: found 255; allowed: a list, such as \[255\]",
        ),
        ({"images": ["a"]}, r"prepare.images: found \[\"a\"\]; allowed: string"),
        (
            {"masks": "images/"},
            r"prepare.masks: found images/, the folder of the images; allowed: another folder",
        ),
    ],
)
def test_invalid_options_are_named(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        prepared(root, **options)
    assert "\n" not in str(raised.value)


def test_as_many_classes_as_fit_have_colours_of_their_own(root: Path) -> None:
    classes = {f"c{index}": index for index in range(254)}
    palette = Folder(Folder.Options(root=str(root), classes=classes), root).palette
    assert len(set(palette)) == 254


def test_a_class_may_have_255() -> None:
    assert labels_of({"ground": 0, "road": 255}) == {0: 0, 255: 1}


def test_blue_and_black_alone_are_still_colours(tmp_path: Path) -> None:
    write(tmp_path / "mask.png", Image.new("RGB", (2, 1), (0, 0, 255)))
    table = label_table(labels_of({"ground": [0, 0, 0], "water": [0, 0, 255]}))
    assert read_classes(tmp_path / "mask.png", table).tolist() == [[1, 1]]


def more(folder: Path, *names: str) -> None:
    """Additional images with masks, in `folder`/images and `folder`/masks."""
    for name in names:
        write(folder / f"images/{name}.png", noise(name))
        write(folder / f"masks/{name}.png", Image.fromarray(np.repeat(np.uint8([0, 10]), 24).reshape(6, 8)))


def warnings() -> list[str]:
    """The warnings of the last `prepared` about files that it did not read."""
    return [line for line in read_warnings(paths.prepared("mine")) if line.startswith(("Files", "Masks"))]


def test_linked_folders_are_followed(root: Path, tmp_path: Path) -> None:
    more(tmp_path / "disk", "6", "deep/7")
    for kind in ("images", "masks"):
        (root / kind / "street").symlink_to(tmp_path / "disk" / kind)
    found = prepared(root, val=0.3)
    names = sorted(ids(found, "train") + ids(found, "val"))
    assert names == [*"012345", "street/6", "street/deep/7"]
    assert warnings() == []
    assert Segmentation(found, "train").kept is not None


def test_a_dataset_of_links_alone_is_read(root: Path, tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (root / kind).rename(tmp_path / kind)
        (root / kind).mkdir()
        (root / kind / "all").symlink_to(tmp_path / kind)
    found = prepared(root, val=0.3)
    assert sorted(ids(found, "train") + ids(found, "val")) == [f"all/{number}" for number in range(6)]


def test_links_that_have_no_end_are_cut_and_named(root: Path) -> None:
    (root / "images/up").symlink_to(root)
    (root / "images/self").symlink_to(root / "images")
    (root / "images/below").mkdir()
    (root / "images/below/back").symlink_to("..")
    (root / "images/ring").symlink_to("ring")
    (root / "images/gone").symlink_to(root / "nowhere")
    found = prepared(root, val=0.3)
    assert sorted(ids(found, "train") + ids(found, "val")) == list("012345")
    (line,) = warnings()
    assert line == "Files that are not read: 5 broken or endless link, such as images/below/back."


def test_a_broken_link_to_an_image_is_a_fault(root: Path) -> None:
    (root / "images/4.jpg").unlink()
    (root / "images/4.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(UserError, match=r"images/4.jpg: cannot be read \(No such file"):
        prepared(root)


def test_files_that_are_not_read_are_counted_and_named(root: Path) -> None:
    for name in ("a.heic", "b.heic", "c.AVIF", "notes", ".hidden.heic", "d.mp4", "e.json"):
        (root / "images" / name).write_bytes(b"")
    (root / "masks/a.npy").write_bytes(b"")
    prepared(root)
    images, masks = warnings()
    assert images.startswith("Files that are not read: 2 .heic, 1 .avif, 1 .mp4, ")
    assert images.endswith(", …, such as images/a.heic.")
    assert masks == "Files that are not read: 1 .npy, such as masks/a.npy."


def test_images_that_no_list_names_are_counted_and_named(root: Path) -> None:
    (root / "train.txt").write_text("0\n2\n")
    line = "Images that no list names: 2, such as images/1.jpg."
    prepared(root)
    assert line in read_warnings(paths.prepared("mine"))
    (root / "train.txt").write_text("0\n1\n2\n3\n")
    prepared(root)
    assert not any("no list" in line for line in read_warnings(paths.prepared("mine")))


def test_masks_without_an_image_are_counted_and_named(root: Path) -> None:
    for number in (1, 3):
        (root / f"images/{number}.jpg").unlink()
    (root / "train.txt").write_text("0\n2\n")
    prepared(root)
    assert warnings() == ["Masks without an image: 2, such as masks/1.png."]


def test_images_that_no_list_names_have_no_lone_mask(root: Path) -> None:
    (root / "train.txt").write_text("0\n1\n")
    prepared(root)
    assert warnings() == []


def test_images_and_masks_of_one_folder_are_no_lone_masks(root: Path) -> None:
    for number in range(6):
        write(root / f"all/{number}.png", noise(str(number)))
        (root / f"masks/{number}.png").rename(root / f"all/{number}_mask.png")
    prepared(root, images="all", masks="all", mask_suffix="_mask")
    assert warnings() == []


@pytest.mark.parametrize("line", ["a.v2", "a.v2.png"])
def test_a_missing_image_is_not_taken_for_one_of_a_shorter_name(root: Path, line: str) -> None:
    more(root, "a", "a.v1")
    (root / "val.txt").write_text("./a.v1\na.png\n")
    assert ids(prepared(root), "val") == ["a", "a.v1"]
    (root / "val.txt").write_text(f"{line}\n")
    with pytest.raises(UserError, match=rf"val.txt, line 1: found '{line}'; allowed"):
        prepared(root)


def test_a_mask_is_not_taken_for_that_of_a_shorter_name(root: Path) -> None:
    more(root, "a", "a.v2")
    (root / "masks/a.v2.png").unlink()
    with pytest.raises(UserError, match=r"found no mask .* such as a\.v2;"):
        prepared(root, val=0.3)


@pytest.mark.parametrize("suffix", IMAGES)
def test_every_suffix_of_an_image_is_read(root: Path, suffix: str) -> None:
    (root / "images/4.jpg").rename(root / f"images/4{suffix}")
    assert ids(prepared(root), "val") == ["4", "5"]


@pytest.mark.parametrize("given", ["photos", "unlabelled.txt"])
def test_images_without_masks_are_a_split_of_their_own(root: Path, given: str) -> None:
    home = "photos" if given == "photos" else "images/more"
    for name in ("x", "y", "z"):
        write(root / f"{home}/{name}.jpg", noise(name))
    (root / "unlabelled.txt").write_text("more/x\nmore/y.jpg\nmore/z\n")
    found = prepared(root, unlabelled=given, val=0.4)
    split = found.split("unlabelled")
    assert split["image"].tolist() == [f"{home}/{name}.jpg" for name in ("x", "y", "z")]
    assert split["mask"].tolist() == ["", "", ""]
    assert not found.card.splits["unlabelled"].has_masks
    assert found.card.splits["train"].images + found.card.splits["val"].images == 6
    assert not [line for line in read_warnings(paths.prepared("mine")) if "unlabelled" in line]
    both = Segmentation(found, "train", unlabelled=["unlabelled"])
    assert sum(bool((both[row][1] == 254).all()) for row in range(len(both))) == 3
    assert len(both) == 3 + found.card.splits["train"].images
    with pytest.raises(
        UserError, match=r"unlabelled have no masks; allowed: distill.unlabelled: \[unlabelled\]"
    ):
        Segmentation(found, "train", "unlabelled")


def test_an_unlabelled_image_that_also_validates_is_refused(root: Path) -> None:
    write(root / "photos/x.jpg", noise("4"))
    with pytest.raises(UserError, match=r"images/4.jpg: same content as photos/x.jpg"):
        prepared(root, unlabelled="photos")
    with pytest.raises(UserError, match="gone: no such folder"):
        prepared(root, unlabelled="gone")
