"""The house rules: a command per stage, imports in one direction, deps that match the imports."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

import attnfd
from attnfd import discovery, paths
from attnfd.cli.main import app
from attnfd.config.params import RECIPE, TOP, load_params
from attnfd.errors import UserError
from attnfd.paths import Cell
from attnfd.tracking import inputs
from attnfd.tracking.inputs import closure

PROJECT = Path(__file__).parents[1]
STAGES = YAML(typ="safe").load((PROJECT / "dvc.yaml").read_text())["stages"]
MODULES = {
    ".".join(file.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): file
    for package in ("attnfd", "stages")
    for file in sorted((PROJECT / package).rglob("*.py"))
}


def imports(module: str) -> set[str]:
    """The project's modules that a module imports itself."""
    return inputs.imports(MODULES[module]) & MODULES.keys()


def needed(stage: str) -> set[Path]:
    """The files that a stage runs: all its imports, and those of networks and methods found by name."""
    files = set(closure(f"stages.{stage}").values())
    if "attnfd/networks" in STAGES[stage]["deps"]:
        for name in discovery.names("networks"):
            files |= set(closure(f"attnfd.networks.{name}").values())
    if any(dep.startswith("attnfd/distillers/") and "base" not in dep for dep in STAGES[stage]["deps"]):
        methods = {MODULES[f"attnfd.distillers.{name}"] for name in discovery.names("distillers")}
        for name in discovery.names("distillers"):
            files |= set(closure(f"attnfd.distillers.{name}").values()) - methods
    return files


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_one_word_everywhere(stage: str) -> None:
    assert (PROJECT / "stages" / f"{stage}.py").is_file()
    assert stage in get_command(app).commands  # type: ignore[attr-defined]
    assert f"python -m attnfd {stage} " in STAGES[stage]["cmd"]
    # These two share a section: `evaluate`, and `methods`.
    assert stage in {*TOP, *RECIPE} or stage in ("evaluate_teacher", "trials")


def test_every_stage_file_is_a_stage() -> None:
    assert {file.stem for file in (PROJECT / "stages").glob("[!_]*.py")} == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_writes_is_made_private_before(stage: str) -> None:
    item = {"dataset": "d", "student": "s", "method": "m", "variant": "v", "factor": "0.3", "seed": "0"}
    cells = {
        "distill": Cell.distilled("d", "s", "m", 0), "evaluate": Cell.distilled("d", "s", "m", 0),
        "ablate": Cell.ablated("d", "s", "v", 0), "tune": Cell.trial("d", "s", "m", "0.3", 0),
    }  # fmt: skip
    private = paths.outs(stage, cells.get(stage, Cell.teacher("d")))
    for kind in ("outs", "metrics", "plots"):
        for out in STAGES[stage].get(kind, []):
            name = out if isinstance(out, str) else next(iter(out))
            path = Path(re.sub(r"\$\{item\.(\w+)\}", lambda key: item[key[1]], name))
            assert any(path == own or own in path.parents for own in private), path


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
    # `prepare` finds its reader by name; an edit of another reader costs it only seconds.
    # `ablate` finds AttnFD by name.
    by_name = {PROJECT / "attnfd/distillers/attnfd.py", *(PROJECT / "attnfd/readers").glob("*.py")}
    used = needed(stage) | by_name
    if stage == "report":  # It reads the titles of all methods.
        used |= set((PROJECT / "attnfd/distillers").glob("*.py"))
    for dep in STAGES[stage]["deps"]:
        if dep.startswith(("attnfd", "stages")) and "$" not in dep:
            path = PROJECT / dep
            files = [path] if path.is_file() else [file for file in path.rglob("*") if file.suffix != ".pyc"]
            modules = {file for file in files if file.is_file() and file.name != "__init__.py"}
            assert modules
            assert modules <= used | set(path.glob("*.j2")), dep


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("attnfd")])
def test_imports_go_one_way(module: str) -> None:
    if not module.startswith("attnfd.cli.") and module != "attnfd.__main__":
        assert not [name for name in imports(module) if name.startswith(("stages", "attnfd.cli"))]


@pytest.mark.parametrize("kind", ["distillers", "imports", "networks", "readers"])
def test_components_do_not_import_each_other(kind: str) -> None:
    # A cell depends on its own method's file. Code that several methods share is in the base.
    for name in discovery.names(kind):
        others = {f"attnfd.{kind}.{other}" for other in discovery.names(kind)} - {f"attnfd.{kind}.{name}"}
        assert not imports(f"attnfd.{kind}.{name}") & others


def calls(file: Path, name: str) -> list[ast.Call]:
    nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    return [node for node in nodes if ast.unparse(node.func) == name]


def test_every_image_is_opened_by_a_list_of_formats() -> None:
    # Pillow starts Ghostscript for a file with an EPS header, whatever its name is.
    opened = [call for file in MODULES.values() for call in calls(file, "Image.open")]
    assert opened
    assert all("formats" in {keyword.arg for keyword in call.keywords} for call in opened)


def folder(module: str) -> str:
    """The folder of a module; for a module of the root, the module itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else module


def test_no_folder_imports_one_that_imports_it() -> None:
    library = [name for name in MODULES if name.startswith("attnfd.") and name != "attnfd.__main__"]
    graph: dict[str, set[str]] = {}
    for module in library:
        others = {folder(name) for name in imports(module)} - {folder(module)}
        graph.setdefault(folder(module), set()).update(others)
    assert tuple(TopologicalSorter(graph).static_order())


def test_files_and_the_root_stay_small() -> None:
    assert len(list((PROJECT / "attnfd").glob("*.py"))) <= 6
    for file in MODULES.values():
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 400, file


def test_a_message_lists_the_first_of_many_names() -> None:
    allowed = tuple(f"name{number:03}" for number in range(31))
    assert discovery.one_of("name030", allowed, "key") == "name030"
    with pytest.raises(
        UserError, match=r"did you mean 'name030'\? allowed: name000, .*, name029, … \(31 in all\)"
    ):
        discovery.one_of("name30", allowed, "key")
    with pytest.raises(UserError, match=r"allowed: name000, .*, name029$"):
        discovery.one_of("x", allowed[:30], "key")


@pytest.mark.parametrize(
    "package", [name for name, file in MODULES.items() if file.name == "__init__.py" and name != "attnfd"]
)
def test_package_files_stay_empty(package: str) -> None:
    body = ast.parse(MODULES[package].read_text()).body
    assert all(isinstance(node, ast.Expr) for node in body)


def test_every_section_of_the_shipped_params_parses() -> None:
    from attnfd.cli.preflight import check_components

    check_components(load_params(PROJECT / "params.yaml"))


@pytest.mark.parametrize("name", discovery.names("distillers"))
def test_params_has_the_defaults_of_every_distiller(name: str) -> None:
    shipped = dict(load_params(PROJECT / "params.yaml").raw["methods"][name])
    shipped.pop("on", None)
    # The papers have no default for these.
    own = {"on", "epochs"}
    defaults = discovery.component("distillers", name).Config().model_dump(mode="json", exclude=own)
    assert shipped == defaults


def test_every_public_name_is_there_without_the_pipeline() -> None:
    code = """if True:
        import sys
        import attnfd
        for name in attnfd.__all__:
            assert getattr(attnfd, name).__name__.removeprefix("attnfd.") == name
            assert callable(getattr(attnfd, name))
        assert {*attnfd.__all__, "__version__"} == set(dir(attnfd))
        heavy = {"dvc", "mlflow", "typer", "ray", "matplotlib", "ruamel.yaml"} & sys.modules.keys()
        assert not heavy, heavy
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="module 'attnfd' has no attribute 'AttnFDD'"):
        _ = attnfd.AttnFDD
