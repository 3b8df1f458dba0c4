"""What the documents show: code that runs, commands and files that exist."""

import json
import re
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from typer.main import get_command

from attnfd import cli
from attnfd.cli import app
from attnfd.models.taps import NetInfo, Output
from tests import miniature

PROJECT = Path(__file__).parents[1]
DOCUMENTS = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(
        rf"^ *```{language}\n(.*?)^ *```", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def test_the_readme_trains_a_student_in_a_loop_of_its_own() -> None:
    library = blocks(PROJECT / "README.md", "python")[0]
    torch.manual_seed(0)
    scope: dict[str, object] = {}
    exec(compile(library, "README.md", "exec"), scope)
    loss = scope["loss"]
    assert isinstance(loss, torch.Tensor)
    assert loss.isfinite()
    student = scope["student"]
    assert isinstance(student, torch.nn.Module)
    assert all(parameter.grad is not None for parameter in student.parameters())
    teacher = scope["teacher"]
    assert isinstance(teacher, torch.nn.Module)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_your_data_in_20_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = PROJECT / "docs/your-data.md"
    monkeypatch.chdir(tmp_path)
    for key in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "ATTNFD_DEVICE", "ATTNFD_FOLDER_ROOT"):
        monkeypatch.delenv(key, raising=False)
    exec(compile(blocks(document, "python")[0], "your-data.md", "exec"), {})
    (tmp_path / "params.yaml").write_bytes((PROJECT / "params.yaml").read_bytes())
    miniature.change(tmp_path, YAML(typ="safe").load(blocks(document, "yaml")[0]))
    miniature.change(tmp_path, {"run": miniature.RUN})
    for command in blocks(document, "sh")[0].splitlines():
        monkeypatch.setattr(sys, "argv", command.split())
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 0, command
    card = json.loads((tmp_path / "data/mine/card.json").read_text())
    assert card["classes"] == ["ground", "disc"]
    assert {name: split["images"] for name, split in card["splits"].items()} == {"train": 16, "val": 4}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist(document: Path) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    targets = set(re.findall(r"^([a-z]+):.*##", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    for block in [*blocks(document, "sh"), *re.findall(r"`([^`\n]+)`", document.read_text())]:
        for line in block.splitlines():
            if match := re.match(r"attnfd ([a-z_]+)", line.strip()):
                assert match[1] in commands, line
            if match := re.match(r"make ([a-z]+)", line.strip()):
                assert match[1] in targets, line


def test_no_place_holder_is_left() -> None:
    for document in DOCUMENTS:
        assert not re.search(r"@[A-Z]+@|TODO|COST TABLE", document.read_text(encoding="utf-8")), document


def test_the_distiller_of_the_how_to_works() -> None:
    page = PROJECT / "docs" / "add-a-distiller.md"
    scope: dict[str, Any] = {"__name__": "attnfd.distillers.mse"}
    exec(compile(dedent(blocks(page, "python")[0]), page.name, "exec"), scope)
    assert scope["mse_loss"](torch.zeros(1, 2, 1, 1), torch.full((1, 2, 1, 1), 6.0), scale=2) == 9
    info = NetInfo(channels={}, classes=2)
    mse = scope["MSE"](scope["MSE"].Config(weight=3.0, scale=1.0), student=info, teacher=info)
    zeros, ones = (Output(torch.full((1, 2, 1, 1), value), {}) for value in (0.0, 1.0))
    assert mse(zeros, ones, torch.zeros(1, 1, 1), 0) == {"mse": 3}
