"""The whole pipeline in miniature: `python -m tests.miniature FOLDER` copies the project there and runs it.

It is small enough for a test, but has every stage, both kinds of cells and the real commands.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

PROJECT = Path(__file__).parents[1]

SHAPES = {
    "prepare": {"train": 8, "extra": 8, "val": 4, "size": [32, 32]},
    "training": {"batch_size": 4, "crop": [32, 32], "weights": "none"},
    "train_teacher": {"backbone": "resnet18", "epochs": 2, "validate_every": 1},
    "distill": {"epochs": 2, "validate_every": 1},
    "evaluate": {"overlays": 2},
}

RUN = {
    "datasets": ["shapes"],
    "students": ["mobilenetv2"],
    "methods": ["none", "attnfd"],
    "seeds": [0],
    "ablate": {"students": ["mobilenetv2"], "variants": ["b"], "seeds": [0]},
}


def clone(folder: Path) -> Path:
    """A new repository in `folder`: a copy of the working tree, with the miniature's params."""
    listed = _git(PROJECT, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    for name in set(listed) - {"", "dvc.lock"}:  # It belongs to another pipeline.
        source, target = PROJECT / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    change(folder, {"run": RUN, "recipes": {"shapes": SHAPES}})
    _git(folder, "init", "--quiet", "--initial-branch", "main")
    commit(folder, "miniature")
    return folder


def change(folder: Path, changes: Mapping[str, Any]) -> None:
    """Merge `changes` into the folder's `params.yaml`."""
    yaml = YAML()
    yaml.default_flow_style = None  # Lists in one line, as people write them.
    yaml.width = 4096  # DVC cannot read every value that takes two lines.
    file = folder / "params.yaml"
    params = yaml.load(file)
    _lay_over(params, changes)
    yaml.dump(params, file)


def commit(folder: Path, message: str) -> None:
    _git(folder, "add", "--all")
    author = ("-c", "user.name=tests", "-c", "user.email=tests@localhost")
    _git(folder, *author, "commit", "--quiet", "--message", message)


def environment() -> dict[str, str]:
    """The environment of a user's shell, without an outer pipeline or test; this Python is first on the path.

    It sets one thread, because the networks are tiny and tests run in parallel.
    """
    outer = ("DVC_", "MLFLOW_", "ATTNFD_", "PYTEST_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(outer)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "OMP_NUM_THREADS": "1"}


def run(folder: Path, *command: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the folder; output is captured, and the caller checks for failure."""
    return subprocess.run(
        command, cwd=folder, env={**environment(), **extra}, capture_output=True, text=True, check=False
    )


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def _lay_over(base: Any, changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            _lay_over(base[key], value)
        elif base.get(key) != value:  # An unchanged value keeps its style in the file.
            base[key] = _quoted(value)


def _quoted(value: Any) -> Any:
    """The value with quotes where DVC needs them: around text with a colon within a flow mapping."""
    if isinstance(value, Mapping):
        return {key: _quoted(inside) for key, inside in value.items()}
    return DoubleQuotedScalarString(value) if isinstance(value, str) and ":" in value else value


if __name__ == "__main__":
    target = clone(Path(sys.argv[1]))
    sys.exit(subprocess.run(["dvc", "repro"], cwd=target, env=environment(), check=False).returncode)
