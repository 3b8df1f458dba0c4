"""No call in the source runs code from a file or passes a string to a shell."""

import ast
import os
import re
from pathlib import Path

import pytest

from tests import audit
from tests.test_house import MODULES, STAGES

FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads",
    "pickle.Unpickler", "pd.read_pickle", "joblib.load", "yaml.load", "yaml.unsafe_load", "marshal.loads",
    "mlflow.pytorch.load_model", "mlflow.pyfunc.load_model", "torch.export.load", "torch.jit.load",
    "torch.hub.load", "shutil.unpack_archive",
}  # fmt: skip

REQUIRED = {
    "torch.load": ("weights_only", {"True"}),
    "extractall": ("filter", {"'data'"}),
    "YAML": ("typ", {"'safe'", "'rt'"}),  # Both create only plain values; the second keeps comments.
}
"""Calls by the end of their name, and the argument that makes them safe, with its values."""

ALLOWED = {
    "attnfd.deploy.export": "torch.export.load(file)",  # reads a file that it has just written
    "attnfd.sweep.engine": "subprocess.Popen(task.command, shell=True",  # like DVC; names are checked
}

REFUSED = {"shell": "True", "allow_pickle": "True", "weights_only": "False"}


def faults(source: str) -> list[str]:
    """The unsafe calls in a source text."""
    found = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        given = {word.arg: ast.unparse(word.value) for word in call.keywords}
        if name in FORBIDDEN or any(given.get(key) == value for key, value in REFUSED.items()):
            found.append(ast.unparse(call))
        for end, (key, values) in REQUIRED.items():
            if (name == end or name.endswith(f".{end}")) and given.get(key) not in values:
                found.append(ast.unparse(call))
    return found


@pytest.mark.parametrize("module", MODULES)
def test_no_call_is_unsafe(module: str) -> None:
    found = faults(MODULES[module].read_text(encoding="utf-8"))
    assert len(found) == (module in ALLOWED)
    assert all(call.startswith(ALLOWED[module]) for call in found)


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "np.load(file, allow_pickle=True)",
        "tar.extractall(to)",
        "YAML(typ='unsafe').load(text)",
        "subprocess.run(f'rm {name}', shell=True)",
        "pickle.loads(data)",
    ],
)
def test_unsafe_calls_are_seen(source: str) -> None:
    assert faults(source)


@pytest.mark.parametrize("stage", STAGES)
def test_command_lines_contain_only_names_that_params_check(stage: str) -> None:
    """Names match `config.NAME` and seeds are numbers, so no shell can interpret them."""
    used = set(re.findall(r"\$\{([^}]*)\}", STAGES[stage]["cmd"]))
    assert used <= {f"item.{axis}" for axis in ("dataset", "student", "method", "variant", "factor", "seed")}
    assert all(re.fullmatch(r"\$\{(run|tune)\.[a-z.]+\}", axis) for axis in STAGES[stage]["matrix"].values())


def test_servers_stay_on_this_machine() -> None:
    project = Path(__file__).parents[1]
    for file in [*MODULES.values(), project / "Makefile"]:
        assert "0.0.0.0" not in file.read_text(encoding="utf-8"), file


AUDIT = """#!/bin/sh
echo '{"dependencies": [{"name": "a", "version": "1", "vulns": [HOLES]}, {"name": "b", "skip_reason": "?"}]}'
"""
HOLE = '{"id": "GHSA-1", "fix_versions": ["2", "1.5"]}'


@pytest.mark.parametrize(
    ("program", "status", "printed"),
    [
        (AUDIT.replace("HOLES", ""), 0, "1 of 2 packages audited\n"),
        (AUDIT.replace("HOLES", HOLE), 1, "1 of 2 packages audited\na 1: GHSA-1, fixed in 2, 1.5\n"),
        ("#!/bin/sh\necho 'no network' >&2; exit 1\n", 0, "not audited: no network\n"),
    ],
    ids=["clean", "a hole", "out of reach"],
)
def test_the_audit_fails_for_holes_alone(
    program: str,
    status: int,
    printed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "pip-audit").write_text(program)
    (tmp_path / "pip-audit").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert audit.main() == status
    assert capsys.readouterr().out == printed
