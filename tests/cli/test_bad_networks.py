"""`attnfd check` refuses a network that cannot be built, in one line, before anything is trained."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from attnfd.cli import main
from attnfd.models import checkpoint
from attnfd.models.deeplab import DeepLabV3Plus
from tests.cli.test_bad_input import bed, params, project, snapshot

__all__ = ["bed", "project"]

FILE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()
        self.head = nn.Conv2d(4, classes, 1)

    def forward(self, images):
        feature = self.body(images)
        return self.head(feature) + self.flat(self.pool(feature)).mean()


def build(classes):
    return Net(classes)


def one_more(classes):
    return Net(classes + 1)


def raises(classes):
    raise OSError("no such\\nfolder")


def ends(classes):
    raise SystemExit(3)


def a_list(classes):
    return [Net(classes)]


def images_only(classes):
    return nn.Flatten()
"""
MINE = {"network": "module", "build": "networks.mine:build", "taps": {"backbone": "body"}}
SMP = {"network": "smp", "architecture": "Segformer", "encoder": "mit_b0"}


@pytest.fixture
def own(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a file of networks; modules of another project's networks are not loaded."""
    monkeypatch.syspath_prepend(str(project))
    for name in [name for name in sys.modules if name.partition(".")[0] == "networks"]:
        monkeypatch.delitem(sys.modules, name)
    Path("networks").mkdir()
    Path("networks/__init__.py").touch()
    Path("networks/mine.py").write_text(FILE)
    return project


def refused(
    command: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command writes only one line, which contains these words."""
    before = snapshot(Path.cwd())
    monkeypatch.setattr(sys, "argv", ["attnfd", *command.split()])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with pytest.raises(SystemExit) as stopped:
        main.main()
    message = capsys.readouterr().err
    assert stopped.value.code == 2, message
    (line,) = message.strip().splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert snapshot(Path.cwd()) == before


def student(network: dict[str, Any], *methods: str, **more: Any) -> None:
    axis = {"students": ["other"]}
    run = {**axis, "methods": ["none", *methods], "ablate": axis, "tune": axis}
    params(students={"other": network}, run=run, **more)()


def starting_from(weights: str) -> dict[str, Any]:
    return {"shapes": {"distill": {"weights": weights}}}


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (
            MINE | {"build": "networks.mien:build"},
            ("students.other: build: networks.mien: cannot be imported",),
        ),
        (MINE | {"build": "networks.mine:bild"}, ("build: networks.mine: has no function 'bild'",)),
        (
            MINE | {"build": "os:system"},
            ("build: found 'os:system'; allowed: a function in a file of networks",),
        ),
        (
            MINE | {"build": "networks.mine"},
            ("build: found 'networks.mine'; allowed: package.module:function",),
        ),
        (
            MINE | {"build": "networks.mine:raises"},
            ("raises(8) raises OSError: no such folder; fix the fun",),
        ),
        (MINE | {"build": "networks.mine:ends"}, ("ends(8) raises SystemExit: 3; fix the function",)),
        (MINE | {"build": "networks.mine:a_list"}, ("returns list; allowed: an nn.Module",)),
        (MINE | {"build": "networks.mine:one_more"}, ("logits of 9 classes; allowed: 8, the number",)),
        (
            MINE | {"build": "networks.mine:images_only", "taps": {}},
            ("network: returns Tensor; allowed: logits",),
        ),
        (
            MINE | {"taps": {"backbone": "flat"}},
            ("taps.backbone: flat returns [1, 4]; allowed: a module that returns a map",),
        ),
        (MINE | {"taps": {"backbone": "bdy"}}, ("taps.backbone: found no module 'bdy'; allowed: names bel",)),
        (SMP | {"architecture": "Segfomer"}, ("architecture: unknown name 'Segfomer'; did you mean 'Segf",)),
        (SMP | {"encoder": "mit_b7"}, ("encoder: unknown name 'mit_b7'; did you mean 'mit_b",)),
        ({"network": "modul", "build": "a:b"}, ("students.other.network: unknown name 'modul'; did you",)),
        ({"backbone": "timm:resnet19"}, ("students.other.backbone", "unknown name 'resnet19'; did you mean")),
    ],
)
def test_a_student_that_cannot_be_made(
    network: dict[str, Any], words: tuple[str, ...], own: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    if network.get("network") == "smp":
        pytest.importorskip("segmentation_models_pytorch")
    if str(network.get("backbone")).startswith("timm:"):
        pytest.importorskip("timm")
    student(network)
    refused("check", words, monkeypatch, capsys)


def test_a_method_whose_layers_a_student_lacks(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    student(MINE, "attnfd")
    words = ("methods.attnfd.layers: found 'encoder', which the student does not have; allowed: backbone",)
    refused("check", words, monkeypatch, capsys)
    # A variant of the ablation, too.
    without = {key: value for key, value in MINE.items() if key != "taps"}
    student(without)
    words = (
        "methods.attnfd.layers: found 'backbone', which the student does not have; allowed: a method on",
    )
    refused("check", words, monkeypatch, capsys)


def test_a_file_of_networks_that_cannot_be_read(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("networks/mine.py").write_text("def build(classes)\n")
    student(MINE)
    refused(
        "check", ("networks.mine: cannot be imported (SyntaxError: ", "fix the file"), monkeypatch, capsys
    )


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (SMP, ("w.safetensors: these are not the weights of the encoder mit_b0 (missing: patch_embed1",)),
        (
            {"backbone": "timm:mobilenetv4_conv_small"},
            ("w.safetensors: these are not the weights of timm's",),
        ),
        ({"backbone": "resnet18"}, ("w.safetensors: these are not the weights of",)),
    ],
)
def test_weights_of_another_network(
    network: dict[str, Any], words: tuple[str, ...], own: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    pytest.importorskip("segmentation_models_pytorch" if network is SMP else "timm")
    save_file({"conv.weight": torch.zeros(2)}, "w.safetensors")
    student(network, recipes=starting_from("w.safetensors"))
    refused("check", words, monkeypatch, capsys)


@pytest.mark.parametrize("network", [SMP, {"backbone": "timm:mobilenetv4_conv_small"}])
def test_no_hub_is_reachable(
    network: dict[str, Any], own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error comes before the teacher is trained, not when the student is built."""
    pytest.importorskip("segmentation_models_pytorch")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(own.parent / "hub"))
    student(network, recipes=starting_from("imagenet"))
    refused("train_teacher --dataset shapes", ("imagenet weights of", "cannot be "), monkeypatch, capsys)


def teacher(**changes: Any) -> dict[str, Any]:
    return {"recipes": {"shapes": {"train_teacher": changes}}}


def test_a_teacher_with_weights_of_another_network(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"conv.weight": torch.zeros(2)}, "w.safetensors")
    params(run={"methods": ["none"]}, **teacher(**MINE, checkpoint="w.safetensors"))()
    words = ("w.safetensors: these are not the weights of the network that train_teacher describes (missing",)
    refused("check", words, monkeypatch, capsys)


def names() -> list[str]:
    classes: list[str] = json.loads(Path("data/shapes/card.json").read_text())["classes"]
    return classes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda map: map | {"lorry": map["one"]}, ("class_map: unknown name 'lorry'; ", "allowed: one, two")),
        (lambda map: map | {"one": "nothing"}, ("class_map.one: unknown name 'nothing'; ", "allowed: ")),
        (
            lambda map: {key: value for key, value in map.items() if key != "two"},
            ("class_map: found no class of the teacher for ", "map one or several to it"),
        ),
    ],
)
def test_a_class_map_that_does_not_fit(
    change: Any, words: tuple[str, ...], own: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    theirs = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    checkpoint.save("elsewhere", DeepLabV3Plus("mobilenetv2", 9), {"classes": theirs})
    mapped = dict(zip(theirs, names(), strict=False))
    params(**teacher(checkpoint="elsewhere", classes=theirs, class_map=change(mapped)))()
    refused("check", words, monkeypatch, capsys)


def test_networks_that_fit_are_accepted(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the changes cause each refusal above."""
    monkeypatch.setenv("COLUMNS", "300")
    theirs = [*map(str, range(9))]
    checkpoint.save("elsewhere", DeepLabV3Plus("mobilenetv2", 9), {"classes": theirs})
    mapped = dict(zip(theirs, names(), strict=False))
    student(MINE, **teacher(checkpoint="elsewhere", classes=theirs, class_map=mapped))
    monkeypatch.setattr(sys, "argv", ["attnfd", "check"])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    printed = " ".join(capsys.readouterr().out.split())
    assert stopped.value.code == 0, printed
    assert "imported from elsewhere, 9 classes to 8" in printed
    assert "network students.other on shapes networks.mine:build" in printed
