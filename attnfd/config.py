"""`params.yaml`, typed: every section is a frozen model that refuses what it does not know.

A stage's settings for a dataset are merged from the general to the particular:

    training  ←  <stage>  ←  recipes.<dataset>.training  ←  recipes.<dataset>.<stage>

(`training` takes part in the two stages that train: `train_teacher` and `distill`.) A method's settings are
`methods.<method>`, with `methods.<method>.on.<dataset>` laid over it.
"""

import difflib
import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from attnfd import discovery
from attnfd.errors import UserError
from attnfd.paths import Cell

PARAMS_FILE = "params.yaml"

Layer = Literal["backbone", "encoder", "decoder"]
Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]

NAME = re.compile(r"[A-Za-z0-9_]+")
"""A name becomes part of paths, of the names of DVC's cells, and of the command lines in dvc.yaml."""

TAKEN = ("teacher", "frozen")
"""Folders beside those of the students."""


class Section(BaseModel):
    """A section of `params.yaml`: keyword-only, frozen, strict about types and keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


SectionT = TypeVar("SectionT", bound=Section)


class Axes(Section):
    """Axes of a matrix."""

    @model_validator(mode="after")
    def _each_once(self) -> "Axes":
        for key, values in self:
            if isinstance(values, tuple) and len(set(values)) < len(values):
                raise ValueError(f"{key}: found {list(values)}; allowed: every value once")
        return self


class AblateAxes(Axes):
    """Axes of the `ablate` matrix."""

    students: tuple[str, ...] = Field(min_length=1, description="students that the ablation trains")
    variants: tuple[str, ...] = Field(min_length=1, description="names out of `ablate`")
    seeds: tuple[Seed, ...] = Field(min_length=1, description="one training per seed")


class Run(Axes):
    """What runs: the axes of the DVC matrices."""

    datasets: tuple[str, ...] = Field(min_length=1, description="names out of `recipes`")
    students: tuple[str, ...] = Field(min_length=1, description="names out of `students`")
    methods: tuple[str, ...] = Field(min_length=1, description="names out of `methods`")
    seeds: tuple[Seed, ...] = Field(min_length=1, description="one training per seed")
    ablate: AblateAxes


class Prepare(Section):
    """Where a dataset comes from. The keys beside `reader` are the reader's own options."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)

    reader: str = Field(description="a file of attnfd/datasets/")

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Training(Section):
    """Optimisation and augmentation, shared by teacher and students (paper sec. 4.2)."""

    splits: tuple[str, ...] = Field(min_length=1, description="splits of the dataset to train on")
    epochs: Positive = Field(description="passes over these splits")
    batch_size: Positive = Field(description="images per step; a last batch of one image is dropped (BN)")
    lr: float = Field(gt=0, description="learning rate of the backbone")
    head_lr_factor: float = Field(gt=0, description="everything but the backbone learns at lr times this")
    momentum: Probability = Field(description="of SGD")
    nesterov: bool = Field(description="Nesterov's momentum")
    weight_decay: NonNegative = Field(description="L2 penalty of SGD")
    schedule: Literal["cosine", "poly"] = Field(
        description="per iteration to 0: cosine annealing, or (1 - t)^0.9"
    )
    crop: tuple[Positive, Positive] = Field(description="height, width of a training crop in pixels")
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field(
        description="range of the random resize, relative to the original size"
    )
    flip: float = Field(ge=0, le=1, description="probability of a horizontal flip")
    sync_bn: bool = Field(description="in several processes: BN over the whole batch, not over each part")
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "auto"] = Field(
        description="arithmetic of the step; auto: bf16-mixed where it is native to the device, else 32-true"
    )
    deterministic: bool = Field(description="on a GPU, too: the same bits every time, in slower kernels")
    validate_every: Positive = Field(description="epochs between validations; the last epoch always is one")

    @model_validator(mode="after")
    def _no_validation_image(self) -> "Training":
        if "val" in self.splits:
            raise ValueError(f"splits: found {list(self.splits)}; allowed: any but val, which evaluates")
        return self

    @model_validator(mode="after")
    def _scale_in_order(self) -> "Training":
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale: found {list(self.scale)}; allowed: [low, high] with low ≤ high")
        return self


class Attention(Section):
    """CBAM at the three taps (Woo et al. 2018, sec. 3)."""

    reduction: Positive = Field(description="the channel MLP is C → C / reduction → C")
    kernel_size: Positive = Field(description="of the spatial convolution, odd")
    channel: bool = Field(description="with channel attention")
    spatial: bool = Field(description="with spatial attention")
    learned: bool = Field(default=True, description="gates with weights; without: sums of pooled values")

    @model_validator(mode="after")
    def _odd_kernel(self) -> "Attention":
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: found {self.kernel_size}; allowed: an odd number")
        return self


class TrainTeacher(Training):
    """The teacher: network, initial weights, seed, training."""

    backbone: str = Field(description="a name out of attnfd.models.backbones")
    weights: str = Field(
        description="imagenet, none, or a file; {backbone} in its path stands for the backbone's name"
    )
    dropout: tuple[Probability, Probability] = Field(description="before the last two convs of the head")
    attention: Attention
    checkpoint: str | None = Field(
        description="a teacher trained elsewhere, taken instead of training one: a folder that train_teacher "
        "wrote, or a DeepLabV3+ in the layout of the AttnFD authors; null: none"
    )
    fit_epochs: Annotated[int, Field(ge=0)] = Field(
        description="epochs in which new CBAMs of such a teacher are trained, and nothing else of it"
    )
    seed: Seed = Field(description="of initial weights, order and augmentation")


class Freeze(Section):
    """Checks made before the frozen teacher is written."""

    images: Positive = Field(description="evaluation images on which frozen and live teacher are compared")
    tolerance: float = Field(gt=0, description="largest relative difference allowed")


class Distill(Training):
    """Training of the students."""

    weights: str = Field(
        description="imagenet, none, or a file; {backbone} in its path stands for the backbone's name"
    )


class Evaluate(Section):
    """Evaluation at original size, and the pictures it leaves."""

    batch_size: Positive = Field(description="images of one size per forward pass")
    kept: Positive = Field(
        description="evaluation images whose class maps stay, for the report to choose from"
    )
    overlays: Positive = Field(description="of these, images drawn with their prediction and its features")
    resize: Positive | None = Field(
        default=None, description="short side to evaluate at as well (513: the released code)"
    )


class Report(Section):
    """Tables and figures."""

    title: str = Field(description="heading of the report")


class Student(Section):
    """A student network."""

    backbone: str = Field(description="a name out of attnfd.models.backbones")
    dropout: tuple[Probability, Probability] = Field(description="before the last two convs of the head")


class Method(Section):
    """What every distillation method has; each method's file extends it with its own options."""

    weight: NonNegative = Field(description="factor of the distillation loss beside cross-entropy")
    on: dict[str, dict[str, Any]] = Field(default={}, description="settings that differ, by dataset")


RECIPE = ("prepare", "training", "train_teacher", "distill", "evaluate")
TOP = (
    "run", "training", "train_teacher", "freeze", "distill", "evaluate", "ablate", "report",
    "students", "methods", "recipes",
)  # fmt: skip


class Params:
    """The whole of `params.yaml`, resolved section by section.

    Raises:
        UserError: at construction, if any section, axis or recipe does not hold; the message names the key.
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
        # By itself, too: a recipe may hide a value of it, but not make it hold.
        self._section(Training, "training")
        for dataset in self.raw["recipes"]:
            for stage in RECIPE[0], *RECIPE[2:]:
                getattr(self, stage)(dataset)
        _ = self.freeze, self.report
        for student in self.raw["students"]:
            self.student(student)

    def _mapping(self, key: str) -> dict[str, Any]:
        found = self.raw[key]
        if not isinstance(found, dict) or not found:
            raise UserError(f"{self.source}: {key}: found {found!r}; allowed: at least one entry")
        return found

    def _check_names(self, key: str) -> None:
        for name in self._mapping(key):
            if not (isinstance(name, str) and NAME.fullmatch(name)):
                raise UserError(
                    f"{self.source}: {key}: found the name {name!r}; allowed: letters, digits and _"
                )
            if key == "students" and name in TAKEN:
                raise UserError(f"{self.source}: {key}: found {name!r}; allowed: any but {', '.join(TAKEN)}")

    def _check_axes(self) -> None:
        for key, values, allowed in (
            ("run.datasets", self.run.datasets, self._mapping("recipes")),
            ("run.students", self.run.students, self._mapping("students")),
            ("run.methods", self.run.methods, self._mapping("methods")),
            ("run.ablate.students", self.run.ablate.students, self._mapping("students")),
            ("run.ablate.variants", self.run.ablate.variants, self._mapping("ablate")),
        ):
            for value in values:
                discovery.one_of(value, tuple(allowed), f"{self.source}: {key}")
        for method in self._mapping("methods"):
            discovery.one_of(method, discovery.names("distillers"), f"{self.source}: methods")

    def _section(self, kind: type[SectionT], *layers: str) -> SectionT:
        """The sections at these dotted paths, each laid over those before it."""
        merged: dict[str, Any] = {}
        for path in layers:
            found = self._at(path)
            if not isinstance(found, dict):
                raise UserError(f"{self.source}: {path}: found {found!r}; allowed: keys and values")
            merged = _merge(merged, found)
        try:
            return _typed(kind, merged)
        except ValidationError as error:
            # Blame the layer that has the last word on the key.
            keys = error.errors()[0]["loc"]
            owners = [path for path in layers if _has(self._at(path), keys)] or list(layers)
            raise UserError(f"{self.source}: {owners[-1]}.{_explain(kind, error)}") from None

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
        discovery.one_of(section.reader, discovery.names("datasets"), key)
        return section

    def train_teacher(self, dataset: str) -> TrainTeacher:
        return self._training(TrainTeacher, "train_teacher", dataset)

    def distill(self, dataset: str) -> Distill:
        return self._training(Distill, "distill", dataset)

    def _training(self, kind: type[SectionT], stage: str, dataset: str) -> SectionT:
        self._check_recipe(dataset)
        recipe = f"recipes.{dataset}"
        return self._section(kind, "training", stage, f"{recipe}.training", f"{recipe}.{stage}")

    @cached_property
    def freeze(self) -> Freeze:
        return self._section(Freeze, "freeze")

    def evaluate(self, dataset: str) -> Evaluate:
        self._check_recipe(dataset)
        return self._section(Evaluate, "evaluate", f"recipes.{dataset}.evaluate")

    @cached_property
    def report(self) -> Report:
        return self._section(Report, "report")

    def student(self, student: str) -> Student:
        discovery.one_of(student, tuple(self.raw["students"]), f"{self.source}: students")
        return self._section(Student, f"students.{student}")

    def method(self, method: str, dataset: str, variant: str | None = None) -> Any:
        """Settings of a method on a dataset, typed by the method's own file; `variant` names an ablation."""
        discovery.one_of(method, tuple(self.raw["methods"]), f"{self.source}: methods")
        layers = [f"methods.{method}"]
        on = self._at(f"methods.{method}.on")
        for name in on if isinstance(on, dict) else ():
            discovery.one_of(name, tuple(self.raw["recipes"]), f"{self.source}: methods.{method}.on")
            if name == dataset:
                layers.append(f"methods.{method}.on.{dataset}")
        if variant is not None:
            discovery.one_of(variant, tuple(self.raw["ablate"]), f"{self.source}: ablate")
            layers.append(f"ablate.{variant}")
        return self._section(discovery.component("distillers", method).Config, *layers)

    def resolve(self, cell: Cell) -> dict[str, Any]:
        """All settings that a cell's model depends on, for the tracking store."""
        sections: dict[str, Section] = {"prepare": self.prepare(cell.dataset)}
        if cell.student is None or cell.method is None:
            sections["train_teacher"] = self.train_teacher(cell.dataset)
        else:
            sections["distill"] = self.distill(cell.dataset)
            sections["student"] = self.student(cell.student)
            sections["method"] = self.method(cell.method, cell.dataset, cell.variant)
        return {name: section.model_dump(mode="json", exclude={"on"}) for name, section in sections.items()}


def load(path: str | Path = PARAMS_FILE) -> Params:
    """Read and check a params file.

    Raises:
        UserError: it is missing, is no YAML, or does not hold; the message names the key.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run this from the repository's root") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    return parse(text, path.name)


def parse(text: str, source: str) -> Params:
    """Check the text of a params file; `source` opens the message when it does not hold.

    Raises:
        UserError: it is no YAML, or does not hold.
    """
    raw = load_yaml(text, source)
    if not isinstance(raw, dict):
        raise UserError(f"{source}: found {type(raw).__name__}; allowed: the sections {', '.join(TOP)}")
    return Params(raw, source=source)


def load_yaml(text: str, source: str) -> Any:
    """The content of a YAML file, without running code out of it; `source` opens the message.

    Raises:
        UserError: it is no YAML, or holds what JSON could not.
    """
    try:
        raw = YAML(typ="safe", pure=True).load(text)
        json.dumps(raw, default=str)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "no YAML"
        raise UserError(f"{source}{line}: {' '.join(str(problem).split())}") from None
    except Exception as error:  # a tag on a value that it does not fit raises anything; so do endless aliases
        reason = " ".join(str(error).split())
        raise UserError(f"{source}: {reason}; allowed: plain keys and values") from None
    return raw


def validate(kind: type[SectionT], raw: Mapping[str, Any], where: str) -> SectionT:
    """Type a section; `where` opens the message when it does not hold."""
    try:
        return _typed(kind, raw)
    except ValidationError as error:
        raise UserError(f"{where}.{_explain(kind, error)}") from None


def _typed(kind: type[SectionT], raw: Mapping[str, Any]) -> SectionT:
    # By way of JSON, strict types still take a list for a tuple and a whole number for a float.
    return kind.model_validate_json(json.dumps(raw, default=str))


def _has(section: Any, keys: tuple[int | str, ...]) -> bool:
    for key in keys:
        if isinstance(section, dict) and key not in section:
            return False
        section = section[key] if isinstance(section, dict) else None
    return True


def _explain(kind: type[Section], error: ValidationError) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        allowed = _keys(kind, path[:-1])
        near = difflib.get_close_matches(path[-1], allowed, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{key}: unknown key; {hint}allowed: {', '.join(allowed)}"
    if first["type"] == "missing":
        return f"{key}: missing; give it a value"
    if first["type"] == "value_error":
        return ".".join([*path, str(first["ctx"]["error"])])
    message = first["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"{key}: found {json.dumps(first['input'])}; allowed: {message}"


def _keys(kind: type[Section], path: list[str]) -> tuple[str, ...]:
    """The keys of the section that lies at `path` inside a section."""
    for part in path:
        annotation = kind.model_fields[part].annotation
        # `Attention | None` has its section among its alternatives.
        kind = next(
            option for option in (annotation, *get_args(annotation)) if hasattr(option, "model_fields")
        )
    return tuple(kind.model_fields)


def _check_keys(raw: Any, allowed: tuple[str, ...], where: str) -> None:
    if not isinstance(raw, dict):
        raise UserError(f"{where}: found {raw!r}; allowed: the sections {', '.join(allowed)}")
    for key in raw:
        discovery.one_of(key, allowed, f"{where}: section")
    for key in allowed:
        if key not in raw:
            raise UserError(f"{where}: section {key!r} is missing; allowed: {', '.join(allowed)}")


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged
