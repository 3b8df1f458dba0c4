"""The rules of the house: a word per stage, imports that go one way, deps that name what is imported."""

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from attnfd import config, discovery
from attnfd.cli import app
from attnfd.errors import UserError

PROJECT = Path(__file__).parents[1]
STAGES = YAML(typ="safe").load((PROJECT / "dvc.yaml").read_text())["stages"]
MODULES = {
    ".".join(file.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): file
    for package in ("attnfd", "stages")
    for file in sorted((PROJECT / package).rglob("*.py"))
}


def imports(file: Path) -> set[str]:
    """Modules of the project that a file imports, at its top or later; not those for type checkers only."""
    found: set[str] = set()
    nodes = [ast.parse(file.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        nodes.extend(ast.iter_child_nodes(node))
    return found & MODULES.keys()


def closure(module: str) -> set[Path]:
    """Files that importing a module reads, itself among them; empty `__init__` files aside."""
    seen, todo = set(), [module]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo.extend(imports(MODULES[name]))
    return {MODULES[name] for name in seen if MODULES[name].name != "__init__.py"}


def needed(stage: str) -> set[Path]:
    """What a stage runs: the closure of its file, and of the methods if it finds one by name."""
    files = closure(f"stages.{stage}")
    if any(dep.startswith("attnfd/distillers/") and "base" not in dep for dep in STAGES[stage]["deps"]):
        methods = {MODULES[f"attnfd.distillers.{name}"] for name in discovery.names("distillers")}
        for name in discovery.names("distillers"):
            files |= closure(f"attnfd.distillers.{name}") - methods
    return files


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_one_word_everywhere(stage: str) -> None:
    assert (PROJECT / "stages" / f"{stage}.py").is_file()
    assert stage in get_command(app).commands  # type: ignore[attr-defined]
    assert f"python -m attnfd {stage} " in STAGES[stage]["cmd"]
    assert stage in {*config.TOP, *config.RECIPE} or stage == "evaluate_teacher"  # shares `evaluate`


def test_every_stage_file_is_a_stage() -> None:
    assert {file.stem for file in (PROJECT / "stages").glob("[!_]*.py")} == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_deps_name_every_module_that_the_stage_imports(stage: str) -> None:
    deps = [PROJECT / dep for dep in STAGES[stage]["deps"] if dep.endswith(".py") or "." not in dep]
    missing = {
        str(file.relative_to(PROJECT))
        for file in needed(stage)
        if not any(file == dep or dep in file.parents for dep in deps)
    }
    assert not missing


@pytest.mark.parametrize("stage", STAGES)
def test_deps_name_no_module_that_the_stage_does_not_import(stage: str) -> None:
    used = needed(stage)
    for dep in STAGES[stage]["deps"]:
        path = PROJECT / dep
        if dep.endswith(".py") and "$" not in dep:
            assert path in used or dep == "attnfd/distillers/attnfd.py", dep


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("attnfd")])
def test_imports_go_one_way(module: str) -> None:
    if module not in ("attnfd.cli", "attnfd.__main__"):
        found = imports(MODULES[module])
        assert not [name for name in found if name.startswith("stages") or name == "attnfd.cli"]


@pytest.mark.parametrize("kind", ["distillers", "datasets"])
def test_components_do_not_import_each_other(kind: str) -> None:
    # A cell depends on its own method's file; what several methods share belongs to the base.
    for name in discovery.names(kind):
        others = {f"attnfd.{kind}.{other}" for other in discovery.names(kind)} - {f"attnfd.{kind}.{name}"}
        assert not imports(MODULES[f"attnfd.{kind}.{name}"]) & others


def test_a_message_lists_the_first_of_many_names() -> None:
    allowed = tuple(f"name{number:03}" for number in range(31))
    assert discovery.one_of("name030", allowed, "key") == "name030"
    with pytest.raises(
        UserError, match=r"did you mean 'name030'\? allowed: name000, .*, name029, … \(31 in all\)"
    ):
        discovery.one_of("name30", allowed, "key")
    with pytest.raises(UserError, match=r"allowed: name000, .*, name029$"):
        discovery.one_of("x", allowed[:30], "key")


@pytest.mark.parametrize("package", [name for name, file in MODULES.items() if file.name == "__init__.py"])
def test_package_files_stay_empty(package: str) -> None:
    body = ast.parse(MODULES[package].read_text()).body
    assert all(isinstance(node, ast.Expr) for node in body)


def test_every_section_of_the_shipped_params_parses() -> None:
    from attnfd.preflight import check_components

    check_components(config.load(PROJECT / "params.yaml"))


def test_every_distiller_has_its_section() -> None:
    assert set(config.load(PROJECT / "params.yaml").raw["methods"]) == set(discovery.names("distillers"))
