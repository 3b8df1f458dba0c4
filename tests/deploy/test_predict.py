import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from attnfd.cli import main
from attnfd.data.depth import Depth
from attnfd.deploy.predict import Decoded, batches, find, predict
from attnfd.deploy.source import Model
from attnfd.errors import UserError
from attnfd.evaluation.tiles import Tiles
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.readers.cityscapes import Cityscapes
from tests.data.deep import png16
from tests.deploy.conftest import LEGEND, network, save

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
PIXELS = np.array([[RED, GREEN, GREEN], [BLUE, BLUE, GREEN]], dtype=np.uint8)
MAP = np.array([[0, 1, 1], [2, 2, 1]])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, pixels: np.ndarray = PIXELS, **options: object) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(name, **options)
    return name


def run(model: Model, *sources: str, **changes: object) -> int:
    options: dict = {"batch_size": 2, "overlays": True, "overwrite": False}
    return predict(model, sources, Path("out"), **(options | changes))


def written() -> set[str]:
    return {file.relative_to("out").as_posix() for file in Path("out").rglob("*") if file.is_file()}


def test_class_map_overlay_and_areas(colours: Model) -> None:
    assert run(colours, write("a.png")) == 1
    assert written() == {"classes/a.png", "overlays/a.png", "contact_sheet.png", "areas.csv"}
    with Image.open("out/classes/a.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.array(image), MAP)
        np.testing.assert_array_equal(np.array(image.convert("RGB")), np.array(LEGEND.palette)[MAP])
    with Image.open("out/overlays/a.png") as overlay:
        half = (PIXELS.astype(float) + np.array(LEGEND.palette)[MAP]) / 2
        np.testing.assert_allclose(np.array(overlay)[:2, :3], half, atol=1)
    assert Path("out/areas.csv").read_text().splitlines() == [
        "image,class,pixels,share",
        f"a.png,red,1,{1 / 6}",
        "a.png,green,3,0.5",
        f"a.png,blue,2,{2 / 6}",
    ]


def test_images_of_any_size_and_mode_keep_their_size(colours: Model) -> None:
    sizes = {"a": (4, 5), "b": (1, 1), "c": (4, 5), "d": (7, 2)}
    rng = np.random.default_rng(0)
    for name, size in sizes.items():
        write(f"in/{name}.png", rng.integers(0, 256, (*size, 4), dtype=np.uint8))
    assert run(colours, "in") == 4
    for name, (height, width) in sizes.items():
        with Image.open(f"out/classes/{name}.png") as image:
            assert image.size == (width, height)
    assert list(pd.read_csv("out/areas.csv")["image"].unique()) == ["a.png", "b.png", "c.png", "d.png"]


def test_exif_orientation_is_followed(colours: Model) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned; show it rotated by 90° clockwise
    run(colours, write("a.png", exif=exif))
    with Image.open("out/classes/a.png") as image:
        np.testing.assert_array_equal(np.array(image), np.rot90(MAP, -1))


def test_batches_are_of_one_size_and_full(colours: Model) -> None:
    for number in range(5):
        write(f"in/{number}.png", np.zeros((4, 6, 3), dtype=np.uint8))
    write("in/2b.png", np.zeros((6, 4, 3), dtype=np.uint8))
    run(colours, "in")
    assert sorted(colours.network.batches) == [  # type: ignore[operator]
        (1, 3, 4, 6), (1, 3, 6, 4), (2, 3, 4, 6), (2, 3, 4, 6),
    ]  # fmt: skip


def test_images_that_wait_are_bounded() -> None:
    alive = 0

    def images() -> object:
        nonlocal alive
        for side in range(1, 101):
            alive += 1
            yield Decoded(Path(str(side)), np.zeros((side, 1, 3), dtype=np.uint8))

    seen, most = 0, 0
    for batch in batches(images(), 2):  # type: ignore[arg-type]
        most = max(most, alive - seen)
        seen += len(batch)
    assert (seen, most) == (100, 8)


def test_folders_keep_their_structure(colours: Model) -> None:
    write("in/x/a.png")
    write("in/y/A.JPG")
    write("in/y/z/a.png")
    for other in ("in/notes.txt", "in/.DS_Store", "in/._a.png"):
        Path(other).write_text("no image")
    assert run(colours, "in", overlays=False) == 3
    assert written() == {"classes/x/a.png", "classes/y/A.png", "classes/y/z/a.png", "areas.csv"}


@pytest.mark.parametrize(
    ("sources", "paths"),
    [
        (("in/x/a.png", "in/y/a.png"), {"x/a.png", "y/a.png"}),
        (("in/x/a.png", "in/x/a.png", "in/x"), {"a.png"}),
        (("in/*/a.png",), {"x/a.png", "y/a.png"}),
        (("in/**/*.png",), {"x/a.png", "y/a.png", "y/z/a.png"}),
        (("in/x", "./in/../in/y/z"), {"x/a.png", "y/z/a.png"}),
    ],
)
def test_paths_start_below_the_folder_that_all_share(sources: tuple[str, ...], paths: set[str]) -> None:
    for name in ("in/x/a.png", "in/y/a.png", "in/y/z/a.png"):
        write(name)
    assert {path.as_posix() for path in find(sources, without=Path("out"))} == paths


def test_own_outputs_are_no_input(colours: Model) -> None:
    write("a.png")
    assert run(colours, ".") == run(colours, ".", overwrite=True) == 1


def test_an_existing_file_is_kept_without_overwrite(colours: Model) -> None:
    run(colours, write("a.png"))
    before = Path("out/classes/a.png").read_bytes()
    write("a.png", PIXELS[::-1].copy())
    with pytest.raises(UserError, match=r"out: already exists; .*--overwrite"):
        run(colours, "a.png")
    assert Path("out/classes/a.png").read_bytes() == before
    run(colours, "a.png", overwrite=True)
    assert Path("out/classes/a.png").read_bytes() != before


def test_a_file_is_no_folder_to_write_to(colours: Model) -> None:
    Path("out").write_text("mine")
    with pytest.raises(UserError, match="out: already exists"):
        run(colours, write("a.png"), overwrite=True)
    assert Path("out").read_text() == "mine"


def test_unreadable_images_are_named_and_the_others_predicted(
    colours: Model, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "ad":
        write(f"in/{name}.png")
    Path("in/b.png").write_bytes(b"no image")
    noise = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    whole = Path(write("in/c.png", noise)).read_bytes()
    Path("in/c.png").write_bytes(whole[: len(whole) // 2])
    with caplog.at_level(logging.WARNING), pytest.raises(UserError, match=r"2 of 4 .*in/b\.png") as stopped:
        run(colours, "in")
    assert "\n" not in str(stopped.value)
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(":")[0] for line in lines] == ["in/b.png", "in/c.png"]
    assert not any("\n" in line for line in lines)
    assert written() >= {"classes/a.png", "classes/d.png", "areas.csv"}
    assert set(pd.read_csv("out/areas.csv")["image"]) == {"a.png", "d.png"}


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (("nowhere",), "nowhere: not found"),
        (("*.tif",), r"\*\.tif: found no images"),
        (("empty",), "empty: found no images"),
        (("in/a.png", "in/a.jpg"), r"in/a\.png, in/a\.jpg: their outputs would have one name"),
    ],
)
def test_bad_sources_are_refused_before_anything_is_written(
    colours: Model, sources: tuple[str, ...], message: str
) -> None:
    Path("empty").mkdir()
    write("in/a.png")
    write("in/a.jpg")
    with pytest.raises(UserError, match=message):
        run(colours, *sources)
    assert not Path("out").exists()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("source", ["in", "in/**/*.png"])
def test_linked_folders_are_followed_but_not_round_and_round(
    colours: Model, folder: Path, source: str
) -> None:
    write("in/a.png")
    write("disk/b.png")
    (folder / "in/more").symlink_to(folder / "disk")
    for loop in ("in/back", "disk/back"):
        (folder / loop).symlink_to(folder / "in")
    assert run(colours, source, overlays=False) == 2
    assert written() == {"classes/a.png", "classes/more/b.png", "areas.csv"}


def test_files_that_are_not_read_are_counted_and_named(
    colours: Model, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write("in/a.png")
    for name in ("b.heic", "c.HEIC", "d.mp4", ".e.heic"):
        (folder / "in" / name).write_bytes(b"")
    (folder / "in/loop").symlink_to(folder / "in")
    assert run(colours, "in") == 1
    assert warnings(caplog) == [
        "files that are not read: 2 .heic, 1 .mp4, 1 broken or endless link, such as in/b.heic"
    ]


def test_own_outputs_are_no_files_that_are_not_read(colours: Model, caplog: pytest.LogCaptureFixture) -> None:
    write("a.png")
    run(colours, ".")
    run(colours, ".", overwrite=True)
    assert warnings(caplog) == []


def test_what_is_there_is_named_where_nothing_can_be_read(colours: Model, folder: Path) -> None:
    (folder / "in").mkdir()
    (folder / "in/a.heic").write_bytes(b"")
    with pytest.raises(UserError, match=r"in: found no images \(1 \.heic, such as in/a\.heic\); allowed"):
        run(colours, "in")


def test_several_frames_are_named_and_left_out(colours: Model, caplog: pytest.LogCaptureFixture) -> None:
    write("in/a.png")
    frame = Image.fromarray(PIXELS)
    frame.save("in/b.gif", save_all=True, append_images=[frame.rotate(180)])
    with pytest.raises(UserError, match=r"1 of 2 images cannot be read, such as in/b\.gif"):
        run(colours, "in")
    assert warnings(caplog) == [
        "in/b.gif: cannot be read (found 2 pages or frames; allowed: one; save the one that you want as "
        "its own file); left out"
    ]


def deep(colours: Model, depth: Depth | None) -> Model:
    return replace(colours, legend=LEGEND.model_copy(update={"depth": depth}))


TWELVE = Depth(low=0, high=4095, clip=False)


def test_deep_images_are_scaled_as_in_the_training(colours: Model, caplog: pytest.LogCaptureFixture) -> None:
    pixels = 16 * PIXELS.astype(np.uint16) + 15 * (PIXELS > 0)
    Path("a.png").write_bytes(png16(pixels))
    run(deep(colours, TWELVE), "a.png")
    with Image.open("out/overlays/a.png") as overlay:
        half = (PIXELS.astype(float) + np.array(LEGEND.palette)[MAP]) / 2
        np.testing.assert_allclose(np.array(overlay)[:2, :3], half, atol=1)
    assert warnings(caplog) == []


@pytest.mark.parametrize(("depth", "why"), [(None, "since it was trained"), (TWELVE, "as in its training")])
def test_deep_images_that_come_out_dark_are_named(
    colours: Model, caplog: pytest.LogCaptureFixture, depth: Depth | None, why: str
) -> None:
    write(
        "in/a.png", (np.arange(30 * 40) % (4096 if depth is None else 256)).astype(np.uint16).reshape(30, 40)
    )
    run(deep(colours, depth), "in")
    (line,) = warnings(caplog)
    high = 65535 if depth is None else 4095
    assert f"such as a.png: the model reads values 0 to {high}, {why}" in line


def test_a_deep_image_beyond_the_training_is_refused(
    colours: Model, caplog: pytest.LogCaptureFixture
) -> None:
    write("a.png", np.array([[0, 5000]], dtype=np.uint16))
    with pytest.raises(UserError, match="nothing was written"):
        run(deep(colours, TWELVE), "a.png")
    assert "values up to 5000; allowed: 0 to 4095, the range of its dataset" in warnings(caplog)[0]


def test_a_deep_image_that_would_turn_black_is_refused(
    colours: Model, caplog: pytest.LogCaptureFixture
) -> None:
    write("a.tif", np.arange(256, dtype=np.int32).reshape(16, 16))
    write("b.png", np.zeros((4, 4, 3), dtype=np.uint8))  # a valid image that is all black
    with pytest.raises(UserError, match=r"1 of 2 images cannot be read, such as a\.tif"):
        run(colours, "a.tif", "b.png")
    assert "a.tif: cannot be read (values 0 to 255 become one grey level); left out" in warnings(caplog)


def test_a_band_that_is_not_read_is_warned_of(colours: Model, caplog: pytest.LogCaptureFixture) -> None:
    alpha = np.dstack([PIXELS, np.array([[9, 255, 255]] * 2, np.uint8)])
    run(colours, write("in/a.png"), write("in/b.png", alpha))
    assert "1 images have a band that is not read, such as b.png" in warnings(caplog)
    with Image.open("out/classes/b.png") as image:
        np.testing.assert_array_equal(np.array(image), MAP)


def test_names_that_differ_only_in_capitals_are_warned_of(
    colours: Model, caplog: pytest.LogCaptureFixture
) -> None:
    assert run(colours, write("in/Yard.png"), write("in/yard.png"), write("in/b.png")) == 3
    (line,) = warnings(caplog)
    assert line.startswith("names that differ only in capitals: 2 images, such as Yard.png and yard.png; on")


def test_large_images_are_segmented_in_tiles(colours: Model, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.tile(PIXELS, (40, 30, 1))
    assert run(colours, write("in/a.png", pixels), write("in/b.png"), tiles=Tiles(size=32, overlap=8)) == 2
    with Image.open("out/classes/a.png") as image:
        np.testing.assert_array_equal(np.array(image), np.tile(MAP, (40, 30)))
    assert "The largest image, 80 × 90 pixels, becomes 12 tiles of 32 × 32" in capsys.readouterr().out


CITYSCAPES = LEGEND.model_copy(
    update={
        "dataset": "cityscapes",
        "classes": Cityscapes.classes[::-1],  # another order than the reader's
        "palette": Cityscapes.palette[::-1],
    }
)


def test_label_ids_of_cityscapes_are_those_of_the_classes_names(colours: Model) -> None:
    model = replace(colours, legend=CITYSCAPES)
    run(model, write("a.png"), cityscapes_ids=True)
    with Image.open("out/classes/a.png") as image:
        assert image.mode == "L"
        # The first three classes are bicycle, motorcycle and train.
        np.testing.assert_array_equal(np.array(image), np.array([33, 32, 31])[MAP])
    table = pd.read_csv("out/areas.csv").set_index("class")["pixels"]
    assert table[table > 0].to_dict() == {"bicycle": 1, "motorcycle": 3, "train": 2}


@pytest.mark.parametrize(
    "classes", [LEGEND.classes, Cityscapes.classes[:-1], (*Cityscapes.classes, "caravan")]
)
def test_label_ids_are_refused_for_other_classes(colours: Model, classes: tuple[str, ...]) -> None:
    model = replace(colours, legend=LEGEND.model_copy(update={"classes": classes}))
    with pytest.raises(UserError, match=r"--cityscapes-ids: found colours, .* allowed: .* 19") as refused:
        run(model, write("a.png"), cityscapes_ids=True)
    assert f"which has the {len(classes)} classes of tiny" in str(refused.value)
    assert not Path("out").exists()


def test_probabilities_are_written_of_every_image(colours: Model) -> None:
    write("in/x/a.png")
    write("in/b.png", np.full((4, 5, 3), 99, np.uint8))
    assert run(colours, "in", probabilities=True, overlays=False) == 2
    assert written() == {
        "classes/x/a.png", "classes/b.png", "areas.csv", "probabilities/x/a.npz", "probabilities/b.npz",
    }  # fmt: skip
    with np.load("out/probabilities/x/a.npz") as found:
        assert found["classes"].tolist() == ["red", "green", "blue"]
        given = found["probabilities"]
    assert given.dtype == np.float16
    # The logits are the channels, 0 or 255, as the network receives them.
    logits = (PIXELS / 255 - LEGEND.mean) / LEGEND.std
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(given, expected.transpose(2, 0, 1), atol=1e-3)


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setenv("ATTNFD_DEVICE", "cpu")
    monkeypatch.setattr(sys, "argv", ["attnfd", "predict", *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


OPTIONS = {
    "flip": ["--flip"],
    "scales": ["--scales", "0.75", "1", "1.25"],
    "all": ["--flip", "--scales=0.5", "1", "--scales", "1.5"],
    "tiles": ["--flip", "--scales", "0.75", "1", "--tile", "48", "--overlap", "16"],
}


@pytest.mark.parametrize("options", OPTIONS)
def test_the_command_averages_views(options: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(folder / "model")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    write("in/a.png", pixels)
    write("in/b.png", pixels[:40, :44])
    # Options can be before, after and between the arguments.
    words = ["model", *OPTIONS[options], "--probabilities", "in"]
    assert command(monkeypatch, *words, "--out", "out") == 0
    flip, scales = options != "scales", {"flip": (1,), "all": (0.5, 1, 1.5), "tiles": (0.75, 1)}
    for name, image in {"a": pixels, "b": pixels[:40, :44]}.items():
        if options == "tiles" and name == "a":
            continue  # tests/deploy/test_views.py has tiles
        expected = views_by_hand(network(), image, flip, scales.get(options, (0.75, 1, 1.25)))
        with np.load(f"out/probabilities/{name}.npz") as found:
            np.testing.assert_allclose(found["probabilities"], expected, atol=2e-3)
    for name in "ab":
        with np.load(f"out/probabilities/{name}.npz") as found:
            given = found["probabilities"].astype(float)
        top = np.sort(given, 0)
        clear = top[-1] - top[-2] > 2e-3
        assert clear.mean() > 0.9
        with Image.open(f"out/classes/{name}.png") as classes:
            assert (given.argmax(0) == np.array(classes))[clear].all()


def views_by_hand(net: DeepLabV3Plus, image: np.ndarray, flip: bool, scales: Sequence[float]) -> np.ndarray:
    """Mean probabilities of resized and mirrored images, in float64, one view after another."""
    whole = torch.from_numpy(image).permute(2, 0, 1)[None].double().div(255)
    whole = (whole - torch.tensor(LEGEND.mean)[:, None, None]) / torch.tensor(LEGEND.std)[:, None, None]
    size, found = whole.shape[-2:], []
    for scale in scales:
        sides = [round(side * scale) for side in size]
        resized = F.interpolate(whole, sides, mode="bilinear", antialias=True)
        for seen in (resized, resized.flip(3)) if flip else (resized,):
            with torch.no_grad():
                logits = net(seen.float()).logits.double()
            logits = F.interpolate(logits, size, mode="bilinear")
            found.append((logits.flip(3) if len(found) % 2 and flip else logits).softmax(1)[0])
    return torch.stack(found).mean(0).numpy()


def test_the_command_writes_label_ids(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(folder / "model", CITYSCAPES)
    name = "berlin/berlin_000000_000019_leftImg8bit"
    write(f"in/{name}.png", np.tile(PIXELS, (20, 20, 1)))
    write("in/bonn/bonn_000000_000019_leftImg8bit.png")
    options = ["--cityscapes-ids", "--flip", "--tile", "32", "--overlap", "8", "--probabilities"]
    assert command(monkeypatch, "model", "in", *options) == 0
    with Image.open(f"predictions/classes/{name}.png") as image:
        given = np.array(image)
    with np.load(f"predictions/probabilities/{name}.npz") as found:
        names = found["classes"][found["probabilities"].argmax(0)]
    ids = dict(zip(Cityscapes.classes, Cityscapes.ids, strict=True))
    assert set(np.unique(given)) <= set(Cityscapes.ids)
    assert (
        np.vectorize(ids.get)(names) == given
    ).mean() > 0.95  # At the other pixels two classes are equal in float16.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scales", "9"], "error: --scales: found 9; allowed: 0.25 to 4, such as 0.75 1 1.25"),
        (["--scales", "1", "0.2"], "error: --scales: found 0.2; allowed"),
        (["--scales", "nan"], "error: --scales: found nan; allowed"),
        (
            ["--cityscapes-ids"],
            "error: --cityscapes-ids: found model, which has the 3 classes of tiny;",
        ),
    ],
)
def test_the_command_refuses_in_a_line_before_anything_is_written(
    options: list[str],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save(folder / "model")
    write("in/a.png")
    assert command(monkeypatch, "model", "in", *options, "--out", "out") == 2
    printed = capsys.readouterr()
    (line,) = (printed.out + printed.err).splitlines()
    assert line.startswith(message)
    assert not Path("out").exists()


def test_the_command_has_a_folder_to_write_to_and_names_the_device(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(folder / "model")
    write("in/a.png")
    assert command(monkeypatch, "model", "in") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 image segmented into predictions on the CPU"
    assert (folder / "predictions/contact_sheet.png").exists()
