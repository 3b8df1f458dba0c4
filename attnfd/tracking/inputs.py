"""The key of a checkpoint: all inputs of a training."""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path

import torch

from attnfd import paths
from attnfd.config.network import NetworkConfig
from attnfd.config.params import Params
from attnfd.data.prepared import open_prepared
from attnfd.models import checkpoint
from attnfd.paths import Cell
from attnfd.training.checkpoints import Checkpoints

CODE = Path(__file__).parents[2]
"""The folder that has the packages `attnfd` and `stages`."""


def checkpoints(params: Params, cell: Cell, start: str | None = None) -> Checkpoints:
    """Checkpoints of a cell with its current inputs.

    The inputs are what DVC tracks for the cell (settings, data, the frozen teacher's weights and the modules
    that the training imports), the weights of a model that the student starts from, and the version of torch.

    Args:
        start: fingerprint of the weights that the student starts from.

    Raises:
        UserError: an input of the cell is missing.
    """
    settings = params.resolve(cell)
    inputs = {
        "settings": settings.of_the_model(),
        "data": open_prepared(params, cell.dataset).card.sha256,
        "teacher": None if cell.student is None else checkpoint.fingerprint(paths.frozen(cell.dataset)),
        "code": _code(cell, settings.student or settings.train_teacher),
        "torch": torch.__version__,
        **({} if start is None else {"start": start}),
    }
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
    return Checkpoints(paths.checkpoints(cell) / key)


def _code(cell: Cell, network: NetworkConfig) -> dict[str, str]:
    """SHA-256 of every module that the training of a cell imports, by name; also of your own network."""
    stage = cell.stage if cell.stage in ("train_teacher", "tune") else "distill"
    modules = closure(f"stages.{stage}")
    if cell.method:
        modules |= closure(f"attnfd.distillers.{cell.method}")
    modules |= closure(f"attnfd.networks.{network.network}")
    if network.build is not None:
        modules |= closure(network.build.partition(":")[0])
    return {name: checkpoint.digest(file) for name, file in sorted(modules.items())}


def closure(module: str) -> dict[str, Path]:
    """A module and all modules in `CODE` that it imports, directly or not, by name.

    Imports inside functions count, imports for type checkers do not. The `__init__.py` files of this package
    are left out, because they are empty.
    """
    found: dict[str, Path] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        file = _file(name)
        if name not in found and file is not None:
            found[name] = file
            todo.extend(imports(file))
    return found


def _file(module: str) -> Path | None:
    path = CODE.joinpath(*module.split("."))
    if module.partition(".")[0] not in ("attnfd", "stages") and (path / "__init__.py").is_file():
        return path / "__init__.py"
    file = path.with_suffix(".py")
    return file if file.is_file() else None


@cache
def imports(file: Path) -> frozenset[str]:
    """Names that a file imports and that may be modules: for `from a import b`, both `a` and `a.b`."""
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(file.read_bytes())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = file.parents[node.level - 1].relative_to(CODE).parts if node.level else ()
            module = ".".join((*package, *filter(None, [node.module])))
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
        nodes.extend(ast.iter_child_nodes(node))
    return frozenset(found)
