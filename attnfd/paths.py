"""The paths of all files. Only this module and `dvc.yaml` spell them."""

import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from attnfd.config.schema import Run, TuneAxes

MODELS = Path("models")
RESULTS = Path("results")
ABLATION = Path("ablation")
TUNING = Path("tuning")
TEACHER = "teacher"
FROZEN = "frozen"
MODEL = "model.safetensors"
CARD = "card.json"
HISTORY = "history.csv"
DISTILLER = "distiller.safetensors"
METRICS = "metrics.json"
PER_CLASS = "per_class.csv"
PREDICTIONS = "predictions.npz"
CONFUSION = "confusion.npz"
ATTENTION = "attention.npz"


def main_root() -> Path:
    """Root of the main repository, also in the temporary clones of `dvc exp run --temp`.

    DVC sets DVC_ROOT for its stages. Without DVC, the root is the working directory.
    """
    return Path(os.environ.get("DVC_ROOT") or Path.cwd())


def unlink(path: Path) -> None:
    """Replace a hard-linked file, or each one in a folder, by a copy that can be written to.

    DVC's cache and the store of runs may share the files of an earlier run. They must not change.
    """
    for file in (path, *path.rglob("*")):
        if file.is_file() and not file.is_symlink() and file.stat().st_nlink > 1:
            copy = file.with_name(f"{file.name}.copy")
            shutil.copy2(file, copy)
            copy.chmod(copy.stat().st_mode | stat.S_IWUSR)
            copy.replace(file)


def prepared(dataset: str) -> Path:
    """Folder of a prepared dataset: `index.csv`, `card.json`, and images if `prepare` draws them."""
    return Path("data") / dataset


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One trained model: the values that identify it, and the paths of its files.

    `variant` is set for ablations. `factor` is set for the trials of a weight, spelled as in `params.yaml`.
    `student`, `method` and `seed` are None for the teacher.
    """

    stage: str
    dataset: str
    student: str | None = None
    method: str | None = None
    variant: str | None = None
    factor: str | None = None
    seed: int | None = None

    @classmethod
    def teacher(cls, dataset: str) -> Self:
        """The teacher of a dataset."""
        return cls(stage="train_teacher", dataset=dataset)

    @classmethod
    def distilled(cls, dataset: str, student: str, method: str, seed: int) -> Self:
        """A student that is trained with a method."""
        return cls(stage="distill", dataset=dataset, student=student, method=method, seed=seed)

    @classmethod
    def ablated(cls, dataset: str, student: str, variant: str, seed: int) -> Self:
        """A student that is trained with a variant of AttnFD."""
        return cls(
            stage="ablate", dataset=dataset, student=student, method="attnfd", variant=variant, seed=seed
        )

    @classmethod
    def trial(cls, dataset: str, student: str, method: str, factor: str, seed: int) -> Self:
        """A student that is trained with a method at its weight times a factor, scored on training images."""
        return cls(stage="tune", dataset=dataset, student=student, method=method, factor=factor, seed=seed)

    @classmethod
    def trials(cls, axes: "TuneAxes", factors: Iterable[float], dataset: str) -> list[Self]:
        """Every trial of `run.tune` and `tune.factors` on a dataset."""
        cells = product(axes.students, axes.methods, map(str, factors), axes.seeds)
        return [cls.trial(dataset, *cell) for cell in cells]

    @classmethod
    def all(cls, run: "Run", dataset: str) -> list[Self]:
        """Every model of `run` on a dataset: teacher, students, ablations."""
        axes = product(run.students, run.methods, run.seeds)
        ablate = product(run.ablate.students, run.ablate.variants, run.ablate.seeds)
        return [
            cls.teacher(dataset),
            *(cls.distilled(dataset, *cell) for cell in axes),
            *(cls.ablated(dataset, *cell) for cell in ablate),
        ]

    @classmethod
    def of_folder(cls, folder: PurePath) -> Self:
        """The cell of a folder of a model or of results, such as `results/shapes/resnet18/attnfd/0`."""
        root, dataset, *rest = folder.parts
        if rest == [TEACHER]:
            return cls.teacher(dataset)
        student, taught, seed = rest
        make = cls.ablated if root == ABLATION.name else cls.distilled
        return make(dataset, student, taught, int(seed))

    @classmethod
    def of_tags(cls, tags: Mapping[str, str]) -> Self:
        """The cell with these `tags`."""
        known = {field.name: tags.get(field.name) for field in fields(cls)}
        seed = known.pop("seed")
        return cls(seed=None if seed is None else int(seed), **known)  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        """The name in progress bars, tables and MLflow, such as `resnet18-attnfd-0`."""
        factor = None if self.factor is None else f"x{self.factor}"
        parts = (self.student or TEACHER, self.method, self.variant, factor, self.seed)
        return "-".join(str(part) for part in parts if part is not None)

    @property
    def model(self) -> Path:
        """Folder of weights, card and history."""
        if self.student is None:
            return MODELS / self.dataset / TEACHER
        if self.factor is not None:
            return TUNING.joinpath(self.dataset, self.student, str(self.method), self.factor, str(self.seed))
        if self.variant is None:
            return MODELS / self.dataset / self.student / str(self.method) / str(self.seed)
        return ABLATION.joinpath(self.dataset, self.student, self.variant, str(self.seed))

    @property
    def results(self) -> Path:
        """Folder of metrics and pictures of the evaluation."""
        if self.variant is not None or self.factor is not None:
            return self.model
        return RESULTS.joinpath(*self.model.parts[1:])

    @property
    def tags(self) -> dict[str, str]:
        """The cell as MLflow tags."""
        return {key: str(value) for key, value in asdict(self).items() if value is not None}


def checkpoints(cell: Cell) -> Path:
    """Folder of a cell's checkpoints, in the main root, where DVC neither removes nor copies it."""
    return main_root() / ".attnfd" / "checkpoints" / cell.model


def frozen(dataset: str) -> Path:
    """Folder of the frozen teacher."""
    return MODELS / dataset / FROZEN


def untuned(dataset: str) -> Path:
    """Folder of the settings from which the trials of each method start."""
    return TUNING / dataset / "untuned"


def report(dataset: str) -> Path:
    """Folder of tables and figures."""
    return Path("reports", dataset)


def summary(dataset: str) -> Path:
    """The metrics file of a dataset; it is short, because `dvc exp show` has a column for each number."""
    return Path("metrics", f"{dataset}.json")


def outs(stage: str, cell: Cell) -> list[Path]:
    """The outputs of a stage for a cell."""
    written = {
        "prepare": [prepared(cell.dataset)],
        "trials": [untuned(cell.dataset)],
        "freeze": [frozen(cell.dataset)],
        "report": [report(cell.dataset), summary(cell.dataset)],
        "evaluate": [cell.results],
        "evaluate_teacher": [cell.results],
    }
    return written.get(stage, [cell.model])
