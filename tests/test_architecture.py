"""docs/architecture.md agrees with the code."""

import ast
import re
from graphlib import TopologicalSorter
from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs import walks
from tests.test_house import MODULES, PROJECT, STAGES, folder, imports

PAGE = (PROJECT / "docs/architecture.md").read_text(encoding="utf-8")
FOLDERS = sorted({path.parent.name for path in (PROJECT / "attnfd").glob("*/__init__.py")})
ROOT = sorted(path.name for path in (PROJECT / "attnfd").glob("[!_]*.py"))
BOXES = [box for walk in walks.WALKS.values() for box in walk.boxes]


def section(title: str) -> str:
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def block(title: str) -> list[str]:
    found = re.search(r"```text\n(.*?)```", section(title), re.DOTALL)
    assert found
    return found[1].splitlines()


def test_the_tree_has_every_folder_once() -> None:
    named = [line.split()[0] for line in block("The tree")]
    inner = [line.split()[0] for line in block("The tree") if line.startswith("  ")]
    assert sorted(inner) == sorted([*(f"{name}/" for name in FOLDERS), *ROOT])
    assert all(len(line) <= 80 for line in block("The tree")), "the site has no room for more"
    for name in set(named) - set(inner):
        assert (PROJECT / name).exists(), name


def stale_by(place: Path) -> tuple[set[str], set[str]]:
    """The stages that depend on all modules of a folder, and those that depend on some of them."""
    modules = {file for file in [place, *place.rglob("*.py")] if file in MODULES.values()}
    modules = {file for file in modules if file.name != "__init__.py"}
    whole, part = set(), set()
    for name, stage in STAGES.items():
        deps = [PROJECT / dep for dep in stage["deps"]]
        named = {file for file in modules if any(file == dep or dep in file.parents for dep in deps)}
        if named:
            (whole if named == modules else part).add(name)
    return whole, part


def test_the_table_says_which_stages_an_edit_makes_stale() -> None:
    words = {"every stage": set(STAGES), "nothing": set[str]()}
    said = {}
    for row in re.findall(r"^\|(.*`.*)\|(.*)\|(.*)\|$", section("The tree"), re.MULTILINE):
        names, whole, part = (cell.strip() for cell in row)
        stages = words.get(whole, set(re.findall(r"`(\w+)`", whole))), set(re.findall(r"`(\w+)`", part))
        said |= dict.fromkeys(re.findall("`(.+?)/?`", names), stages)
    assert said == {name: stale_by(PROJECT / "attnfd" / name) for name in (*FOLDERS, *ROOT)}


def test_lines_import_from_lines_below_alone() -> None:
    above: dict[str, set[str]] = {}
    for module in MODULES:
        if module.startswith(("attnfd.", "stages.")) and module != "attnfd.__main__":
            place = folder(module) if module.startswith("attnfd.") else "stages"
            others = {folder(name) for name in imports(module) if name.startswith("attnfd.")}
            above.setdefault(place, set()).update(others - {place})
    height: dict[str, int] = {}
    for place in TopologicalSorter(above).static_order():
        height[place] = 1 + max((height[other] for other in above.get(place, ())), default=0)
    order = sorted(height, key=lambda place: (-height[place], place))
    lines = [list(same) for _, same in groupby(order, key=height.__getitem__)]
    assert [line.split() for line in block("What depends on what")] == lines


@pytest.mark.parametrize("name", walks.WALKS)
def test_a_picture_is_what_the_script_draws(name: str) -> None:
    drawn = walks.draw(walks.WALKS[name])
    assert (walks.IMAGES / name).read_text(encoding="utf-8") == drawn, "run python docs/walks.py"
    assert f"](images/{name})" in PAGE
    for element in ElementTree.fromstring(drawn).iter():
        assert not any(re.search(r"href|src", key) for key in element.attrib), "fetched from elsewhere"


def defined(tree: ast.Module | ast.ClassDef) -> dict[str, ast.stmt]:
    """The definitions in a module or class, by name."""
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign):
            found[ast.unparse(node.target)] = node
        elif isinstance(node, ast.Assign):
            found |= {ast.unparse(target): node for target in node.targets}
    return found


@pytest.mark.parametrize("box", [box for box in BOXES if box.names], ids=lambda box: box.file)
def test_a_box_names_what_is_in_its_file(box: walks.Box) -> None:
    for name in box.names:
        scope: ast.stmt | ast.Module = ast.parse((PROJECT / box.file).read_text(encoding="utf-8"))
        for part in name.split("."):
            assert isinstance(scope, ast.Module | ast.ClassDef)
            scope = defined(scope)[part]


def test_boxes_without_names_are_data() -> None:
    assert {box.file for box in BOXES if not box.names and (PROJECT / box.file).suffix == ".py"} == set()


def mentions() -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)))


def test_paths_on_the_page_exist() -> None:
    paths = {
        text for text in mentions() if re.fullmatch(r"(attnfd|stages|tests|docs)/[\w/.]*|\w+\.yaml", text)
    }
    assert len(paths) > 10
    assert not [path for path in paths if not (PROJECT / path).exists()]


def test_words_in_backticks_are_in_the_code() -> None:
    files = [*MODULES.values(), PROJECT / "params.yaml", PROJECT / "dvc.yaml"]
    code = set(re.findall(r"\w+", " ".join(file.read_text(encoding="utf-8") for file in files)))
    for text in mentions():
        if not re.search(r"[/<$]|\.(py|yaml)$", text):
            assert set(re.findall(r"\w+", text)) <= code, text


def test_readme_links_the_map() -> None:
    assert "](docs/architecture.md)" in (PROJECT / "README.md").read_text(encoding="utf-8")
