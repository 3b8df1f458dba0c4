"""notebooks/quickstart.ipynb: its code runs from top to bottom, offline and without the pipeline."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.miniature import PROJECT, environment

NOTEBOOK = PROJECT / "notebooks/quickstart.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]
TEXT = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "markdown"]

CHECKS = """
assert np.mean(teacher_losses[-10:]) < 0.7 * teacher_losses[0]
assert np.mean(distances[-10:]) < 0.7 * distances[0]
assert all(parameter.grad is None for parameter in teacher.parameters())
assert {tuple(feature.shape[1:2]) for feature in features.values()} == {(256,)}
assert len({feature.sum().item() for feature in features.values()}) == 4
assert (found.classes == truth).mean() > (truth == 0).mean()
assert (logged.predict(photo).classes == found.classes).all()
assert (folder / "mlflow.db").is_file()
"""


HIDE_MLFLOW = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "mlflow" else find(name)
"""


@pytest.mark.slow
def test_its_code_runs(tmp_path: Path) -> None:
    script = tmp_path / "notebook.py"
    script.write_text("\n\n".join([*CODE, CHECKS]), encoding="utf-8")
    done = run(script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notebook.py"]


def test_without_mlflow_it_says_what_to_install(tmp_path: Path) -> None:
    script = tmp_path / "notebook.py"
    script.write_text(f"{HIDE_MLFLOW}\nfrom importlib.util import find_spec\n{CODE[-1]}", encoding="utf-8")
    done = run(script)
    assert done.returncode == 0, done.stderr
    assert "pip install 'attnfd[pipeline]'" in done.stdout


def test_it_is_short_and_stores_no_outputs() -> None:
    assert len(CELLS) <= 15
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in CELLS)
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)


def test_its_links_lead_to_files() -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", "\n".join(TEXT))
    assert len(targets) >= 4
    for target in targets:
        assert (NOTEBOOK.parent / target).is_file(), target


def run(script: Path) -> subprocess.CompletedProcess[str]:
    surroundings = environment() | {"MPLBACKEND": "Agg", "PYTHONPATH": str(PROJECT)}
    return subprocess.run(
        [sys.executable, script], cwd=script.parent, env=surroundings,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
