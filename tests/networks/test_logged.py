"""A logged model of any kind contains the code of its network and names the packages that it needs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from attnfd import paths
from attnfd.config.network import Attention
from attnfd.config.schema import Student
from attnfd.config.section import validate
from attnfd.errors import UserError
from attnfd.models import checkpoint
from attnfd.models.frozen import freeze
from attnfd.networks.base import make_network
from attnfd.tracking import exported, inputs

RESTORE = """
import json, sys, torch
from pathlib import Path
from {package}.models.restore import restore
net = restore(json.loads(Path("card.json").read_text()), Path("model.safetensors"), "card.json")
with torch.no_grad():
    torch.testing.assert_close(net(torch.load("images.pt")).logits, torch.load("logits.pt"))
assert not [name for name in sys.modules if name.partition(".")[0] in ("attnfd", "networks", "tests")]
"""
MINE = """
import segmentation_models_pytorch as smp
import networks.parts.head as head
from torch import nn

from .body import body


def build(classes: int) -> nn.Module:
    return nn.Sequential(body(), head.head(classes))
"""
BODY = """
from torch import nn

from attnfd.models.cbam import CBAM


def body() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), CBAM(8, reduction=2))
"""
HEAD = """
from torch import nn

from networks.parts import width


def head(classes: int) -> nn.Module:
    return nn.Conv2d(width, classes, 1)
"""


def logged(settings: dict[str, Any], folder: Path, attention: Attention | None) -> tuple[dict[str, Any], str]:
    """Log a frozen network as the store does; return its card and the name of the copied package."""
    torch.manual_seed(0)
    made = make_network(validate(Student, settings, "s"), 3, attention=attention).eval()
    network = freeze(made).to(memory_format=torch.channels_last)
    checkpoint.save(folder, network, {})
    card = json.loads((folder / paths.CARD).read_text())
    images = torch.randn(1, 3, 64, 96)
    torch.save(images, folder / "images.pt")
    with torch.no_grad():
        torch.save(network(images).logits, folder / "logits.pt")
    package = exported.copy_code(folder, card).name
    own = card | {"architecture": exported.architecture(card, package)}
    (folder / paths.CARD).write_text(json.dumps(own))
    return card, package


def check_alone(folder: Path, package: str) -> None:
    """Restore the network in a process that has only the copied files."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONPATH": "."}
    command = [sys.executable, "-c", RESTORE.format(package=package)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("settings", "packages"),
    [
        ({"backbone": "mobilenetv2"}, []),
        ({"backbone": "timm:mobilenetv4_conv_small"}, ["timm"]),
        (
            {"network": "smp", "architecture": "Segformer", "encoder": "mit_b0"},
            ["segmentation_models_pytorch", "timm"],
        ),
    ],
)
def test_a_logged_network_needs_no_project(
    settings: dict[str, Any], packages: list[str], tmp_path: Path
) -> None:
    for package in packages:
        pytest.importorskip(package)
    card, package = logged(settings, tmp_path, Attention())
    check_alone(tmp_path, package)
    assert exported.needed(card) == [*exported.REQUIREMENTS, *packages]


def test_a_logged_network_of_your_own_has_your_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that import each other by full names, relatively, from a package, and from this library."""
    pytest.importorskip("segmentation_models_pytorch")
    project = tmp_path / "project"
    (project / "networks/parts").mkdir(parents=True)
    for name, text in {
        "mine.py": MINE, "body.py": BODY, "parts/head.py": HEAD, "parts/__init__.py": "width = 8\n",
        "unused.py": "raise RuntimeError\n", "__init__.py": "",
    }.items():  # fmt: skip
        (project / "networks" / name).write_text(text)
    (project / "attnfd").symlink_to(inputs.CODE / "attnfd")
    monkeypatch.setattr(inputs, "CODE", project)
    monkeypatch.setattr(exported, "CODE", project)
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project))
    for name in [name for name in sys.modules if name.partition(".")[0] == "networks"]:
        monkeypatch.delitem(sys.modules, name)
    folder = tmp_path / "logged"
    folder.mkdir()
    settings = {"network": "module", "build": "networks.mine:build", "taps": {"backbone": "0.0"}}
    card, package = logged(settings, folder, None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "networks"]:
        del sys.modules[name]
    own = folder / package / exported.OWN / "networks"
    assert {str(file.relative_to(own)) for file in own.rglob("*.py")} == {
        "mine.py", "body.py", "parts/head.py", "parts/__init__.py",
    }  # fmt: skip
    check_alone(folder, package)
    assert exported.needed(card) == [*exported.REQUIREMENTS, "segmentation_models_pytorch"]


def test_a_card_of_no_kind_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, make_network(validate(Student, {"backbone": "mobilenetv2"}, "s"), 3), {})
    file = tmp_path / paths.CARD
    card = json.loads(file.read_text())
    for network, message in (
        ("spm", r"card\.json: architecture\.network: unknown name 'spm'; did you mean 'smp'"),
        ("module", r"card\.json: architecture\.taps: missing"),
    ):
        file.write_text(json.dumps(card | {"architecture": card["architecture"] | {"network": network}}))
        with pytest.raises(UserError, match=message):
            checkpoint.load(tmp_path)


def test_a_card_calls_no_function_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "abort", lambda classes: pytest.fail("it was called"))
    checkpoint.save(tmp_path, make_network(validate(Student, {"backbone": "mobilenetv2"}, "s"), 3), {})
    file = tmp_path / paths.CARD
    card = json.loads(file.read_text())
    named = {"network": "module", "classes": 3, "attention": None, "taps": {}, "build": "os:abort"}
    file.write_text(json.dumps(card | {"architecture": named}))
    with pytest.raises(
        UserError, match=r"build: found 'os:abort'; allowed: a function in a file of networks/"
    ):
        checkpoint.load(tmp_path)


def test_only_networks_of_this_library_are_frozen() -> None:
    with pytest.raises(TypeError, match="found Linear; pass a DeepLabV3Plus or a network of attnfd"):
        freeze(nn.Linear(2, 2))  # type: ignore[type-var]
