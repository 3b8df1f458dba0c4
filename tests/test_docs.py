"""The documents show code that runs, and commands and files that exist."""

import configparser
import json
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import Any

import click
import pytest
import torch
import typer
from dvc import cli as dvc
from dvc_render import render_html
from dvc_render.vega import VegaRenderer
from mlflow.cli import cli as mlflow
from ruamel.yaml import YAML
from typer.main import get_command

from attnfd.cli import main
from attnfd.cli.main import app
from attnfd.models.taps import NetInfo, Output
from tests import miniature

PROJECT = Path(__file__).parents[1]
ROOT = ("README.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md")
DOCUMENTS = [*(PROJECT / name for name in ROOT), *sorted((PROJECT / "docs").glob("*.md"))]


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


def test_any_network_is_distilled() -> None:
    example = blocks(PROJECT / "docs/python.md", "python")[-1]
    torch.manual_seed(0)
    scope: dict[str, Any] = {"__name__": "example"}
    exec(compile(example, "python.md", "exec"), scope)
    assert scope["loss"].isfinite()
    assert scope["terms"]["attnfd"] > 0
    for name, parameter in scope["student"].named_parameters():
        assert parameter.grad is not None or name.startswith("body.fc"), name
    assert all(parameter.grad is None for parameter in scope["teacher"].parameters())


def test_without_a_network_every_chart_of_dvc_says_so(tmp_path: Path) -> None:
    config = configparser.ConfigParser()
    config.read(PROJECT / ".dvc/config")
    template = PROJECT / ".dvc" / config["plots"]["html_template"]
    chart = VegaRenderer([{"a": 1, "b": 2, "rev": "now"}], "chart", x="a", y="b", template="linear")
    page = Path(render_html([chart], tmp_path / "index.html", template)).read_text()
    stand_in = page.index("if (!window.vegaEmbed)")
    assert page.rindex("<script src=") < stand_in < page.index("vegaEmbed('#chart'")
    assert "no network, so Vega cannot draw this chart" in page
    assert not re.search(r"\{(scripts|plot_divs|refresh_tag)\}", page)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a reader who follows a page, which is the current one; it has the project's params."""
    monkeypatch.chdir(tmp_path)
    for key in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "ATTNFD_DEVICE", "ATTNFD_FOLDER_ROOT"):
        monkeypatch.delenv(key, raising=False)
    (tmp_path / "params.yaml").write_bytes((PROJECT / "params.yaml").read_bytes())
    return tmp_path


def type_in(lines: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run `attnfd` commands of a page in this process; each must succeed."""
    for command in lines.splitlines():
        monkeypatch.setattr(sys, "argv", command.split())
        with pytest.raises(SystemExit) as stopped:
            main.main()
        assert stopped.value.code == 0, command


def test_your_data_in_20_minutes(reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = PROJECT / "docs/your-data.md"
    exec(compile(blocks(document, "python")[0], "your-data.md", "exec"), {})
    miniature.change(reader, YAML(typ="safe").load(blocks(document, "yaml")[0]))
    miniature.change(reader, {"run": miniature.RUN})
    type_in(blocks(document, "sh")[0], monkeypatch)
    card = json.loads((reader / "data/mine/card.json").read_text())
    assert card["classes"] == ["ground", "disc"]
    assert {name: split["images"] for name, split in card["splits"].items()} == {"train": 16, "val": 4}


def test_the_tutorial_until_its_training(
    reader: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = PROJECT / "docs/tutorial.md"
    page = document.read_text(encoding="utf-8")
    _, example, check, *_ = blocks(document, "sh")
    draw, imported = example.splitlines()
    _, script, folder, *_ = draw.split()
    monkeypatch.setattr(sys, "argv", [script, folder])
    runpy.run_path(str(PROJECT / script), run_name="__main__")
    type_in(imported, monkeypatch)
    assert (reader / folder / "099.json").is_file()
    miniature.change(reader, YAML(typ="safe").load(blocks(document, "yaml")[0]))
    capsys.readouterr()
    type_in(check, monkeypatch)
    printed = {line.rstrip() for line in capsys.readouterr().out.splitlines()}
    fences = re.findall(r"^```(\w*)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    counts, shares = (text for language, text in fences if not language)
    assert set(counts.splitlines()) <= set((reader / "datasets/desk/import.txt").read_text().splitlines())
    assert set(shares.splitlines()) <= printed


def test_start_up_on_the_page_is_the_last_record() -> None:
    page = (PROJECT / "docs/performance.md").read_text(encoding="utf-8")
    start = page.split("## A step of training")[0]
    rows = re.findall(r"^\| (.+?) \| ([\d.]+) \|$", start.replace("`", ""), re.MULTILINE)
    record = json.loads((PROJECT / "docs/startup.json").read_text())["seconds"]
    assert {name: float(seconds) for name, seconds in rows} == record


def test_every_measurement_is_on_a_page() -> None:
    pages = "".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    files = [file.name for file in (PROJECT / "docs/measurements").iterdir() if file.is_file()]
    assert files
    for name in files:
        assert f"measurements/{name}" in pages, name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


def commands(document: Path) -> Iterator[tuple[list[str], bool]]:
    """The commands in a document, as words, and whether each is a call or only a mention."""
    lines = [line for block in blocks(document, "sh") for line in block.splitlines()]
    mentions = re.findall(r"`([^`\n]+)`", document.read_text(encoding="utf-8"))
    for call, line in [*((True, line) for line in lines), *((False, text) for text in mentions)]:
        for part in line.split("&&"):
            command = re.sub(r"^\s*(\w+=\S+ )*", "", part)
            if re.match(r"(attnfd|dvc|mlflow|make|pytest|python) [^'-]", command):
                words = shlex.split(command, comments=True)
                yield words, call or any(re.search(r"[^a-z_-]|^-", word) for word in words)


def parse(command: Any, words: list[str]) -> None:
    """Let Click parse a command line without running it; it raises the error that a user would see."""
    words = list(words)
    while words and hasattr(command, "list_commands"):
        word = words.pop(0)
        command = command.get_command(None, word)
        assert command is not None, f"there is no command {word}"
    command.make_context(command.name, words)


PARSERS: dict[str, Callable[[list[str]], object]] = {
    "attnfd": partial(parse, get_command(app)),
    "mlflow": partial(parse, mlflow),
    "dvc": dvc.parse_args,
}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_are_understood(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):.*##", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    for (program, *words), call in commands(document):
        if program == "make":
            assert set(words) <= targets, words
        elif program not in PARSERS:
            named = words[:1] if program == "python" else words  # A script may write what its arguments name.
            assert all((PROJECT / word).exists() for word in named if re.match(r"\w+/", word)), words
        elif call:
            PARSERS[program](words)
        else:
            with pytest.raises((SystemExit, typer.Exit, click.exceptions.Exit)):  # after the help text
                PARSERS[program]([*words, "--help"])


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("attnfd benchmarks shapes/teacher", "there is no command benchmarks"),
        ("attnfd data get voc", "there is no command get"),
        ("attnfd prepare --data shapes", "--data"),
        ("attnfd compare shapes/teacher", "Missing"),
        ("mlflow models served", "there is no command served"),
        ("dvc exp run --set-params a=1", "parser error"),
    ],
)
def test_a_command_that_does_not_exist_is_seen(line: str, complaint: str) -> None:
    program, *words = line.split()
    with pytest.raises(Exception, match=complaint):
        PARSERS[program](words)


def run(folder: Path, words: list[str]) -> None:
    """Run a shown command in a clone, with the clone's code; it must succeed."""
    program = [sys.executable, "-m", "attnfd"] if words[0] == "attnfd" else words[:1]
    done = miniature.run(folder, *program, *words[1:])
    assert done.returncode == 0, (words, done.stdout + done.stderr)


def test_commands_that_only_look_work(tmp_path: Path) -> None:
    looks = ("attnfd check", "dvc status", "dvc exp show")
    found = {" ".join(words) for document in DOCUMENTS for words, _ in commands(document)}
    shown = {command for command in found if command.startswith(looks)}
    assert len(shown) >= len(looks)
    clone = miniature.clone(tmp_path)
    for command in sorted(shown):
        run(clone, command.split())


def test_no_place_holder_is_left() -> None:
    for document in DOCUMENTS:
        assert not re.search(r"@@|@[A-Z]+@|TODO|COST TABLE", document.read_text(encoding="utf-8")), document


def test_the_distiller_of_the_how_to_works() -> None:
    page = PROJECT / "docs" / "add-a-distiller.md"
    scope: dict[str, Any] = {"__name__": "attnfd.distillers.mse"}
    exec(compile(dedent(blocks(page, "python")[0]), page.name, "exec"), scope)
    assert scope["mse_loss"](torch.zeros(1, 2, 1, 1), torch.full((1, 2, 1, 1), 6.0), scale=2) == 9
    info = NetInfo(channels={}, classes=2)
    mse = scope["MSE"](info, info, scope["MSE"].Config(weight=3.0, scale=1.0))
    zeros, ones = (Output(torch.full((1, 2, 1, 1), value), {}) for value in (0.0, 1.0))
    assert mse(zeros, ones, torch.zeros(1, 1, 1), 0) == {"mse": 3}
