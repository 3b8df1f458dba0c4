"""How a report was made: commit, command, data, versions, and the settings compared with the paper's.

It contains nothing about the machine, so that equal runs write equal reports. The runs in MLflow do.
"""

import platform
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pandas as pd

from attnfd import discovery
from attnfd.config.network import DEEPLAB
from attnfd.config.params import Params
from attnfd.config.schema import Training
from attnfd.data.prepared import Prepared
from attnfd.report import paper
from attnfd.report.names import Names

SOURCES = ("attnfd", "networks", "stages", "dvc.yaml", "params.yaml")
"""The files that decide a result. A commit of other files, such as `dvc.lock`, does not change the report."""
PACKAGES = ("attnfd", "torch", "torchvision", "numpy", "pandas", "matplotlib")


def facts(params: Params, prepared: Prepared, names: Names) -> Iterator[str]:
    """The facts, one sentence for each."""
    card, run = prepared.card, params.run
    yield f"Code and params: {commit()}."
    yield f"Command: dvc repro report@{card.name}"
    splits = ", ".join(f"{split.images} images in {name}" for name, split in card.splits.items())
    yield f"Data: {card.name}, read by attnfd/readers/{card.reader}.py; {splits}."
    yield f"Content of the data: SHA-256 {card.sha256} of the index, which lists the SHA-256 of every file."
    yield f"Seeds: {_listed(run.seeds)}; seeds of the ablation: {_listed(run.ablate.seeds)}."
    yield f"Settings of the methods that differ from the defaults: {_changed(params, card.name, names)}."
    yield f"Versions: {', '.join(_versions())}."
    yield "The runs in MLflow list the machine and the times: attnfd ui."


def commit() -> str:
    """The last commit that changed `SOURCES`, and whether there are later changes."""
    with suppress(OSError, subprocess.CalledProcessError):  # No git here, or no repository.
        found = _git("log", "-1", "--format=%H", "--", *SOURCES).strip()
        edited = _git("status", "--porcelain", "--", *SOURCES).strip()
        if found:
            return f"commit {found}{', with changes that are not committed' * bool(edited)}"
    return "not in a Git repository"


def recipe(params: Params, dataset: str) -> pd.DataFrame:
    """The settings of both trainings and the paper's; columns `setting`, `teacher`, `students`, `paper`."""
    teacher, students = params.train_teacher(dataset), params.distill(dataset)
    printed = paper.training(params.prepare(dataset).reader)
    kind = "backbone" if teacher.network == DEEPLAB else "network"
    rows = [(kind, teacher.made_of, "", printed["backbone"])]
    for key in ("weights", *Training.model_fields):
        values = _written(getattr(teacher, key)), _written(getattr(students, key))
        rows.append((key, *values, printed.get(key, "")))
    return pd.DataFrame(rows, columns=["setting", "teacher", "students", "paper"])


def _changed(params: Params, dataset: str, names: Names) -> str:
    """`AttnFD weight = 10 (default 1)`, and so on."""
    found = []
    for method in params.run.methods:
        defaults = _flat(discovery.component("distillers", method).Config())
        for key, value in _flat(params.method(method, dataset)).items():
            if value != defaults.get(key):
                default = _written(defaults.get(key))
                found.append(f"{names.method(method)} {key} = {_written(value)} (default {default})")
    return "; ".join(found) or "none"


def _flat(settings: Any) -> dict[str, Any]:
    (row,) = pd.json_normalize(settings.model_dump(mode="json", exclude={"on"})).to_dict("records")
    return {str(key): value for key, value in row.items()}


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (tuple, list)):
        return _listed(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _listed(values: Any) -> str:
    return ", ".join(map(_written, values))


def _versions() -> Iterator[str]:
    yield f"Python {platform.python_version()}"
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            yield f"{package} {version(package)}"


def _git(*arguments: str) -> str:
    return subprocess.check_output(["git", *arguments], text=True, stderr=subprocess.DEVNULL)
