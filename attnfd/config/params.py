"""`params.yaml`, typed: every section is a frozen model that refuses unknown keys.

A stage's settings for a dataset are merged from these sections. A later one overrides an earlier one:

    training  ←  <stage>  ←  recipes.<dataset>.training  ←  recipes.<dataset>.<stage>

(Only `train_teacher` and `distill` use `training`.) A method's settings are `methods.<method>`, and
`methods.<method>.on.<dataset>` overrides them. Its `epochs` replace those of `distill`, and
`students.<student>.epochs.<dataset>.<method>` replaces both.
"""

import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from attnfd import discovery
from attnfd.config.network import DEEPLAB
from attnfd.config.schema import (
    Distill,
    Evaluate,
    Freeze,
    Prepare,
    Report,
    Run,
    Student,
    Training,
    TrainTeacher,
    Tune,
)
from attnfd.config.section import SectionT, explain, typed
from attnfd.config.yaml_file import load_yaml
from attnfd.errors import UserError
from attnfd.paths import Cell

PARAMS_FILE = "params.yaml"

NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
"""A name becomes part of paths, of the names of DVC's cells, and of the command lines in dvc.yaml."""

TAKEN = ("teacher", "frozen", "untuned")
"""Names that folders next to those of the students have."""


RECIPE = ("prepare", "training", "train_teacher", "distill", "evaluate")
TOP = (
    "run", "training", "train_teacher", "freeze", "distill", "tune", "evaluate", "ablate", "report",
    "students", "methods", "recipes",
)  # fmt: skip

NOT_THE_MODELS = {"method": {"on", "epochs"}, "student": {"epochs"}}
"""Keys that nothing needs once the settings of a cell are resolved."""


@dataclass(frozen=True)
class Settings:
    """The resolved settings of a cell.

    `distill`, `student` and `method` are None for a teacher, `tune` is None unless the cell is a trial.
    """

    prepare: Prepare
    train_teacher: TrainTeacher
    freeze: Freeze
    distill: Distill | None
    student: Student | None
    method: Any
    tune: Tune | None
    evaluate: Evaluate

    def of_the_model(self) -> dict[str, dict[str, Any]]:
        """The sections that decide the weights of the cell's model, as plain values."""
        own = ("train_teacher",) if self.student is None else ("distill", "student", "method")
        found = {
            name: getattr(self, name).model_dump(mode="json", exclude=NOT_THE_MODELS.get(name))
            for name in ("prepare", *own)
        }
        return found if self.tune is None else {**found, "tune": {"share": self.tune.share}}


class Params:
    """The whole of `params.yaml`, resolved section by section.

    Raises:
        UserError: at construction, if a section, axis or recipe is not valid; the message names the key.
    """

    def __init__(self, raw: Mapping[str, Any], source: str = PARAMS_FILE) -> None:
        self.raw = raw
        self.source = source
        _check_keys(raw, TOP, source)
        for key in ("recipes", "students", "methods", "ablate"):
            self._check_names(key)
        for name, recipe in self._mapping("recipes").items():
            _check_keys(recipe, RECIPE, f"{source}: recipes.{name}")
        self._check_axes()
        # Checked alone, too: a value must be valid even if every recipe overrides it.
        self._section(Training, "training")
        for dataset in self.raw["recipes"]:
            for stage in RECIPE[0], *RECIPE[2:]:
                getattr(self, stage)(dataset)
        _ = self.freeze, self.report, self.tune
        for student in self.raw["students"]:
            self.student(student)
        self._check_encoder_dropout()

    def _mapping(self, key: str) -> dict[str, Any]:
        found = self.raw[key]
        if not isinstance(found, dict) or not found:
            raise UserError(f"{self.source}: {key}: found {found!r}; allowed: at least one entry")
        return found

    def _check_names(self, key: str) -> None:
        alike: dict[str, str] = {}
        for name in self._mapping(key):
            if not (isinstance(name, str) and NAME.fullmatch(name)):
                raise UserError(
                    f"{self.source}: {key}: found the name {reprlib.repr(name)}; allowed: letters, digits "
                    "and _, at most 64 of them"
                )
            if other := alike.get(name.lower()):
                raise UserError(
                    f"{self.source}: {key}: found {other!r} and {name!r}; allowed: names that differ in more "
                    "than capitals, as some systems keep both in one folder"
                )
            alike[name.lower()] = name
            if key == "students" and name.lower() in TAKEN:
                taken = ", ".join(TAKEN)
                raise UserError(f"{self.source}: {key}: found {name!r}; allowed: any name except {taken}")

    def _check_axes(self) -> None:
        for key, values, allowed in (
            ("run.datasets", self.run.datasets, self._mapping("recipes")),
            ("run.students", self.run.students, self._mapping("students")),
            ("run.methods", self.run.methods, self._mapping("methods")),
            ("run.ablate.students", self.run.ablate.students, self._mapping("students")),
            ("run.ablate.variants", self.run.ablate.variants, self._mapping("ablate")),
            ("run.tune.students", self.run.tune.students, self._mapping("students")),
            ("run.tune.methods", self.run.tune.methods, self._mapping("methods")),
        ):
            for value in values:
                discovery.one_of(value, tuple(allowed), f"{self.source}: {key}")
        for method in self._mapping("methods"):
            discovery.one_of(method, discovery.names("distillers"), f"{self.source}: methods")

    def _check_encoder_dropout(self) -> None:
        """Only students of the default network have it."""
        for dataset in self.run.datasets:
            value = self.distill(dataset).encoder_dropout
            if value is None:
                continue
            for name in (*self.run.students, *self.run.ablate.students, *self.run.tune.students):
                network = self.student(name).network
                if network != DEEPLAB:
                    raise UserError(
                        f"{self.source}: distill.encoder_dropout of {dataset}: found {value:g}; allowed: "
                        f"null, as students.{name} is a network of {network}, which has no such dropout"
                    )

    def _section(self, kind: type[SectionT], *layers: str) -> SectionT:
        """The sections at these dotted paths merged; each one overrides those before it."""
        merged: dict[str, Any] = {}
        for path in layers:
            found = self._at(path)
            if not isinstance(found, dict):
                raise UserError(f"{self.source}: {path}: found {found!r}; allowed: keys and values")
            merged = _merge(merged, found)
        try:
            return typed(kind, merged)
        except ValidationError as error:
            # The message names the last layer that sets the key.
            keys = error.errors()[0]["loc"]
            owners = [path for path in layers if _has(self._at(path), keys)] or list(layers)
            raise UserError(f"{self.source}: {owners[-1]}.{explain(kind, error)}") from None

    def _at(self, path: str) -> Any:
        found: Any = self.raw
        for key in path.split("."):
            found = found.get(key, {}) if isinstance(found, dict) else None
        return found

    def _check_recipe(self, dataset: str) -> None:
        discovery.one_of(dataset, tuple(self.raw["recipes"]), f"{self.source}: recipes")

    @cached_property
    def run(self) -> Run:
        return self._section(Run, "run")

    def prepare(self, dataset: str) -> Prepare:
        self._check_recipe(dataset)
        section = self._section(Prepare, f"recipes.{dataset}.prepare")
        key = f"{self.source}: recipes.{dataset}.prepare.reader"
        discovery.one_of(section.reader, discovery.names("readers"), key)
        return section

    def train_teacher(self, dataset: str) -> TrainTeacher:
        section = self._training(TrainTeacher, "train_teacher", dataset)
        key = f"{self.source}: train_teacher.network"
        discovery.one_of(section.network, discovery.names("networks"), key)
        return section

    def distill(self, dataset: str) -> Distill:
        return self._training(Distill, "distill", dataset)

    def _training(self, kind: type[SectionT], stage: str, dataset: str) -> SectionT:
        self._check_recipe(dataset)
        recipe = f"recipes.{dataset}"
        return self._section(kind, "training", stage, f"{recipe}.training", f"{recipe}.{stage}")

    @cached_property
    def freeze(self) -> Freeze:
        return self._section(Freeze, "freeze")

    @cached_property
    def tune(self) -> Tune:
        return self._section(Tune, "tune")

    def evaluate(self, dataset: str) -> Evaluate:
        self._check_recipe(dataset)
        return self._section(Evaluate, "evaluate", f"recipes.{dataset}.evaluate")

    @cached_property
    def report(self) -> Report:
        section = self._section(Report, "report")
        levels = ("recipes", "students", "methods")
        self._check_nested(section.step_ms, f"{self.source}: report.step_ms", *levels)
        return section

    def student(self, student: str) -> Student:
        discovery.one_of(student, tuple(self.raw["students"]), f"{self.source}: students")
        section = self._section(Student, f"students.{student}")
        key = f"{self.source}: students.{student}"
        discovery.one_of(section.network, discovery.names("networks"), f"{key}.network")
        self._check_nested(section.epochs, f"{key}.epochs", "recipes", "methods")
        return section

    def _check_nested(self, found: Mapping[str, Any], key: str, section: str, *inner: str) -> None:
        """Check that the keys of a mapping are names in `section`, and keys inside are names in `inner`."""
        for name, inside in found.items():
            discovery.one_of(name, tuple(self.raw[section]), key)
            if inner:
                self._check_nested(inside, f"{key}.{name}", *inner)

    def method(self, method: str, dataset: str, variant: str | None = None) -> Any:
        """Settings of a method on a dataset, typed by the method's own file; `variant` names an ablation."""
        discovery.one_of(method, tuple(self.raw["methods"]), f"{self.source}: methods")
        layers = [f"methods.{method}", *self._on(method, dataset)]
        if variant is not None:
            discovery.one_of(variant, tuple(self.raw["ablate"]), f"{self.source}: ablate")
            layers.append(f"ablate.{variant}")
        config = discovery.component("distillers", method).Config
        self._section(config, layers[0])  # A value must be valid even if a later layer overrides it.
        return self._section(config, *layers)

    def untuned(self, method: str, dataset: str) -> dict[str, Any]:
        """What the trials of a method start from: its settings without the chosen weight and the epochs."""
        general = self._at(f"methods.{method}")
        merged = _merge(general, self._at(f"methods.{method}.on.{dataset}"))
        kept = {key: value for key, value in merged.items() if key not in ("on", "epochs", "weight")}
        return {**kept, "weight": general["weight"]} if "weight" in general else kept

    def _on(self, method: str, dataset: str) -> list[str]:
        """The path of a method's settings for a dataset, if it has any."""
        on = self._at(f"methods.{method}.on")
        for name in on if isinstance(on, dict) else ():
            discovery.one_of(name, tuple(self.raw["recipes"]), f"{self.source}: methods.{method}.on")
        return [f"methods.{method}.on.{dataset}"] if isinstance(on, dict) and dataset in on else []

    def resolve(self, cell: Cell) -> "Settings":
        """All settings that a cell depends on, each section merged from all of its layers."""
        student = None if cell.student is None else self.student(cell.student)
        trial = cell.factor is not None
        distill = method = None
        if trial:
            distill, method = self._trial(cell)
        elif student is not None:
            distill = self.distill(cell.dataset)
            method = self.method(str(cell.method), cell.dataset, cell.variant)
            own = student.epochs.get(cell.dataset, {}).get(str(cell.method)) or method.epochs
            distill = distill.model_copy(update={"epochs": own or distill.epochs})
        return Settings(
            prepare=self.prepare(cell.dataset),
            train_teacher=self.train_teacher(cell.dataset),
            freeze=self.freeze,
            distill=distill,
            student=student,
            method=method,
            tune=self.tune if trial else None,
            evaluate=self.evaluate(cell.dataset),
        )

    def _trial(self, cell: Cell) -> tuple[Distill, Any]:
        """The settings of a trial: the method's weight times the factor, and fewer epochs."""
        method, distill = str(cell.method), self.distill(cell.dataset)
        self.method(method, cell.dataset)  # Its messages name the keys of the file.
        config = discovery.component("distillers", method).Config
        untuned = typed(config, self.untuned(method, cell.dataset))
        epochs = max(1, round(distill.epochs * self.tune.epochs_factor))
        weight = times(untuned.weight, str(cell.factor))
        shorter = distill.model_copy(update={"epochs": epochs, "validate_every": epochs})
        return shorter, untuned.model_copy(update={"weight": weight})


def times(weight: float, factor: str) -> float:
    """A weight times a factor, without the digits that binary fractions add.

    >>> times(3, "0.1")
    0.3
    """
    return float(Decimal(repr(weight)) * Decimal(factor))


def load_params(path: str | Path = PARAMS_FILE) -> Params:
    """Read and check a params file.

    Raises:
        UserError: the file is missing, is not YAML, or has an invalid value; the message names the key.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run this from the repository's root") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    return parse_params(text, path.name)


def parse_params(text: str, source: str) -> Params:
    """Read and check the text of a params file.

    Raises:
        UserError: the text is not YAML, or has an invalid value; the message begins with `source`.
    """
    raw = load_yaml(text, source)
    if not isinstance(raw, dict):
        raise UserError(f"{source}: found {type(raw).__name__}; allowed: the sections {', '.join(TOP)}")
    return Params(raw, source=source)


def _has(section: Any, keys: tuple[int | str, ...]) -> bool:
    for key in keys:
        if isinstance(section, dict) and key not in section:
            return False
        section = section[key] if isinstance(section, dict) else None
    return True


def _check_keys(raw: Any, allowed: tuple[str, ...], where: str) -> None:
    if not isinstance(raw, dict):
        raise UserError(f"{where}: found {raw!r}; allowed: the sections {', '.join(allowed)}")
    for key in raw:
        discovery.one_of(key, allowed, f"{where}: section")
    for key in allowed:
        if key not in raw:
            # DVC also refuses to run a stage if one of its tracked keys is missing.
            raise UserError(f"{where}: section {key!r} is missing; allowed: {', '.join(allowed)}")


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged
