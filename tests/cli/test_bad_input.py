"""Bad params, bad files and a bad environment: the command that finds one refuses it.

Every case copies a small project with a trained student, does harm to it, and runs a command. The command
must fail with status 2 and name the cause and the fix in at most three lines. No file may change: no partly
written file, no changed input.

The commands run through `cli.main` in this process, because a new process takes seconds for imports. A few
run as real commands.
"""

import copy
import hashlib
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import save_file

from attnfd import paths
from attnfd.cli import main
from attnfd.config.params import Params, load_params
from attnfd.data.prepared import open_prepared
from attnfd.discovery import component
from attnfd.models import checkpoint
from attnfd.models.checkpoint import legend
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.teachers.imported import _published
from attnfd.tracking import store
from stages.freeze import freeze
from stages.prepare import prepare
from tests import miniature, tasks
from tests.data.trees import camvid_tree
from tests.readers.trees import cityscapes_tree, folder_tree, sbd_tree, voc_tree

BIG = 2**18
"""Files from this size on, which are weights, are linked and compared by size and time."""

TEACHER = Path("models/shapes/teacher")
FROZEN = Path("models/shapes/frozen")
STUDENT = Path("models/shapes/mobilenetv2/none/0")
CAMVID, MINE, VOC = Path("datasets/camvid"), Path("datasets/mine"), Path("datasets/voc")
VOC_LIST = VOC / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"
TINY, SHAPES = Path("data/camvid"), Path("data/shapes")


def small_params() -> dict[str, Any]:
    """The shipped params with the miniature's recipe, and the shortest valid recipe of each reader."""
    yaml = YAML(typ="safe", pure=True)
    raw = yaml.load((miniature.PROJECT / "params.yaml").read_text())
    lay_over(raw, {"run": miniature.RUN, "recipes": {"shapes": miniature.SHAPES}})
    raw["recipes"]["shapes"]["train_teacher"]["backbone"] = "mobilenetv2"
    raw["methods"] = {name: {**raw["methods"][name], "on": {}} for name in ("none", "attnfd")}
    raw["students"] = {"mobilenetv2": raw["students"]["mobilenetv2"]}
    raw["ablate"] = {"b": raw["ablate"]["b"]}
    shapes = raw["recipes"]["shapes"]
    raw["recipes"] = {"shapes": shapes}
    teacher = {**shapes["train_teacher"], "splits": ["train"]}
    for name, more in {
        "camvid": {}, "cityscapes": {}, "mine": {"reader": "folder"}, "voc": {"sbd": True},
    }.items():  # fmt: skip
        section = {"reader": name, "root": f"datasets/{name}", **more}
        raw["recipes"][name] = {**shapes, "prepare": section, "train_teacher": teacher}
    return raw


def lay_over(base: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Merge `changes` into `base`; `...` takes a key away."""
    for key, value in changes.items():
        if value is ...:
            del base[key]
        elif isinstance(value, dict) and isinstance(base.get(key), dict) and value:
            lay_over(base[key], value)
        else:
            base[key] = value


PARAMS = small_params()
YOURS = {**PARAMS["recipes"]["mine"], "prepare": {"reader": "folder", "root": "datasets/yours"}}


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project that every case starts from, and beside it the tracking store that all cases share."""
    home = tmp_path_factory.mktemp("bed")
    project = home / "project"
    project.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        isolate(patch, home)
        write(Path("params.yaml"), json.dumps(PARAMS).encode())
        camvid_tree(CAMVID, {"train": ((40, 40),) * 3, "val": ((40, 40),) * 2})
        folder_tree(MINE)
        cityscapes_tree(Path("datasets/cityscapes"))
        sbd_tree(voc_tree(VOC))
        params = load_params()
        for dataset in ("shapes", "camvid"):
            prepare(tasks.of(params, dataset))
        train(params)
        store.connect("shapes")
    return project


def train(params: Params) -> None:
    """A teacher, frozen, and a student, with BN statistics of noise instead of a training."""
    prepared = open_prepared(params, "shapes")
    card = {**legend(prepared.card).model_dump(mode="json"), "val_miou": 0.5}
    history = b"epoch,loss,ce,lr,miou\n1,1.0,1.0,0.1,0.5\n"
    networks = {
        TEACHER: DeepLabV3Plus("mobilenetv2", 8, attention=params.train_teacher("shapes").attention),
        STUDENT: DeepLabV3Plus("mobilenetv2", 8),
    }
    for folder, network in networks.items():
        with torch.no_grad():
            network(torch.randn(4, 3, 33, 33))
        checkpoint.save(folder, network, card)
        write(folder / paths.HISTORY, history)
    freeze(tasks.of(params, "shapes"))
    method = component("distillers", "none")(networks[STUDENT].info, checkpoint.load(FROZEN)[0].info)
    save_file(method.state_dict(), STUDENT / paths.DISTILLER)


def isolate(patch: pytest.MonkeyPatch, home: Path) -> None:
    for key in [key for key in os.environ if key.startswith(("ATTNFD_", "DVC_", "MLFLOW_"))]:
        patch.delenv(key)
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow.db")
    patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    patch.setenv("ATTNFD_DEVICE", "cpu")


@pytest.fixture
def project(bed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    def link(source: str, target: str) -> None:
        (os.link if Path(source).stat().st_size >= BIG else shutil.copy2)(source, target)

    shutil.copytree(bed, tmp_path / "project", copy_function=link)
    isolate(monkeypatch, bed.parent)
    monkeypatch.chdir(tmp_path / "project")
    yield tmp_path / "project"
    store.library().set_tracking_uri("")  # Other tests have their own stores.


def snapshot(folder: Path) -> dict[str, object]:
    """Every file below a folder, and its content."""
    return {os.fsencode(path).decode(errors="backslashreplace"): content(path) for path in walk(folder)}


def walk(folder: Path) -> list[Path]:
    return [Path(home, name) for home, _, names in os.walk(folder) for name in names]


def content(path: Path) -> object:
    if path.is_symlink():
        return os.readlink(path)
    found = path.stat()
    big = found.st_size >= BIG
    return (found.st_size, found.st_mtime_ns) if big else hashlib.sha256(path.read_bytes()).hexdigest()


# Functions that do harm. They replace a linked file and never write to it: other cases share the file.


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(data)


Harm = Callable[[], object]


def params(**changes: Any) -> Harm:
    def harm() -> None:
        raw = copy.deepcopy(PARAMS)
        lay_over(raw, changes)
        write(Path("params.yaml"), json.dumps(raw).encode())

    return harm


def text(path: Path | str, data: bytes) -> Harm:
    return lambda: write(Path(path), data)


def cut(path: Path | str, share: float = 0.5) -> Harm:
    """A file that is cut off."""

    def harm() -> None:
        data = Path(path).read_bytes()
        write(Path(path), data[: int(share * len(data))])

    return harm


def gone(path: Path | str) -> Harm:
    return lambda: Path(path).unlink()


def edit(path: Path | str, old: str, new: str) -> Harm:
    def harm() -> None:
        before = Path(path).read_text()
        assert old in before
        write(Path(path), before.replace(old, new, 1).encode())

    return harm


def card(folder: Path, **changes: Any) -> Harm:
    """Change the card of a model; `...` takes a key away."""

    def harm() -> None:
        raw = json.loads((folder / paths.CARD).read_text())
        lay_over(raw, changes)
        write(folder / paths.CARD, json.dumps(raw).encode())

    return harm


def image(path: Path, mode: str, size: tuple[int, int] = (40, 40), colour: Any = 0) -> Harm:
    def harm() -> None:
        path.unlink()
        Image.new(mode, size, colour).save(path)

    return harm


def bomb() -> bytes:
    """A PNG whose header declares 60 000 × 60 000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
        + b"\0\0\0\0IDAT"
    )


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n%%EOF\n"


def frames(path: Path, mode: str) -> Harm:
    """Two images in a file."""

    def harm() -> None:
        path.unlink(missing_ok=True)
        pages = [Image.new(mode, (40, 40), place) for place in (1, 2)]
        pages[0].save(path, save_all=True, append_images=pages[1:])

    return harm


def deep_image(path: Path, highest: int, size: tuple[int, int] = (40, 40)) -> None:
    """A PNG with 16 bits, with any file name."""
    path.unlink()
    values = np.linspace(0, highest, size[0] * size[1]).astype(np.uint16)
    Image.fromarray(values.reshape(size)).save(path, "PNG")


def grey16(name: str, highest: int) -> Harm:
    return lambda: deep_image(CAMVID / name, highest)


def indexed(number: int, colour: tuple[int, int, int]) -> Harm:
    """A mask of the folder whose index 10 has a colour."""

    def harm() -> None:
        mask = Image.new("P", (8, 6), 10)
        mask.putpalette([0] * 30 + list(colour))
        mask.save(MINE / f"masks/{number}.png")

    return harm


def white_corner(path: Path) -> Harm:
    def harm() -> None:
        mask = Image.new("L", (8, 6))
        mask.putpixel((0, 0), 255)
        mask.save(path)

    return harm


def alpha_corner(path: Path) -> Harm:
    def harm() -> None:
        mask = Image.new("RGBA", (8, 6), (255, 255, 255, 255))
        mask.putpixel((0, 0), (255, 255, 255, 0))
        mask.save(path)

    return harm


def link(path: Path | str, to: str) -> Harm:
    def harm() -> None:
        place = Path(path)
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
        place.symlink_to(to)

    return harm


def both(*harms: Harm) -> Harm:
    return lambda: [harm() for harm in harms]


def nothing() -> None: ...


class Trap:
    """Creates a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("sprung", "w")


def trap(path: Path) -> Harm:
    return lambda: write(path, pickle.dumps({"weight": Trap()}))


def zipped_trap(path: Path) -> Harm:
    """The file format of `torch.save`."""
    return lambda: torch.save({"state_dict": {"weight": Trap()}}, path)


def trap_with_its_card(folder: Path) -> Harm:
    """Weights whose card contains their correct SHA-256."""

    def harm() -> None:
        trap(folder / paths.MODEL)()
        card(folder, sha256=checkpoint.fingerprint(folder))()

    return harm


def other_classes(folder: Path) -> Harm:
    def harm() -> None:
        for name in (paths.MODEL, paths.CARD):
            (folder / name).unlink(missing_ok=True)
        checkpoint.save(folder, DeepLabV3Plus("mobilenetv2", 5), {"val_miou": 0.5})

    return harm


def published(file: Path, **beside: Any) -> Harm:
    """Weights in the layout of the AttnFD authors, and the other entries of their checkpoint."""

    def harm() -> None:
        ours = DeepLabV3Plus("mobilenetv2", 8).state_dict()
        torch.save({"state_dict": {_published(key): ours[key] for key in ours}, **beside}, file)

    return harm


def no_numbers(folder: Path) -> Harm:
    """A teacher whose training diverged."""

    def harm() -> None:
        network = DeepLabV3Plus("mobilenetv2", 8)
        torch.nn.init.constant_(network.classifier.bias, float("nan"))
        checkpoint.save(folder, network, {"val_miou": 0.5})

    return harm


def backbone_without_numbers() -> None:
    state = torchvision.models.mobilenet_v2().state_dict()
    state["features.0.0.weight"][0] = float("inf")
    torch.save(state, "w.pth")


def laughs(join: str) -> bytes:
    """A few lines of YAML that expand to 9 ** 12 values; `join` combines nine aliases."""
    lines = ["a0: &a0 {x: 1}"]
    for number in range(12):
        aliases = ",".join([f"*a{number}"] * 9)
        lines.append(f"a{number + 1}: &a{number + 1} {join.format(aliases)}")
    return "\n".join(lines).encode()


def same_size(path: Path) -> Harm:
    """One bit of a file flipped."""

    def harm() -> None:
        data = bytearray(path.read_bytes())
        data[-20] ^= 1
        write(path, bytes(data))

    return harm


def listed(split: str, line: str) -> Harm:
    def harm() -> None:
        file = CAMVID / f"{split}.txt"
        write(file, file.read_bytes() + line.encode())

    return harm


def copied(source: Path, target: Path) -> Harm:
    return lambda: write(target, source.read_bytes())


def swapped() -> None:
    for split in ("train", "val"):
        images, masks, between = CAMVID / split, CAMVID / f"{split}annot", CAMVID / "between"
        images.rename(between)
        masks.rename(images)
        between.rename(masks)


def not_utf8() -> None:
    """A file name that is not valid UTF-8."""
    for folder, suffix in (("images", ".jpg"), ("masks", ".png")):
        source = next(iter((MINE / folder).glob(f"0{suffix}")))
        shutil.copy(source, os.path.join(os.fsencode(source.parent), b"caf\xe9" + suffix.encode()))
    by_share()


def by_share() -> None:
    """A recipe that splits by share, without a list file."""
    for name in ("train.txt", "val.txt"):
        (MINE / name).unlink()
    params(recipes={"mine": {"prepare": {"val": 0.5}}})()


def masks_of(colour: Any, mode: str = "L") -> Harm:
    """All masks have one value."""

    def harm() -> None:
        for path in MINE.glob("masks/*"):
            path.unlink()
            Image.new(mode, (8, 6), colour).save(path)

    return harm


def binary(value: int) -> Harm:
    """Masks of two values, and classes for 0 and 1."""

    def harm() -> None:
        for path in MINE.glob("masks/*"):
            mask = Image.new("L", (8, 6))
            mask.paste(value, (0, 0, 3, 6))
            path.unlink()
            mask.save(path)
        write(MINE / "classes.yaml", b"classes: {ground: 0, cat: 1}")

    return harm


def renamed(folder: str, suffix: str) -> Harm:
    def harm() -> None:
        for path in (MINE / folder).iterdir():
            path.rename(path.with_suffix(suffix))

    return harm


def pretrained() -> None:
    """A folder that `save_pretrained` wrote."""
    save_file({"encoder.weight": torch.zeros(2)}, _made(Path("other")) / "model.safetensors")
    write(Path("other/config.json"), b"{}")
    teacher("other")()


def whole_model() -> None:
    torch.save(torch.nn.Linear(2, 2), "whole.pth")
    teacher("whole.pth")()


def program() -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save("program.pth")
    teacher("program.pth")()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def teacher(checkpoint: str, **changes: Any) -> Harm:
    return params(recipes={"shapes": {"train_teacher": {"checkpoint": checkpoint, **changes}}})


CHECK = "check"
DRAW = "prepare --dataset shapes"
READ = "prepare --dataset camvid"
OWN = "prepare --dataset mine"
READ_VOC = "prepare --dataset voc"
TRAIN = "train_teacher --dataset shapes"
TRAIN_CAMVID = "train_teacher --dataset camvid"
SCORE_TEACHER = "evaluate_teacher --dataset shapes"
FREEZE = "freeze --dataset shapes"
DISTILL = "distill --dataset shapes --student mobilenetv2 --method none --seed 0"
SCORE = "evaluate --dataset shapes --student mobilenetv2 --method none --seed 0"
ABLATE = "ablate --dataset shapes --student mobilenetv2 --variant b --seed 0"
REPORT = "report --dataset shapes"
PREDICT = "predict shapes/mobilenetv2/none/0 {} --out predictions"


class Case(NamedTuple):
    """A command, the harm done before it, the words that its message must contain, and its environment."""

    command: str
    harm: Harm
    words: tuple[str, ...]
    environment: Mapping[str, str] = {}


PARAM_CASES = {
    "params are missing": Case(DRAW, gone("params.yaml"), ("params.yaml", "run this from")),
    "params are a loop of links": Case(
        DRAW, link("params.yaml", "params.yaml"), ("params.yaml", "cannot be")
    ),
    "params are no YAML": Case(DRAW, text("params.yaml", b"run: [1, 2\ntraining:"), ("params.yaml, line 2",)),
    "params are no text": Case(DRAW, text("params.yaml", b"\xff\xfe\x00run"), ("params.yaml", "cannot be")),
    "params call a function": Case(
        DRAW, text("params.yaml", b"run: !!python/object/apply:os.mkdir [sprung]"), ("params.yaml, line 1",)
    ),
    "params hold themselves": Case(DRAW, text("params.yaml", b"run: &a [*a]"), ("params.yaml", "allowed")),
    "params are nested without end": Case(
        DRAW, text("params.yaml", b"run: " + b"[" * 1200), ("params.yaml", "allowed")
    ),
    "a date that is none": Case(DRAW, text("params.yaml", b"run: 2020-99-99"), ("params.yaml", "allowed")),
    "a key twice": Case(DRAW, text("params.yaml", b"run: {}\nrun: {}\n"), ("params.yaml, line 2", "run")),
    "a section too many": Case(DRAW, params(trainin={}), ("trainin", "'training'")),
    "a section too few": Case(DRAW, params(freeze=...), ("'freeze' is missing",)),
    "a section without keys": Case(DRAW, params(training=None), ("training: found None", "allowed")),
    "no axis": Case(DRAW, params(run={"students": []}), ("run.students: found []", "at least 1")),
    "no dataset": Case(DRAW, params(run={"datasets": []}), ("run.datasets: found []", "at least 1")),
    "no ablation": Case(
        DRAW, params(run={"ablate": {"variants": []}}), ("run.ablate.variants", "at least 1")
    ),
    "an axis of numbers": Case(DRAW, params(run={"methods": [1]}), ("run.methods.0: found 1", "string")),
    "a value twice": Case(DRAW, params(run={"seeds": [0, 0]}), ("run.seeds: found [0, 0]", "once")),
    "a seed too large": Case(DRAW, params(run={"seeds": [2**63]}), ("run.seeds.0", "less than")),
    "unknown dataset": Case(DRAW, params(run={"datasets": ["shape"]}), ("run.datasets", "'shapes'")),
    "unknown student": Case(
        DRAW, params(run={"students": ["vgg"]}), ("run.students", "'vgg'", "mobilenetv2")
    ),
    "unknown method in run": Case(DRAW, params(run={"methods": ["attfd"]}), ("run.methods", "'attnfd'")),
    "unknown method": Case(DRAW, params(methods={"magic": {}}), ("methods", "'magic'", "attnfd")),
    "unknown variant": Case(
        DRAW, params(run={"ablate": {"variants": ["x"]}}), ("run.ablate.variants", "'x'")
    ),
    "unknown reader": Case(
        DRAW, params(recipes={"shapes": {"prepare": {"reader": "shape"}}}), ("prepare.reader", "'shapes'")
    ),
    "unknown backbone": Case(
        DRAW,
        params(students={"mobilenetv2": {"backbone": "vgg"}}),
        ("students.mobilenetv2.backbone", "'vgg'"),
    ),
    "unknown backbone of the teacher": Case(
        DRAW, params(recipes={"shapes": {"train_teacher": {"backbone": "vgg"}}}), ("backbone", "'vgg'")
    ),
    "a name for the shell": Case(
        DRAW, params(students={"a;touch sprung": {}}), ("students", "'a;touch sprung'", "letters, digits")
    ),
    "a name with a path": Case(DRAW, params(recipes={"../up": {}}), ("recipes", "'../up'", "letters")),
    "a name that is a number": Case(
        DRAW, lambda: write(Path("params.yaml"), json.dumps(PARAMS).replace('"b"', "1").encode()), ("ablate",)
    ),
    "a name of 300 letters": Case(DRAW, params(recipes={"a" * 300: YOURS}), ("recipes", "at most 64")),
    "students that differ in capitals": Case(
        CHECK,
        params(students={"MobileNetV2": PARAMS["students"]["mobilenetv2"]}),
        ("students: found 'mobilenetv2' and 'MobileNetV2'", "more than capitals", "one folder"),
    ),
    "recipes that differ in capitals": Case(CHECK, params(recipes={"MINE": YOURS}), ("'mine' and 'MINE'",)),
    "aliases of aliases": Case(CHECK, text("params.yaml", laughs("[{}]")), ("params.yaml", "100000 keys")),
    "merged aliases": Case(
        CHECK, text("params.yaml", laughs("{{<<: [{}]}}")), ("params.yaml", "100000 keys")
    ),
    "classes of aliases": Case(
        OWN, text(MINE / "classes.yaml", laughs("[{}]")), ("classes.yaml", "100000 keys")
    ),
    "a student in the teacher's folder": Case(
        DRAW, params(students={"frozen": {}}), ("students", "'frozen'", "any name except")
    ),
    "training: wrong type": Case(
        DRAW, params(training={"lr": "fast"}), ('training.lr: found "fast"', "number")
    ),
    "training: no number": Case(DRAW, params(training={"lr": float("nan")}), ("training.lr", "number")),
    "training: without end": Case(DRAW, params(training={"weight_decay": float("inf")}), ("weight_decay",)),
    "training: unknown key": Case(DRAW, params(training={"epoch": 3}), ("training.epoch", "'epochs'")),
    "training: missing key": Case(DRAW, params(training={"momentum": ...}), ("momentum: missing", "give")),
    "training: validates on its own": Case(
        DRAW, params(training={"splits": ["val"]}), ("splits", "any except val")
    ),
    "training: an impossible crop": Case(
        DRAW, params(recipes={"shapes": {"training": {"crop": [0, 8]}}}), ("training.crop.0: found 0",)
    ),
    "training: a crop of a pixel": Case(
        CHECK, params(training={"crop": [1, 1]}), ("training.crop.0: found 1", "8 to 16384", "sixteenth")
    ),
    "training: a crop for no memory": Case(
        CHECK, params(training={"crop": [2**31, 64]}), ("crop.0: found 2147483648", "do not fit into memory")
    ),
    "training: a crop of three sides": Case(
        CHECK,
        params(training={"crop": [64, 64, 3]}),
        ("training.crop: found [64, 64, 3]", "at most 2 values"),
    ),
    "training: a batch for no memory": Case(
        CHECK,
        params(training={"batch_size": 10**9}),
        ("batch_size: found 1000000000", "1 to 4096", "at once"),
    ),
    "training: a step for no memory": Case(
        CHECK,
        params(training={"batch_size": 4096, "crop": [4096, 4096]}),
        ("batch_size: found 4096 images of 4096 × 4096 pixels", "memory"),
    ),
    "training: epochs without end": Case(
        CHECK, params(training={"epochs": 10**400}), ("epochs: found 1000", "0 to 100000", "does not end")
    ),
    "training: validations without end": Case(
        CHECK,
        params(training={"validate_every": 10**12}),
        ("validate_every: found", "1 to 1000000, as no machine"),
    ),
    "training: a scale of nothing": Case(
        CHECK, params(training={"scale": [1e-9, 1]}), ("scale.0: found 1e-09", "0.1 to 10", "dots")
    ),
    "training: a scale for no memory": Case(
        CHECK, params(training={"scale": [1, 1e9]}), ("scale.1: found", "0.1 to 10", "memory")
    ),
    "training: a rate that diverges": Case(CHECK, params(training={"lr": 1e30}), ("lr: found 1e+30", "1000")),
    "train_teacher: a kernel wider than a map": Case(
        CHECK,
        params(train_teacher={"attention": {"kernel_size": 10_001}}),
        ("kernel_size: found 10001", "1 to 63", "maps"),
    ),
    "distill: fits without end": Case(
        CHECK, params(train_teacher={"fit_epochs": 10**9}), ("fit_epochs: found 1000000000", "100000")
    ),
    "freeze: any difference": Case(
        CHECK, params(freeze={"tolerance": 1e308}), ("tolerance: found 1e+308", "0 to 1", "relative")
    ),
    "evaluate: a side for no memory": Case(
        CHECK, params(evaluate={"resize": 2**31}), ("evaluate.resize: found", "16384", "memory")
    ),
    "methods: a weight that overflows": Case(
        CHECK, params(methods={"attnfd": {"weight": 1e308}}), ("attnfd.weight: found 1e+308", "overflow")
    ),
    "methods: a temperature of nothing": Case(
        CHECK,
        params(methods={"kd": {"weight": 1, "temperature": 1e-30}}),
        ("methods.kd.temperature: found 1e-30", "0.001 to 1000", "softmax"),
    ),
    "methods: a divisor of nothing": Case(
        CHECK,
        params(methods={"overhaul": {"weight": 1, "layers": ["encoder"], "divisors": {"encoder": 1e-300}}}),
        ("divisors.encoder: found 1e-300", "overflows"),
    ),
    "shapes: clutter without end": Case(
        CHECK,
        params(recipes={"shapes": {"prepare": {"clutter": [0, 10**400]}}}),
        ("clutter.1: found", "1000"),
    ),
    "shapes: objects larger than any image": Case(
        CHECK, params(recipes={"shapes": {"prepare": {"radius": [0.1, 1e9]}}}), ("radius.1: found", "outline")
    ),
    "shapes: an image for no memory": Case(
        CHECK, params(recipes={"shapes": {"prepare": {"size": [2**31, 64]}}}), ("prepare.size.0", "16384")
    ),
    "train_teacher: an even kernel": Case(
        DRAW,
        params(train_teacher={"attention": {"kernel_size": 4}}),
        ("attention.kernel_size: found 4", "odd"),
    ),
    "train_teacher: unknown key": Case(
        DRAW, params(train_teacher={"drop": 0}), ("train_teacher.drop: unknown key", "dropout")
    ),
    "freeze": Case(DRAW, params(freeze={"tolerance": -1}), ("freeze.tolerance: found -1", "greater than 0")),
    "distill": Case(
        DRAW, params(recipes={"shapes": {"distill": {"weights": 3}}}), ("distill.weights: found 3", "string")
    ),
    "evaluate": Case(DRAW, params(evaluate={"resize": 0}), ("evaluate.resize: found 0", "greater than 0")),
    "report": Case(DRAW, params(report={"title": None}), ("report.title: found null", "string")),
    "students": Case(
        DRAW, params(students={"mobilenetv2": {"dropout": [0.5]}}), ("students.mobilenetv2.dropout",)
    ),
    "methods": Case(DRAW, params(methods={"attnfd": {"wait": 1}}), ("methods.attnfd.wait", "'weight'")),
    "methods: on is no mapping": Case(DRAW, params(methods={"attnfd": {"on": 3}}), ("attnfd.on: found 3",)),
    "methods: on another dataset": Case(
        DRAW, params(methods={"attnfd": {"on": {"moon": {}}}}), ("methods.attnfd.on", "'moon'")
    ),
    "ablate": Case(DRAW, params(ablate={"b": {"layers": ["neck"]}}), ("ablate.b.layers", "'backbone'")),
    "recipes": Case(DRAW, params(recipes={"shapes": {"evaluate": ...}}), ("recipes.shapes", "'evaluate'")),
    "prepare": Case(
        DRAW, params(recipes={"shapes": {"prepare": {"trian": 1}}}), ("prepare.trian", "'train'")
    ),
    "prepare: a range upside down": Case(
        DRAW, params(recipes={"shapes": {"prepare": {"objects": [5, 2]}}}), ("objects: found [5, 2]", "low")
    ),
    "no such split": Case(
        TRAIN, params(recipes={"shapes": {"train_teacher": {"splits": ["more"]}}}), ("'more'", "train")
    ),
    "batches of one image": Case(
        TRAIN,
        params(recipes={"shapes": {"train_teacher": {"batch_size": 1}}}),
        ("batches of 1", "at least 2"),
    ),
}

DATA_CASES = {
    "a list is missing": Case(READ, gone(CAMVID / "val.txt"), ("val.txt: not found", "download")),
    "a list is no text": Case(READ, text(CAMVID / "val.txt", b"caf\xe9.png m.png"), ("val.txt", "UTF-8")),
    "a list without masks": Case(READ, text(CAMVID / "val.txt", b"one\n"), ("val.txt, line 1", "its mask")),
    "a list of nothing": Case(READ, text(CAMVID / "val.txt", b"\n"), ("split val: found no image",)),
    "a folder of nothing": Case(
        "prepare --dataset cityscapes",
        lambda: shutil.rmtree("datasets/cityscapes/leftImg8bit/val"),
        ("leftImg8bit/val", "ATTNFD_CITYSCAPES_ROOT"),
    ),
    "an image that breaks off": Case(READ, cut(CAMVID / "train/1.png"), ("train/1.png: no readable image",)),
    "a JPEG that breaks off": Case(OWN, cut(MINE / "images/1.jpg"), ("images/1.jpg: no readable image",)),
    "a mask that breaks off": Case(
        READ, cut(CAMVID / "valannot/0.png"), ("valannot/0.png: no readable mask",)
    ),
    "an empty file": Case(READ, text(CAMVID / "train/1.png", b""), ("train/1.png: no readable image", "fix")),
    "a bomb for an image": Case(READ, text(CAMVID / "train/1.png", bomb()), ("train/1.png", "pixels", "fix")),
    "a bomb for a mask": Case(READ, text(CAMVID / "trainannot/1.png", bomb()), ("trainannot/1.png", "fix")),
    "an image is missing": Case(READ, gone(CAMVID / "train/1.png"), ("train/1.png: cannot be read", "fix")),
    "an image is a loop of links": Case(
        READ, link(CAMVID / "train/1.png", "1.png"), ("train/1.png: cannot be read", "links", "fix")
    ),
    "an image is a folder": Case(
        READ, both(gone(CAMVID / "train/1.png"), lambda: (CAMVID / "train/1.png").mkdir()), ("train/1.png",)
    ),
    "an image of floats": Case(
        READ,
        both(
            listed("train", "train/f.tiff trainannot/0.png\n"),
            lambda: Image.new("F", (40, 40), 0.5).save(CAMVID / "train/f.tiff"),
        ),
        ("train/f.tiff", "mode F", "16 bits"),
    ),
    "an EPS for an image": Case(
        READ, text(CAMVID / "train/1.png", EPS), ("train/1.png: no readable image", "allowed: BMP, GIF")
    ),
    "an EPS for a mask": Case(READ, text(CAMVID / "trainannot/1.png", EPS), ("no readable mask", "fix")),
    "an image of two frames": Case(
        READ, frames(CAMVID / "train/1.png", "RGB"), ("train/1.png", "found 2 pages or frames; allowed: one")
    ),
    "a mask of two pages": Case(
        OWN, both(gone(MINE / "masks/1.png"), frames(MINE / "masks/1.tif", "L")), ("masks/1.tif", "2 pages")
    ),
    "an image of one value": Case(
        READ, image(CAMVID / "train/1.png", "RGB", colour=(3, 4, 5)), ("train/1.png: all pixels are equal",)
    ),
    "an image of 16 bits that turns black": Case(
        READ,
        both(*(grey16(f"train/{place}.png", 200 + 60000 * place) for place in (0, 1))),
        ("train/0.png: all values become one grey level", "prepare.percentiles"),
    ),
    "an image of more bits than are said": Case(
        OWN,
        both(
            params(recipes={"mine": {"prepare": {"bits": 8}}}),
            lambda: deep_image(MINE / "images/1.jpg", 300, (6, 8)),
        ),
        ("images/1.jpg: has values above 255", "prepare.bits"),
    ),
    "bits that are none": Case(
        OWN, params(recipes={"mine": {"prepare": {"bits": 10}}}), ("prepare.bits: found 10", "8, 12 or 16")
    ),
    "percentiles upside down": Case(
        OWN,
        params(recipes={"mine": {"prepare": {"percentiles": [99, 1]}}}),
        ("prepare.percentiles: found [99.0, 1.0]", "low < high"),
    ),
    "percentiles beside bits": Case(
        OWN,
        params(recipes={"mine": {"prepare": {"percentiles": [1, 99], "bits": 12}}}),
        ("prepare.percentiles: found beside bits: 12", "one of the two"),
    ),
    "an index of two colours": Case(
        OWN,
        both(*(indexed(number, (255, 0, 0) if number else (0, 255, 0)) for number in range(6))),
        ("masks/0.png: index 10 is #00ff00, in other masks #ff0000", "one palette"),
    ),
    "one bit beside 255": Case(
        OWN,
        both(
            text(MINE / "classes.yaml", b"classes: {ground: 0, cat: 1}"),
            *(image(MINE / f"masks/{number}.png", "1", (8, 6), 1) for number in range(5)),
            white_corner(MINE / "masks/5.png"),
        ),
        ("masks/5.png: white is 255, which is void, but 1 in masks/", "give the class the value 255"),
    ),
    "labels in the alpha channel": Case(
        OWN,
        both(
            text(MINE / "classes.yaml", b"classes: {ground: [0, 0, 0], cat: [255, 255, 255]}"),
            *(image(MINE / f"masks/{number}.png", "L", (8, 6), 255) for number in range(6)),
            alpha_corner(MINE / "masks/3.png"),
        ),
        ("masks/3.png", "differ in the alpha channel", "labels as colours"),
    ),
    "a listed image is missing beside one of a shorter name": Case(
        OWN, text(MINE / "val.txt", b"4.v2\n"), ("val.txt, line 1: found '4.v2'", "images")
    ),
    "masks of another format": Case(
        OWN,
        renamed("masks", ".gif"),
        ("masks: contains 6 × .gif", "allowed: masks of .bmp, .png", "convert them to PNG"),
    ),
    "a mask in colours": Case(
        READ, image(CAMVID / "valannot/0.png", "RGB"), ("valannot/0.png", "one channel")
    ),
    "a mask of another size": Case(
        READ,
        image(CAMVID / "valannot/0.png", "L", (20, 40)),
        ("valannot/0.png: height×width is 40×20", "same"),
    ),
    "an unknown label": Case(
        READ,
        image(CAMVID / "valannot/0.png", "L", colour=77),
        ("valannot/0.png: found labels [77]", "allowed"),
    ),
    "images and masks are swapped": Case(
        READ,
        both(
            text(CAMVID / "val.txt", b"val/0.png valannot/0.png"),
            text(CAMVID / "train.txt", b"train/0.png trainannot/0.png"),
            swapped,
        ),
        ("valannot/0.png: no readable mask", "mode RGB"),
    ),
    "an image in two splits": Case(
        READ, listed("train", "val/0.png valannot/0.png\n"), ("val/0: listed 2 times (train, val)", "once")
    ),
    "a copy in two splits": Case(
        READ,
        copied(CAMVID / "train/0.png", CAMVID / "val/0.png"),
        ("val/0.png: same content as train/0.png",),
    ),
    "a name in no alphabet": Case(OWN, not_utf8, ("caf\\udce9", "UTF-8", "rename")),
    "no classes": Case(OWN, gone(MINE / "classes.yaml"), ("classes.yaml: not found", "list the classes")),
    "classes are no text": Case(OWN, text(MINE / "classes.yaml", b"\xff\xff"), ("classes.yaml", "UTF-8")),
    "classes call a function": Case(
        OWN,
        text(MINE / "classes.yaml", b"classes: !!python/object/apply:os.mkdir [sprung]"),
        ("classes.yaml",),
    ),
    "classes are a loop of links": Case(OWN, link(MINE / "classes.yaml", "classes.yaml"), ("classes.yaml",)),
    "a class out of range": Case(
        OWN, text(MINE / "classes.yaml", b"classes: {a: 0, b: 300}"), ("classes.b: found 300", "0 to 255")
    ),
    "an unlisted image": Case(OWN, text(MINE / "val.txt", b"9\n"), ("val.txt, line 1: found '9'", "images")),
    "a list of the folder is no text": Case(OWN, text(MINE / "val.txt", b"\xe9\n"), ("val.txt", "UTF-8")),
    "an image without mask": Case(OWN, gone(MINE / "masks/1.png"), ("masks: found no mask", "such as 1")),
    "objects of 255 in a dataset of 0 and 1": Case(
        OWN, binary(255), ("mine: no mask has a pixel of class cat (1)", "contain 0, 255", "`cat: 255`")
    ),
    "names shifted by one": Case(
        OWN,
        text(MINE / "classes.yaml", b"classes: {ground: 0, cat: 10, dog: 20, cow: 30}"),
        ("no mask has a pixel of class cow (30)", "contain 0, 10, 20", "shifted by one", "remove it from"),
    ),
    "masks of nothing but ground": Case(
        OWN, masks_of(0), ("no mask has a pixel of 2 classes: cat (10), dog (20)", "remove them from")
    ),
    "masks of nothing but void": Case(OWN, masks_of(255), ("3 classes: ground (0)", "masks contain 255.")),
    "a split of one class": Case(
        OWN,
        both(text(MINE / "val.txt", b"0\n"), text(MINE / "train.txt", b"1\n2\n3\n")),
        ("mine: split val: its masks contain only ground", "two classes", "other classes to it"),
    ),
    "colours for classes of numbers": Case(
        OWN,
        masks_of((9, 9, 9), "RGB"),
        ("the masks in", "colours, such as [9, 9, 9]", "numbers", "{ground: [0, 0, 0]"),
    ),
    "masks are arrays": Case(OWN, renamed("masks", ".npy"), ("contains 6 × .npy", ".png", "fromarray")),
    "masks are JPEG": Case(OWN, renamed("masks", ".jpg"), ("masks: contains 6 × .jpg", "as PNG")),
    "images of another format": Case(OWN, renamed("images", ".heic"), ("contains 6 × .heic", "convert")),
    "no such root": Case(
        OWN,
        params(recipes={"mine": {"prepare": {"root": "~/none"}}}),
        ("none: no such folder", "prepare.root", "ATTNFD_FOLDER_ROOT"),
    ),
    "a share beside lists": Case(
        OWN,
        params(recipes={"mine": {"prepare": {"val": 0.2}}}),
        ("found train.txt and val.txt", "prepare.val: 0.2", "one of the two"),
    ),
    "a list with the folder's name": Case(
        OWN, text(MINE / "val.txt", b"images/4.jpg\n"), ("line 1: found 'images/4.jpg'", "such as 4")
    ),
    "a list of images and masks": Case(
        OWN,
        text(MINE / "val.txt", b"/Set/4.jpg /Set/4.png\n"),
        ("line 1: found '/Set/4.jpg /Set/4.png'", "one image per line", "such as 4"),
    ),
    "a table for a file of classes": Case(
        OWN, text(MINE / "classes.yaml", b"Pixel Value, Class\n"), ("no `classes`", "{ground: 0, cat: 1}")
    ),
    "classes are a list": Case(
        OWN,
        params(recipes={"mine": {"prepare": {"classes": ["ground", "cat"]}}}),
        ('mine.prepare.classes: found ["ground", "cat"]; allowed: keys with values, such as {a: 0', "string"),
    ),
    "void is a number": Case(
        OWN,
        params(recipes={"mine": {"prepare": {"classes": {"a": 0, "b": 1}, "void": 255}}}),
        ("prepare.void: found 255; allowed: a list, such as [255]",),
    ),
    "images and masks of one name in one folder": Case(
        CHECK,
        params(recipes={"mine": {"prepare": {"masks": "images"}}}),
        ("prepare.masks: found images", "mask_suffix"),
    ),
    "a share of too few": Case(
        OWN,
        both(by_share, params(recipes={"mine": {"prepare": {"val": 0.01}}})),
        ("mine: split val: found no image among the 6", "change the share"),
    ),
    "a mask of SBD that breaks off": Case(
        READ_VOC,
        cut(VOC / "benchmark_RELEASE/dataset/cls/2008_000001.mat"),
        ("2008_000001.mat: no readable",),
    ),
    "a list of VOC is no text": Case(READ_VOC, text(VOC_LIST, b"\xe9\n"), ("val.txt", "UTF-8")),
    "an outside list of VOC": Case(READ_VOC, text(VOC_LIST, b"a\0b\n"), ("a", "fix")),
}

OUT_CASES = {
    "the out's folder is a file": Case(
        DRAW, both(lambda: shutil.rmtree("data"), text("data", b"")), ("data",)
    ),
    "the out's folder is a loop of links": Case(DRAW, link("data", "data"), ("data", "check that")),
    "the out of a model is a file": Case(
        FREEZE, both(lambda: shutil.rmtree(FROZEN), text(FROZEN, b"")), ("frozen", "check that")
    ),
}

PREPARED_CASES = {
    "not prepared": Case(
        FREEZE, lambda: shutil.rmtree(SHAPES), ("data/shapes/card.json", "dvc repro prepare@")
    ),
    "card of the data is damaged": Case(FREEZE, cut(SHAPES / "card.json"), ("shapes/card.json", "dvc repro")),
    "card of the data is a list": Case(FREEZE, text(SHAPES / "card.json", b"[]"), ("card.json", "dvc repro")),
    "card of the data lacks a key": Case(
        FREEZE, card(SHAPES, classes=...), ("data/shapes/card.json", "classes: missing", "dvc repro")
    ),
    "index is missing": Case(DISTILL, gone(SHAPES / "index.csv"), ("index.csv: not found", "dvc repro")),
    "index breaks off": Case(TRAIN, cut(SHAPES / "index.csv"), ("index.csv: damaged or edited", "dvc repro")),
    "index is edited": Case(
        TRAIN_CAMVID,
        edit(TINY / "index.csv", "trainannot/0.png", "trainannot/1.png"),
        ("index.csv", "edited"),
    ),
    "index lost an image": Case(
        TRAIN, edit(SHAPES / "index.csv", "\ntrain,", "\nextra,"), ("index.csv: damaged or edited",)
    ),
    "an image has changed": Case(TRAIN_CAMVID, cut(CAMVID / "train/1.png"), ("train/1.png", "changed since")),
    "a bit of a mask has changed": Case(
        TRAIN_CAMVID,
        same_size(CAMVID / "trainannot/1.png"),
        ("trainannot/1.png", "changed since", "dvc repro"),
    ),
    "a prepared image is gone": Case(
        TRAIN_CAMVID, gone(CAMVID / "val/1.png"), ("val/1.png: not found", "ATTNFD_ROOT_CAMVID")
    ),
}

MODEL_CASES = {
    "no teacher": Case(FREEZE, lambda: shutil.rmtree(TEACHER), ("teacher/card.json", "dvc repro")),
    "teacher breaks off": Case(FREEZE, cut(TEACHER / "model.safetensors"), ("model.safetensors: damaged",)),
    "teacher is of another size": Case(
        FREEZE, card(TEACHER, architecture={"classes": 9}), ("model.safetensors", "shape")
    ),
    "teacher has other classes": Case(FREEZE, other_classes(TEACHER), ("teacher: has 5 classes", "train it")),
    "teacher without card": Case(
        SCORE_TEACHER, gone(TEACHER / "card.json"), ("teacher/card.json", "dvc repro")
    ),
    "card of the teacher is damaged": Case(
        FREEZE, cut(TEACHER / "card.json"), ("card.json: not a JSON file",)
    ),
    "card of the teacher is a number": Case(FREEZE, text(TEACHER / "card.json", b"3"), ("card.json",)),
    "card of the teacher lacks its score": Case(
        FREEZE, card(TEACHER, val_miou=...), ("card.json", "val_miou")
    ),
    "card of the teacher lies": Case(FREEZE, card(TEACHER, sha256="0"), ("damaged, or not the file", "dvc")),
    "card with an unknown backbone": Case(
        FREEZE, card(TEACHER, architecture={"backbone": "vgg"}), ("card.json", "'vgg'")
    ),
    "teacher is a pickle": Case(FREEZE, trap(TEACHER / "model.safetensors"), ("model.safetensors", "dvc")),
    "teacher is a pickle with a card": Case(
        FREEZE, trap_with_its_card(TEACHER), ("model.safetensors", "replace")
    ),
    "frozen teacher is missing": Case(DISTILL, lambda: shutil.rmtree(FROZEN), ("frozen", "dvc repro")),
    "frozen teacher breaks off": Case(DISTILL, cut(FROZEN / "model.safetensors"), ("frozen", "damaged")),
    "frozen teacher is a pickle": Case(ABLATE, trap_with_its_card(FROZEN), ("frozen", "replace")),
    "frozen teacher has other classes": Case(DISTILL, other_classes(FROZEN), ("frozen: has 5 classes",)),
    "frozen teacher is missing in evaluate": Case(
        SCORE, lambda: shutil.rmtree(FROZEN), ("frozen/card.json", "dvc repro")
    ),
    "student is missing": Case(SCORE, lambda: shutil.rmtree(STUDENT), ("model.safetensors", "dvc repro")),
    "student has other classes": Case(SCORE, other_classes(STUDENT), ("none/0: has 5 classes", "train it")),
    "student is a pickle": Case(SCORE, trap_with_its_card(STUDENT), ("model.safetensors", "replace")),
    "distiller is missing": Case(SCORE, gone(STUDENT / paths.DISTILLER), ("distiller.safetensors",)),
    "distiller breaks off": Case(SCORE, cut(STUDENT / paths.DISTILLER), ("distiller.safetensors", "replace")),
    "distiller is a pickle": Case(
        SCORE, trap(STUDENT / paths.DISTILLER), ("distiller.safetensors", "replace")
    ),
    "distiller is another's": Case(
        SCORE,
        lambda: save_file({"weight": torch.zeros(2)}, STUDENT / paths.DISTILLER),
        ("distiller.safetensors", "unknown: weight"),
    ),
    "checkpoint is missing": Case(CHECK, teacher("none.pth"), ("train_teacher.checkpoint", "no such file")),
    "checkpoint is a pickle": Case(CHECK, both(teacher("t.pth"), trap(Path("t.pth"))), ("t.pth", "replace")),
    "checkpoint is a packed pickle": Case(
        CHECK, both(teacher("t.pth"), zipped_trap(Path("t.pth"))), ("t.pth", "replace")
    ),
    "checkpoint is a whole model": Case(CHECK, whole_model, ("whole.pth", "a whole model", "state_dict()")),
    "checkpoint is a program": Case(CHECK, program, ("program.pth", "TorchScript", "state_dict()")),
    "checkpoint is of another library": Case(
        CHECK, pretrained, ("other/model.safetensors", "no card.json beside it", "docs/bring-your-teacher.md")
    ),
    "checkpoint is frozen": Case(CHECK, teacher(str(FROZEN)), ("is frozen", "give the folder")),
    "checkpoint has another backbone": Case(
        CHECK, teacher(str(TEACHER), backbone="resnet18"), ("teacher", "has the backbone mobilenetv2", "set")
    ),
    "checkpoint has other classes": Case(
        TRAIN,
        both(teacher("other"), other_classes(Path("other"))),
        ("other", "has 5 classes", "give"),
    ),
    "checkpoint was trained at another output stride": Case(
        CHECK,
        both(teacher("t.pth"), published(Path("t.pth"), args={"out_stride": 8})),
        ("t.pth: out_stride is 8", "allowed: 16", "give"),
    ),
    "checkpoint has other classes, checked": Case(
        CHECK,
        both(teacher("other"), other_classes(Path("other"))),
        ("other", "has 5 classes", "the dataset has 8", "give"),
    ),
    "checkpoint has no numbers": Case(
        CHECK,
        both(teacher("nan"), no_numbers(Path("nan"))),
        ("nan/model.safetensors: classifier.bias has values that are not finite", "diverge"),
    ),
    "weights have no numbers": Case(
        CHECK,
        both(params(recipes={"shapes": {"training": {"weights": "w.pth"}}}), backbone_without_numbers),
        ("w.pth: features.0.0.weight has values that are not finite",),
    ),
    "weights are missing": Case(
        CHECK, params(recipes={"shapes": {"training": {"weights": "w.pth"}}}), ("w.pth: no such file", "none")
    ),
    "weights are a pickle": Case(
        CHECK,
        both(params(recipes={"shapes": {"training": {"weights": "w.pth"}}}), trap(Path("w.pth"))),
        ("w.pth", "replace"),
    ),
    "weights break off": Case(
        CHECK,
        both(
            params(recipes={"shapes": {"training": {"weights": "w.safetensors"}}}),
            text("w.safetensors", b"\x08\0\0\0\0\0\0\0{"),
        ),
        ("w.safetensors", "replace"),
    ),
    "no results": Case(REPORT, nothing, ("results/shapes/teacher", "run dvc repro")),
}

MACHINE_CASES = {
    "unknown device": Case(DRAW, nothing, ("ATTNFD_DEVICE: found 'tpu'", "'cuda'"), {"ATTNFD_DEVICE": "tpu"}),
    "fewer workers than none": Case(
        DRAW, nothing, ("ATTNFD_WORKERS: found '-1'", "greater"), {"ATTNFD_WORKERS": "-1"}
    ),
    "workers in words": Case(DRAW, nothing, ("ATTNFD_WORKERS: found 'two'",), {"ATTNFD_WORKERS": "two"}),
    "a dataset's folder that is not there": Case(
        READ, nothing, ("nowhere/train.txt", "ATTNFD_CAMVID_ROOT"), {"ATTNFD_CAMVID_ROOT": "nowhere"}
    ),
    "a reader's folder for two": Case(
        OWN,
        params(recipes={"yours": YOURS}),
        ("ATTNFD_FOLDER_ROOT: found 'datasets/mine'", "mine, yours", "set ATTNFD_ROOT_MINE for mine"),
        {"ATTNFD_FOLDER_ROOT": "datasets/mine"},
    ),
    "a reader's folder for two, checked": Case(
        CHECK,
        params(run={"datasets": ["shapes", "mine"]}, recipes={"yours": YOURS}),
        ("ATTNFD_FOLDER_ROOT: found 'datasets/mine'", "mine, yours", "set ATTNFD_ROOT_MINE for mine"),
        {"ATTNFD_FOLDER_ROOT": "datasets/mine"},
    ),
    ".env is wrong": Case(DRAW, both(text(".env", b"ATTNFD_WORKERS=x\n")), ("ATTNFD_WORKERS: found 'x'",)),
    ".env is no text": Case(DRAW, text(".env", b"ATTNFD_WORKERS=\xff\n"), (".env", "UTF-8")),
    "the store is out of reach": Case(
        DRAW,
        nothing,
        ("MLflow store http://127.0.0.1:1", "MLFLOW_TRACKING_URI"),
        {"MLFLOW_TRACKING_URI": "http://me:secret@127.0.0.1:1"},
    ),
    "the store is of no kind": Case(
        TRAIN,
        nothing,
        ("MLflow store bogus://host", "MLFLOW_TRACKING_URI"),
        {"MLFLOW_TRACKING_URI": "bogus://me:secret@host/db"},
    ),
    "the store is in no folder": Case(
        DRAW,
        nothing,
        ("none/mlflow.db", "MLFLOW_TRACKING_URI"),
        {"MLFLOW_TRACKING_URI": "sqlite:///none/mlflow.db"},
    ),
    "the store is no database": Case(
        DRAW,
        text("other.db", b"no database" * 100),
        ("other.db", "not a database"),
        {"MLFLOW_TRACKING_URI": "sqlite:///other.db"},
    ),
}

PRODUCT_CASES = {
    "nothing to predict": Case(PREDICT.format("none"), nothing, ("none",)),
    "an image to predict breaks off": Case(
        PREDICT.format("broken.png"), text("broken.png", b"\x89PNG\r\n\x1a\n"), ("broken.png", "fix")
    ),
    "an EPS to predict": Case(PREDICT.format("eps.png"), text("eps.png", EPS), ("eps.png", "fix")),
    "two frames to predict": Case(
        PREDICT.format("two.png"), frames(Path("two.png"), "L"), ("two.png", "fix")
    ),
    "a bomb to predict": Case(PREDICT.format("bomb.png"), text("bomb.png", bomb()), ("bomb.png", "fix")),
    "a model to predict is a pickle": Case(
        PREDICT.format("datasets/camvid/val"), trap_with_its_card(STUDENT), ("model.safetensors", "replace")
    ),
    "no model to predict": Case(
        "predict shapes/none x.png --out p", nothing, ("shapes/none: found no model",)
    ),
    "nothing to compare": Case("compare shapes/a shapes/b", nothing, ("results", "dvc repro")),
}

CASES = {
    **PARAM_CASES,
    **DATA_CASES,
    **OUT_CASES,
    **PREPARED_CASES,
    **MODEL_CASES,
    **MACHINE_CASES,
    **PRODUCT_CASES,
}


def test_a_name_is_of_one_case() -> None:
    tables = (PARAM_CASES, DATA_CASES, OUT_CASES, PREPARED_CASES, MODEL_CASES, MACHINE_CASES, PRODUCT_CASES)
    assert sum(map(len, tables)) == len(CASES)


def judge(status: object, message: str, words: tuple[str, ...]) -> None:
    assert status == 2, message
    assert len(message.strip().splitlines()) <= 3, message
    assert message.startswith("error: "), message
    assert "Traceback" not in message, message
    assert "secret" not in message, message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_is_refused_in_three_lines_and_leaves_everything_as_it_was(
    case: Case, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case.harm()
    for key, value in case.environment.items():
        monkeypatch.setenv(key, value)
    before = snapshot(project)
    monkeypatch.setattr(sys, "argv", ["attnfd", *case.command.split()])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    judge(stopped.value.code, capsys.readouterr().err, case.words)
    assert snapshot(project) == before


@pytest.mark.parametrize(
    "name", ["a name for the shell", "unknown device", "params call a function", "an image that breaks off"]
)
def test_is_refused_by_a_process_of_its_own(name: str, project: Path) -> None:
    case = CASES[name]
    case.harm()
    before = snapshot(project)
    done = subprocess.run(
        [sys.executable, "-m", "attnfd", *case.command.split()],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(miniature.PROJECT), **case.environment},
    )
    judge(done.returncode, done.stderr, case.words)
    assert snapshot(project) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("data").chmod(0o555)
    before = snapshot(project)
    monkeypatch.setattr(sys, "argv", ["attnfd", *DRAW.split()])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    judge(stopped.value.code, capsys.readouterr().err, ("data", "Permission denied", "check that"))
    assert snapshot(project) == before


def test_the_cases_start_from_a_valid_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the harm causes each refusal above: without it the commands succeed."""
    for command in (CHECK, FREEZE, OWN, READ_VOC):
        monkeypatch.setattr(sys, "argv", ["attnfd", *command.split()])
        with pytest.raises(SystemExit) as stopped:
            main.main()
        assert stopped.value.code == 0, command
