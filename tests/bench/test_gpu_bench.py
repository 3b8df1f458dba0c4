"""`attnfd benchmark gpu`, rehearsed on the CPU, also with almost no package but PyTorch."""

import json
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from attnfd.bench import gpu
from attnfd.bench.ways import VARIANTS
from attnfd.errors import UserError
from tests import miniature

BARE = ("torch", "torchvision", "numpy", "pillow", "pydantic")


def rehearsal(tmp_path: Path, *parts: str) -> tuple[dict, str]:
    """The numbers and the tables of some parts."""
    files = {"json_file": tmp_path / "new" / "gpu.json", "markdown": tmp_path / "new" / "gpu.md"}
    shown = gpu.gpu(rehearse=True, parts=parts, **files)
    assert files["markdown"].read_text() == shown
    return json.loads(files["json_file"].read_text()), shown


@pytest.mark.slow
def test_steps_and_shortcuts_are_measured(tmp_path: Path) -> None:
    content, shown = rehearsal(tmp_path, "steps", "shortcuts")
    assert [row["name"] for row in content["steps"]] == list(VARIANTS)
    assert content["steps"][0]["speed"] == 1
    for row in content["steps"]:
        assert row["ms_p10"] <= row["ms"] <= row["ms_p90"]
        assert row["images_per_second"] == pytest.approx(2000 / row["ms"])
        assert f"| {row['name']} | {row['ms']:.1f} | " in shown
    assert [row["name"] for row in content["shortcuts"]] == ["AtrousConv", "Dropout", "JoiningConv"]
    losing = [row["name"] for row in content["shortcuts"] if row["worth"] < 1]
    assert f"Slower than the plain way on this card: {', '.join(losing) or 'none'}." in shown


@pytest.mark.slow
def test_the_loop_is_measured_on_images_that_are_drawn_for_it(tmp_path: Path) -> None:
    content, shown = rehearsal(tmp_path, "loop")
    found = content["loop"]
    assert found["bare_ms"] > 0
    assert found["bare_share"] == pytest.approx(found["bare_ms"] / found["loop_ms"])
    assert found["loader_share"] > 0
    assert f"The bare step is {100 * found['bare_share']:.1f} %" in shown


def test_a_part_that_fails_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'pandas'", name="pandas")

    def failing(*_: object) -> None:
        raise RuntimeError("out of memory")

    parts = {"steps": failing, "shortcuts": lambda *_: [{"name": "X", "worth": 0.9}], "loop": missing}
    monkeypatch.setattr(gpu, "PARTS", parts)
    content, shown = rehearsal(tmp_path, *parts)
    assert content["loop"] == {"left_out": "pandas is not installed"}
    assert "loop: left out (pandas is not installed)" in shown
    assert "steps: failed (RuntimeError: out of memory)" in shown
    assert "Slower than the plain way on this card: X." in shown


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_how_to_rehearse(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no GPU is visible; allowed: --rehearse"):
        gpu.gpu(rehearse=False, json_file=tmp_path / "a", markdown=tmp_path / "b")


def needed(name: str, found: set[str]) -> set[str]:
    """The names of a package and of all packages that it needs."""
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name in found:
        return found
    try:
        requires = distribution(name).requires or []
    except PackageNotFoundError:
        return found
    found.add(name)
    for requirement in map(Requirement, requires):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            needed(requirement.name, found)
    return found


@pytest.mark.slow
def test_it_runs_where_only_pytorch_is_installed(tmp_path: Path) -> None:
    """Only PyTorch, torchvision, NumPy, Pillow, pydantic and what they need; four cells share a device."""
    packages: set[str] = set()
    for name in BARE:
        needed(name, packages)
    assert not packages & {"dvc", "mlflow", "lightning-fabric", "pandas", "rich", "typer", "safetensors"}
    site = tmp_path / "site"
    site.mkdir()
    for package in packages:
        installed = distribution(package)
        for file in {path.parts[0] for path in installed.files or [] if path.parts[0] != ".."}:
            (site / file).exists() or (site / file).symlink_to(installed.locate_file(file))
    project = str(miniature.PROJECT)
    starter = (
        f"import sys; sys.path[:0] = [{project!r}, {str(site)!r}]; from attnfd.bench.gpu import main; main()"
    )
    # Python without its own packages (-S); the processes of cells get the path from PYTHONPATH.
    done = miniature.run(
        tmp_path, sys.executable, "-S", "-c", starter, "--rehearse", "steps", "cells", "loop",
        PYTHONPATH=f"{project}:{site}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert content["steps"][0]["name"] == "released code's"
    assert set(content["loop"]) == {"left_out"}
    assert "ratio" in content["cells"], content["cells"]
    assert content["cells"]["ratio"] == pytest.approx(
        content["cells"]["together_s"] / (4 * content["cells"]["alone_s"])
    )
