"""The how-to pages for new parts, followed literally in a copy of the project."""

import json
import re
from pathlib import Path
from textwrap import dedent, indent
from typing import NamedTuple

import pytest
from ruamel.yaml import YAML

from tests import miniature

pytestmark = pytest.mark.slow

PAGES = {page.stem: page.read_text(encoding="utf-8") for page in miniature.PROJECT.glob("docs/add-a-*.md")}

BACKBONES = "BACKBONES: Mapping[str, Backbone] = {\n"

# A common check of each kind of part, by the new part's name.
CHECKS = {
    "add-a-backbone": "test_strides_and_channels[64-resnext50]",
    "add-a-dataset": "test_pairs_are_there_and_always_the_same[garden]",
    "add-a-distiller": "test_loss_falls_on_one_batch[mse]",
}


OFFLINE = {"weights": "none"}


class Block(NamedTuple):
    """A block of a page for a file: the last file that the text before it names."""

    file: str
    text: str


def blocks(page: str) -> list[Block]:
    found = []
    for block in re.finditer(r"^ *```(?:python|yaml)\n(.*?)^ *```", page, re.DOTALL | re.MULTILINE):
        named = re.findall(r"`([\w/]+\.(?:py|yaml))`", page[: block.start()])
        found.append(Block(named[-1], dedent(block[1])))
    return found


def place(copy: Path, block: Block) -> None:
    """Put a block where its page says: a new file, params, an entry of a mapping, or the end of a file."""
    file = copy / block.file
    if file.suffix == ".yaml":
        miniature.change(copy, YAML(typ="safe").load(block.text))
    elif not file.exists():
        file.write_text(block.text)
    elif BACKBONES in (text := file.read_text()):
        file.write_text(text.replace(BACKBONES, BACKBONES + indent(block.text, "    ")))
    else:
        file.write_text(f"{text}\n\n{block.text}")


def follow(folder: Path) -> Path:
    """A copy of the project with all blocks of the pages."""
    copy = miniature.clone(folder)
    for page in PAGES.values():
        for block in blocks(page):
            place(copy, block)
    return copy


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return follow(tmp_path_factory.mktemp("copy"))


def succeed(copy: Path, *command: str) -> str:
    done = miniature.run(copy, *command, PYTHONPATH=str(copy), PYTEST_ADDOPTS="-n0 -rA")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_the_pages_show_passes_lint_and_types(copy: Path) -> None:
    files = sorted({block.file for page in PAGES.values() for block in blocks(page)} - {"params.yaml"})
    assert len(files) == 5
    for command in ("ruff check", "ruff format --check", "mypy"):
        succeed(copy, *command.split(), *files)


@pytest.mark.parametrize("page", PAGES)
def test_the_common_checks_find_the_new_part(copy: Path, page: str) -> None:
    (command,) = re.findall(r"`(pytest [^`]+)`", PAGES[page])
    assert f"::{CHECKS[page]}\n" in succeed(copy, *command.split())


def test_nothing_else_has_to_be_touched(copy: Path) -> None:
    succeed(copy, "pytest", "tests/test_house.py", "tests/distillers/test_methods_doc.py")


def garden(folder: Path) -> Path:
    """A copy with the photos of the dataset's page; only this page's pipeline runs."""
    copy = follow(folder)
    draw = "from pathlib import Path; from tests.readers.trees import TREES as trees; "
    succeed(copy, "python", "-c", f"{draw}trees['garden'](Path('datasets/garden'))")
    miniature.change(copy, {"run": {"datasets": ["garden"]}, "recipes": {"garden": {"training": OFFLINE}}})
    return copy


def test_masks_in_colours_are_prepared_and_faulty_ones_are_named(tmp_path: Path) -> None:
    copy = garden(tmp_path)
    succeed(copy, "dvc", "repro", "prepare@garden")
    card = json.loads((copy / "data/garden/card.json").read_text())
    assert card["classes"] == ["grass", "path", "flower"]
    val = card["splits"]["val"]
    assert (val["pixels"], val["void"]) == ({"grass": 12, "path": 12, "flower": 12}, 12)
    (copy / "datasets/garden/photos/c.jpg").replace(copy / "datasets/garden/colours/a.png")
    done = miniature.run(copy, "dvc", "repro", "--force", "prepare@garden")
    assert done.returncode != 0
    assert "colours/a.png" in done.stderr
    assert "photos/c.jpg" in done.stderr


def test_all_new_parts_run_together(tmp_path: Path) -> None:
    copy = garden(tmp_path)
    small = {"epochs": 2, "batch_size": 2, "crop": [32, 32]}
    miniature.change(copy, {"recipes": {"garden": {"training": small}}})
    miniature.change(copy, {"train_teacher": {"backbone": "resnext50"}, "run": {"students": ["resnext50"]}})
    miniature.change(copy, {"run": {"methods": ["none", "mse"], "ablate": {"students": ["resnext50"]}}})
    succeed(copy, "dvc", "repro")
    for method in ("none", "mse"):
        metrics = json.loads((copy / f"results/garden/resnext50/{method}/0/metrics.json").read_text())
        assert 0 <= metrics["miou"] <= 1
    assert "mse" in (copy / "reports/garden/report.md").read_text()


def test_the_tests_of_the_copy_pass(copy: Path) -> None:
    folders = ("config", "distillers", "models", "readers", "runtime", "scan", "training")
    succeed(copy, "pytest", *(f"tests/{folder}" for folder in folders), "tests/test_site.py")
