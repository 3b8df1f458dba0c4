"""Where everything lies: the one place beside `dvc.yaml` that spells a path."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

MODELS = Path("models")
RESULTS = Path("results")
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
    """Root of the main repository, also from inside the temporary clones of `dvc exp run --temp`.

    DVC exports DVC_ROOT to its stages; without DVC it is the working directory.
    """
    return Path(os.environ.get("DVC_ROOT") or Path.cwd())


def prepared(dataset: str) -> Path:
    """Folder of a prepared dataset: `index.csv`, `card.json`, and the images where `prepare` draws them."""
    return Path("data") / dataset


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One trained model: what tells it from every other, and where its files lie.

    `variant` is set for ablations; `student`, `method` and `seed` are unset for the teacher.
    """

    stage: str
    dataset: str
    student: str | None = None
    method: str | None = None
    variant: str | None = None
    seed: int | None = None

    @property
    def name(self) -> str:
        """`resnet18-attnfd-0`; the words a user sees in progress bars, tables and MLflow."""
        parts = (self.student or "teacher", self.method, self.variant, self.seed)
        return "-".join(str(part) for part in parts if part is not None)

    @property
    def model(self) -> Path:
        """Folder of weights, card and history."""
        if self.student is None:
            return MODELS / self.dataset / "teacher"
        if self.variant is None:
            return MODELS / self.dataset / self.student / str(self.method) / str(self.seed)
        return Path("ablation", self.dataset, self.student, self.variant, str(self.seed))

    @property
    def results(self) -> Path:
        """Folder of metrics and pictures of the evaluation."""
        if self.variant is not None:
            return self.model
        return RESULTS.joinpath(*self.model.parts[1:])

    @property
    def tags(self) -> dict[str, str]:
        """The cell as MLflow tags."""
        return {key: str(value) for key, value in asdict(self).items() if value is not None}


def checkpoints(cell: Cell) -> Path:
    """Folder of a cell's unfinished trainings: the main root's, so that DVC neither removes nor copies it."""
    return main_root() / ".attnfd" / "checkpoints" / cell.model


def frozen(dataset: str) -> Path:
    """Folder of the frozen teacher."""
    return MODELS / dataset / "frozen"


def report(dataset: str) -> Path:
    """Folder of tables and figures."""
    return Path("reports", dataset)


def summary(dataset: str) -> Path:
    """The one metrics file of a dataset, short enough for a column per number in `dvc exp show`."""
    return Path("metrics", f"{dataset}.json")
