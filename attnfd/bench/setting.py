"""What is measured: a cell with its settings, and the ways to compute its step."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import torch
from lightning_fabric import Fabric
from torch import Tensor

from attnfd.bench.ways import CLASSES, OURS
from attnfd.config.params import Params, Settings, load_params
from attnfd.config.schema import Distill, Training, TrainTeacher
from attnfd.data.prepared import Card
from attnfd.models.frozen import freeze
from attnfd.models.kernels import cast_weights
from attnfd.models.network import Network
from attnfd.networks.base import make_network
from attnfd.paths import CARD, Cell, prepared
from attnfd.students.student import make_student
from attnfd.training.labels import LabelLoss, label_loss
from attnfd.training.objective import Objective, SharedTeacher


@dataclass(frozen=True)
class Setting:
    """A student and a method on a recipe, the crop (height, width), the batch, and the rounds to time."""

    params: Params
    cell: Cell
    size: tuple[int, int]
    batch: int
    rounds: int

    @classmethod
    def load(
        cls,
        dataset: str,
        student: str,
        method: str,
        size: tuple[int, int] | None = None,
        batch: int | None = None,
        rounds: int = 10,
    ) -> Self:
        """Read a setting from `params.yaml`; without a crop or a batch, it takes the recipe's.

        Raises:
            UserError: there is no such dataset, student or method.
        """
        cell = Cell.distilled(dataset, student, method, seed=0)
        params = load_params()
        training = params.distill(dataset)
        given = cls(params, cell, size or training.crop, batch or training.batch_size, rounds)
        _ = given.settings
        return given

    def by(self, method: str) -> Self:
        """The same setting with another method."""
        return replace(self, cell=replace(self.cell, method=method))

    @cached_property
    def settings(self) -> Settings:
        """Settings of the cell."""
        return self.params.resolve(self.cell)

    @property
    def training(self) -> Distill:
        """Settings of the student's training."""
        assert self.settings.distill is not None
        return self.settings.distill

    @property
    def teacher(self) -> TrainTeacher:
        """Settings of the teacher's training."""
        return self.settings.train_teacher

    @cached_property
    def card(self) -> Card | None:
        """The card of the prepared dataset; None: it is not prepared."""
        folder = prepared(self.cell.dataset)
        return Card.load(folder) if (folder / CARD).exists() else None

    @property
    def classes(self) -> int:
        """The number of classes of the prepared dataset; as many as VOC has if it is not prepared."""
        return len(self.card.classes) if self.card else CLASSES

    def labels(self, training: Training) -> LabelLoss:
        """The loss of the labels in a training; without class weights if the dataset is not prepared."""
        if self.card:
            return label_loss(training, self.card)
        return LabelLoss(hard_pixels=training.hard_pixels, dice=training.dice)

    @property
    def described(self) -> dict[str, Any]:
        """The setting for the terminal, and for a run in MLflow."""
        cell = self.cell
        return {
            "dataset": cell.dataset,
            "student": cell.student,
            "method": cell.method,
            "size": self.size,
            "batch": self.batch,
            "rounds": self.rounds,
        }

    def noise(self) -> tuple[Tensor, Tensor]:
        """A batch of random pixels, uint8 (B, 3, H, W), and random labels (B, H, W)."""
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (self.batch, 3, *self.size), dtype=torch.uint8, generator=generator)
        return pixels, torch.randint(self.classes, (self.batch, *self.size), generator=generator)


def make_teacher(given: Setting, *, frozen: bool) -> Network:
    """A teacher with random weights."""
    config = given.teacher
    teacher = make_network(config, given.classes, attention=config.attention)
    with torch.no_grad():
        for _ in range(3):  # without BN statistics, a deep network overflows in eval mode
            teacher(torch.randn(2, 3, 65, 65))
    return freeze(teacher.eval()) if frozen else teacher


def make_serving_teacher(given: Setting, fabric: Fabric) -> Network:
    """A frozen teacher, as in a training."""
    teacher = make_teacher(given, frozen=True).to(fabric.device).to(memory_format=OURS.layout)
    cast_weights(teacher, fabric)
    return teacher


def make_objective(given: Setting, teacher: Network, kind: type[Objective] = Objective) -> Objective:
    """The student and the method with a teacher."""
    pair = make_student(given.cell, given.settings, given.classes, teacher.info, weights="none")
    return kind(*pair, teacher, given.labels(given.training)).train()


def make_objectives_beside(teacher: Network, apart: list[Objective]) -> list[Objective]:
    """The same students and methods, sharing the forward passes of one teacher."""
    shared = SharedTeacher(teacher, [one.distiller for one in apart if one.distiller])
    return [Objective(one.model, one.distiller, shared, one.labels).train() for one in apart]
