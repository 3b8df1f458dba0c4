"""Faults that only all files of a dataset show, from the folder to the card and every user of its images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attnfd import paths
from attnfd.data.depth import Depth
from attnfd.data.images import decode_image
from attnfd.data.loaders import Segmentation
from attnfd.data.prepared import Prepared, read_warnings
from attnfd.errors import UserError
from attnfd.models.checkpoint import legend
from attnfd.results import examples
from stages.prepare import prepare
from tests import tasks
from tests.data.deep import png16
from tests.data.trees import params_of
from tests.readers.trees import noise, write

SIZE = (20, 30)
CLASSES = {"ground": 0, "cat": 1}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for key in ("DVC_ROOT", "ATTNFD_FOLDER_ROOT"):
        monkeypatch.delenv(key, raising=False)
    for number in range(6):
        write(tmp_path / f"mine/images/{number}.png", noise(str(number), SIZE))
        write(tmp_path / f"mine/masks/{number}.png", Image.fromarray(values(1)))
    return tmp_path / "mine"


def values(*labels: int) -> np.ndarray:
    """A mask of 0 with a stripe of each label."""
    mask = np.zeros(SIZE, dtype=np.uint8)
    for place, label in enumerate(labels):
        mask[3 * place : 3 * place + 3] = label
    return mask


def prepared(root: Path, **options: Any) -> Prepared:
    settings = {"root": str(root), "classes": CLASSES, "val": 0.34, **options}
    prepare(tasks.of(params_of("folder", **settings), "mine"))
    return Prepared.load(paths.prepared("mine"), root)


def two_classes(size: tuple[int, int]) -> Image.Image:
    mask = np.ones(size, dtype=np.uint8)
    mask[0] = 0
    return Image.fromarray(mask)


def said(word: str) -> str:
    """The warnings of the last `prepared` that contain this word."""
    return "\n".join(line for line in read_warnings(paths.prepared("mine")) if word in line)


def refused(root: Path, **options: Any) -> list[str]:
    with pytest.raises(UserError) as raised:
        prepared(root, **options)
    assert not Path("data/mine").exists()
    return [line.strip() for line in str(raised.value).splitlines()[1:]]


def indexed(mask: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(mask)
    image.putpalette([channel for colour in colours for channel in colour])
    return image


def deep(root: Path, highest: int, *, kind: str = "PNG", mode: type = np.uint16) -> list[np.ndarray]:
    """Replace the images by grey ones with 16 or 32 bits and values from 0 to `highest`."""
    rng = np.random.default_rng(highest)
    pixels = []
    for number in range(6):
        grey = rng.integers(0, highest, SIZE, endpoint=True).astype(mode)
        grey[0, :2] = 0, highest
        (root / f"images/{number}.png").unlink(missing_ok=True)
        write(root / f"images/{number}.{'png' if kind == 'PNG' else 'tif'}", Image.fromarray(grey))
        pixels.append(grey)
    return pixels


# Palettes


def test_an_index_of_two_colours_is_refused_with_the_odd_files(root: Path) -> None:
    red, green, black = (255, 0, 0), (0, 255, 0), (0, 0, 0)
    for number in range(6):
        colours = (black, green) if number in (2, 5) else (black, red)
        write(root / f"masks/{number}.png", indexed(values(1), *colours))
    (fault,) = refused(root)
    assert fault.startswith("masks/2.png, masks/5.png: index 1 is #00ff00, in other masks #ff0000; save all")


def test_the_same_masks_are_right_by_their_colours(root: Path) -> None:
    for number in range(6):
        mask = indexed(values(1), (0, 0, 0), (255, 0, 0))
        if number == 3:
            mask = indexed(1 - values(1), (255, 0, 0), (0, 0, 0))
        write(root / f"masks/{number}.png", mask)
    found = prepared(root, classes={"ground": [0, 0, 0], "cat": [255, 0, 0]})
    assert found.index["cat"].tolist() == [90] * 6


def test_colours_that_no_pixel_has_may_differ_and_grey_masks_have_none(root: Path) -> None:
    for number in range(3):
        write(root / f"masks/{number}.png", indexed(values(1), (0, 0, 0), (9, 9, 9), (number, 1, 2)))
    assert prepared(root).index["cat"].tolist() == [90] * 6


def test_black_as_a_class_is_worth_a_look(root: Path) -> None:
    for number in range(6):
        write(root / f"masks/{number}.png", indexed(values(1), (40, 200, 40), (0, 0, 0)))
    prepared(root)
    assert "black is index 1 in the masks, which is cat, and index 0 is #28c828" in said("black")


# Bits


def one_bit(root: Path, *numbers: int) -> None:
    for number in numbers:
        write(root / f"masks/{number}.png", Image.fromarray(values(1) > 0))
    for number in set(range(6)) - set(numbers):
        write(root / f"masks/{number}.png", Image.fromarray(values(255)))


def test_white_of_one_bit_beside_255_is_refused_where_255_is_void(root: Path) -> None:
    one_bit(root, 1, 4)
    (fault,) = refused(root)
    names = "masks/0.png, masks/2.png, masks/3.png, masks/5.png"
    assert fault.startswith(f"{names}: white is 255, which is void, but 1 in masks/")


def test_a_palette_of_black_and_white_is_one_bit_too(root: Path) -> None:
    one_bit(root)
    write(root / "masks/2.png", indexed(values(1), (0, 0, 0), (255, 255, 255)))
    assert len(refused(root)) == 1


def test_white_of_one_bit_beside_255_is_that_class(root: Path) -> None:
    one_bit(root, 1, 4)
    found = prepared(root, classes={"ground": 0, "cat": 255})
    assert found.index["cat"].tolist() == [90] * 6
    assert {int(Segmentation(found, split)[0][1].sum()) for split in ("train", "val")} == {90}


def test_1_in_some_masks_and_255_in_others_is_worth_a_look(root: Path) -> None:
    write(root / "masks/2.png", Image.fromarray(values(255)))
    prepared(root)
    assert "1 masks contain 0 and 255, which is void, such as masks/2.png, and 5 contain 1" in said("contain")
    write(root / "masks/3.png", Image.fromarray(values(1, 255)))
    prepared(root)
    assert said("255") == ""


# Depth


@pytest.mark.parametrize(
    ("highest", "bits"), [(200, 8), (255, 8), (256, 12), (4095, 12), (4096, 16), (65535, 16)]
)
def test_auto_takes_the_fewest_bits_for_all_values(root: Path, highest: int, bits: int) -> None:
    pixels = deep(root, highest)
    found = prepared(root)
    assert found.card.depth == Depth(low=0, high=2**bits - 1, clip=False)
    assert_same_everywhere(found, [grey >> (bits - 8) for grey in pixels])


def assert_same_everywhere(found: Prepared, expected: list[np.ndarray]) -> None:
    """Training, evaluation, pictures and users of a model get the same images."""
    depth = legend(found.card).depth
    for split in ("train", "val"):
        rows, images = found.split(split), Segmentation(found, split)
        for place, name in enumerate(rows["image"]):
            grey = expected[int(Path(name).stem)]
            rgb = np.repeat(grey[..., None], 3, axis=2)
            np.testing.assert_array_equal(images[place][0].permute(1, 2, 0), rgb)
            np.testing.assert_array_equal(decode_image(found.root / name, depth), rgb)
    ids = found.split("val")["id"].tolist()
    np.testing.assert_array_equal(
        examples.read(found, ids).images[..., 0], np.stack([expected[int(Path(id).name)] for id in ids])
    )


def test_integers_of_32_bits_are_scaled_likewise(root: Path) -> None:
    pixels = deep(root, 254, kind="TIFF", mode=np.int32)
    assert_same_everywhere(prepared(root), pixels)


def test_colours_of_16_bits_are_scaled_likewise(root: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 4096, (*SIZE, 3), dtype=np.uint16)
    (root / "images/0.png").write_bytes(png16(pixels))
    found = prepared(root)
    assert found.card.depth == Depth(low=0, high=4095, clip=False)
    name = next(name for name in found.index["image"] if name.endswith("0.png"))
    np.testing.assert_array_equal(decode_image(found.root / name, found.card.depth), pixels >> 4)


def test_images_of_8_bits_need_no_scale(root: Path) -> None:
    found = prepared(root)
    assert found.card.depth is None
    assert legend(found.card).depth is None


def test_one_deep_image_among_others_decides(root: Path) -> None:
    grey = np.arange(600, dtype=np.uint16).reshape(SIZE)
    write(root / "images/3.png", Image.fromarray(grey))
    assert prepared(root).card.depth == Depth(low=0, high=4095, clip=False)


def test_bits_may_be_said(root: Path) -> None:
    deep(root, 200)
    assert prepared(root, bits=8).card.depth == Depth(low=0, high=255, clip=False)
    assert said("grey levels") == ""
    prepared(root, bits=12)
    assert "6 of 6 images use fewer than 32 of the 256 grey levels" in said("grey levels")
    assert "of 0 to 4095; scale them by prepare.percentiles" in said("grey levels")


def test_values_beyond_the_bits_are_refused(root: Path) -> None:
    deep(root, 300)
    (fault,) = refused(root, bits=8)
    assert fault.startswith("images/0.png, images/1.png,")
    assert "images/5.png: has values above 255, the limit of prepare.bits" in fault


def test_percentiles_are_those_of_the_training_pixels(root: Path) -> None:
    pixels = deep(root, 5000)
    found = prepared(root, percentiles=[10, 90])
    train = [pixels[int(Path(name).stem)] for name in found.split("train")["image"]]
    low, high = np.percentile(train, [10, 90], method="inverted_cdf").tolist()
    assert found.card.depth == Depth(low=low, high=high, clip=True)
    scaled = [(grey.clip(low, high).astype(int) - low) * 256 // (high - low + 1) for grey in pixels]
    assert_same_everywhere(found, scaled)


def test_all_per_cent_are_the_whole_range(root: Path) -> None:
    deep(root, 1023)
    assert prepared(root, percentiles=[0, 100]).card.depth == Depth(low=0, high=1023, clip=True)


def test_a_scale_without_effect_is_worth_a_look(root: Path) -> None:
    prepared(root, percentiles=[1, 99])
    assert said("change nothing") == (
        "prepare.bits and prepare.percentiles change nothing: all images have 8 bits"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 10}, "bits"),
        ({"percentiles": [99, 1]}, r"percentiles: found \[99.0, 1.0\]; allowed: \[low, high\]"),
        ({"percentiles": [1, 101]}, "percentiles"),
        ({"percentiles": [1, 99], "bits": 12}, "percentiles: found beside bits: 12; allowed: one"),
    ],
)
def test_scales_that_are_none_are_named(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        params_of("folder", **options)


def test_an_image_of_one_value_is_refused(root: Path) -> None:
    for number, grey in ((1, 0), (4, 90)):
        write(root / f"images/{number}.png", Image.new("RGB", SIZE[::-1], (grey, grey, 7)))
    assert refused(root) == [
        "images/1.png, images/4.png: all pixels are equal; replace the image, or leave it out"
    ]


def test_an_image_that_the_scale_makes_one_value_is_refused(root: Path) -> None:
    deep(root, 65535)
    write(root / "images/2.png", Image.fromarray(np.arange(600, dtype=np.uint16).reshape(SIZE) % 256))
    (fault,) = refused(root)
    assert fault.startswith(
        "images/2.png: all values become one grey level; scale the images by prepare.perc"
    )


def test_an_image_of_one_pixel_has_one_value(root: Path) -> None:
    write(root / "images/9.png", Image.new("RGB", (1, 1)))
    write(root / "masks/9.png", Image.new("L", (1, 1)))
    assert len(prepared(root).index) == 7


def test_a_band_that_is_not_read_is_worth_a_look(root: Path) -> None:
    prepared(root)
    assert said("band") == ""
    pixels = np.array(noise("nir", SIZE).convert("RGBA"))
    pixels[3, :, 3] = 7
    write(root / "images/4.png", Image.fromarray(pixels))
    prepared(root)
    assert said("band").startswith(
        "1 of 6 images have a band that is not read, such as images/4.png: a fourth"
    )


def test_masks_of_16_bits_are_read_like_those_of_8(root: Path) -> None:
    before = prepared(root).index[[*CLASSES, "void"]]
    for number in range(6):
        write(root / f"masks/{number}.png", Image.fromarray(values(1).astype(np.uint16)))
    assert prepared(root).index[[*CLASSES, "void"]].equals(before)


def test_images_of_few_levels_are_worth_a_look(root: Path) -> None:
    dark = np.array(noise("dark", SIZE)) // 16
    write(root / "images/4.png", Image.fromarray(dark))
    prepared(root)
    expected = "1 of 6 images use fewer than 32 of the 256 grey levels, such as images/4.png with values 0"
    assert expected in said("grey levels")


# Orientation


def orient(
    root: Path, number: int, orientation: int, *, mask: bool = False, size: tuple[int, int] = SIZE
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    write(root / f"images/{number}.png", noise(f"turned{number}", size), exif=exif)
    upright = size if orientation < 5 else size[::-1]
    more = {"exif": exif} if mask else {}
    write(root / f"masks/{number}.png", two_classes(size if mask else upright), **more)


def test_a_mask_that_fits_before_and_after_is_worth_a_look(root: Path) -> None:
    orient(root, 0, 6)  # by its size, the mask is upright
    orient(root, 1, 1)
    orient(root, 2, 3, mask=True)
    prepared(root)
    assert said("EXIF") == ""
    orient(root, 3, 3)
    orient(root, 4, 6, size=(20, 20))
    prepared(root)
    lines = said("EXIF").splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("2 of 6 images have an EXIF orientation, such as images/")
