"""The one loop that trains teacher and students alike."""

import math
import resource
import sys
import time
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Protocol

import pandas as pd
import torch
from lightning_fabric import Fabric
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from attnfd import evaluation, machine, processes
from attnfd.config import Training
from attnfd.data.loaders import eval_loader, train_loader
from attnfd.data.prepared import Prepared
from attnfd.data.transforms import normalize
from attnfd.distillers.base import Distiller
from attnfd.errors import UserError
from attnfd.losses import cross_entropy
from attnfd.metrics import scores
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.taps import Output
from attnfd.resume import Checkpoints, Interrupt, interruptible, random_state, set_random_state


class Log(Protocol):
    """Whoever wants the curves."""

    def metrics(self, values: Mapping[str, float], step: int) -> None: ...

    def flush(self) -> None: ...


class Objective(nn.Module):
    """What a step minimises: cross-entropy of a network, plus what a distiller adds.

    Args:
        model: the network in training, teacher or student.
        distiller: the method, unless the network learns from labels alone.
        teacher: the frozen teacher. It is kept out of `parameters()` and `state_dict()`, and does not run
            if the method reads nothing of it.
    """

    def __init__(
        self, model: DeepLabV3Plus, distiller: Distiller | None = None, teacher: DeepLabV3Plus | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.distiller = distiller
        self._teacher = (teacher,)  # a tuple hides it from nn.Module

    def forward(self, images: Tensor, target: Tensor, progress: float) -> dict[str, Tensor]:
        """Terms by name; their sum is the loss. Images are normalised (B, 3, H, W), see `cross_entropy`."""
        if self.distiller is None:
            logits = processes.gather(self.model(images).logits)
            return {"ce": cross_entropy(logits, processes.gather(target))}
        taught = self.teach(images)
        student = self.model(images, taps=self.distiller.student_taps)
        return self.terms(student, taught, target, progress)

    def terms(self, student: Output, taught: Output, target: Tensor, progress: float) -> dict[str, Tensor]:
        """What the distiller makes of the outputs of student and teacher, beside the cross-entropy."""
        student, taught = processes.gather_output(student), processes.gather_output(taught)
        target = processes.gather(target)
        assert self.distiller is not None
        assert student.logits is not None
        terms = self.distiller(student, taught, target, progress)
        return {"ce": cross_entropy(student.logits, target), **terms}

    @torch.no_grad()
    def teach(self, images: Tensor) -> Output:
        """What the method reads of the teacher; nothing runs for a method that reads nothing."""
        teacher, method = self._teacher[0], self.distiller
        assert method is not None
        if not (method.teacher_taps or method.teacher_logits):
            return Output(None, {})
        assert teacher is not None, "this method needs a teacher"
        return teacher(images, taps=method.teacher_taps, logits=method.teacher_logits)

    def parameter_groups(self, config: Training) -> list[dict[str, Any]]:
        """The backbone at `lr`; head, connectors, projectors and attention at `lr · head_lr_factor`."""
        backbone = list(self.model.backbone.parameters())
        known = {id(parameter) for parameter in backbone}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in known]
        return [
            {"params": backbone, "lr": config.lr},
            {"params": rest, "lr": config.lr * config.head_lr_factor},
        ]


def decay(schedule: str, progress: float) -> float:
    """Factor of the learning rate at 0 ≤ progress ≤ 1: from 1 to 0."""
    if schedule == "poly":
        return (1 - progress) ** 0.9
    return (1 + math.cos(math.pi * progress)) / 2


def fit(
    objective: Objective,
    prepared: Prepared,
    config: Training,
    *,
    seed: int,
    fabric: Fabric,
    log: Log,
    title: str,
    checkpoints: Checkpoints,
) -> pd.DataFrame:
    """Train `objective.model`, and leave it with the weights of its best validation.

    Goes on from the newest of `checkpoints`, and adds to them while it trains.

    Returns:
        A row per epoch: mean of `loss` and of each term, `lr` of the backbone at its end, and the
        validation's `miou` in the epochs that have one.

    Raises:
        UserError: the loss is no longer finite; the message names epoch, step and term.
        StoppedError: Ctrl-C or SIGTERM; the state is saved.
    """
    fitting = _Fitting(objective, prepared, config, seed, fabric, log, checkpoints)
    with interruptible() as interrupt, _progress_bar() as bar:
        fitting.run(interrupt, bar, bar.add_task(title, total=fitting.steps, completed=fitting.done, note=""))
    objective.load_state_dict(fitting.kept)
    return pd.DataFrame(fitting.history)


class _Fitting:
    """A training on its way: what `fit` is given, and what changes from step to step."""

    def __init__(
        self,
        objective: Objective,
        prepared: Prepared,
        config: Training,
        seed: int,
        fabric: Fabric,
        log: Log,
        checkpoints: Checkpoints,
    ) -> None:
        self.objective, self.config, self.fabric, self.log = objective, config, fabric, log
        self.classes = len(prepared.card.classes)
        self.train = train_loader(prepared, config, seed, device=fabric.device)
        share = processes.rank(), processes.count()
        self.validation = eval_loader(prepared, "val", config.batch_size, device=fabric.device, share=share)
        self.steps = config.epochs * len(self.train)
        optimizer = torch.optim.SGD(
            objective.parameter_groups(config),
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
            fused=True,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: decay(config.schedule, step / self.steps)
        )
        if config.sync_bn:
            processes.synchronise_bn(objective.to(fabric.device).model)
        if processes.rank() > 0:  # Dropout shall differ between the parts of a batch.
            torch.manual_seed(torch.initial_seed() + processes.rank())
        objective.to(memory_format=torch.channels_last)
        self.wrapped, self.optimizer = fabric.setup(objective, optimizer)

        self.epoch = 0
        self.taken: list[dict[str, Tensor]] = []  # the terms of this epoch's steps
        self.history: list[dict[str, float]] = []
        self.best: float = -1.0
        self.kept: dict[str, Tensor] = {}
        self.checkpoints = checkpoints
        state = checkpoints.load()
        self.meter = Meter(fabric.device, before=state["seconds"] if state else 0)
        if state:
            self.load_state_dict(state)
        self.saved = time.monotonic()

    @property
    def done(self) -> int:
        """Steps that were taken."""
        return self.epoch * len(self.train) + len(self.taken)

    def run(self, interrupt: Interrupt, bar: Progress, task: TaskID) -> None:
        while self.epoch < self.config.epochs:
            self.train.set_epoch(self.epoch, skip=len(self.taken))
            self.meter.start_epoch()
            for images, target in self.train:
                self.step(images, target)
                bar.advance(task)
                interrupt.agree(self.done)
                if interrupt.agreed:
                    self.read()  # What is no longer finite is not worth keeping.
                    self.save()
                    interrupt.raise_if_asked(f"step {self.done} of {self.steps}")
            bar.update(task, note="validating")
            self.end_epoch()
            row = self.history[-1]
            bar.update(task, note=f"loss {row['loss']:.3f}, best mIoU {100 * self.best:.1f} %")
            interrupt.agree()
            if interrupt.agreed or self.is_due():
                self.save()
            interrupt.raise_if_asked(f"epoch {self.epoch} of {self.config.epochs}")
        self.log.metrics({"speed/training_seconds": self.meter.seconds}, self.config.epochs)

    def step(self, images: Tensor, target: Tensor) -> None:
        images, target = self.fabric.to_device((images, target))
        terms = self.wrapped(normalize(images), target.long(), self.done / self.steps)
        self.optimizer.zero_grad()
        self.fabric.backward(sum(terms.values()))
        self.optimizer.step()
        self.schedule.step()
        self.taken.append({name: term.detach() for name, term in terms.items()})
        self.meter.count(len(target) * processes.count())

    def end_epoch(self) -> None:
        """Read the epoch's terms, validate if it is time to, and log both."""
        curves = self.read()
        first = self.done - len(self.taken) + 1
        self.epoch, self.taken = self.epoch + 1, []
        self.log.metrics(self.meter.epoch(), self.epoch)
        for step, values in enumerate(curves.to_dict("records"), start=first):
            self.log.metrics({f"step/{name}": value for name, value in values.items()}, step)
        row = {str(name): float(value) for name, value in curves.mean().items()}
        row["lr"] = self.optimizer.param_groups[0]["lr"]
        if self.epoch % self.config.validate_every == 0 or self.epoch == self.config.epochs:
            row["miou"] = validate(self.objective.model, self.validation, self.classes, self.fabric)
            if row["miou"] > self.best:
                self.best, self.kept = row["miou"], deepcopy(self.objective.state_dict())
        self.log.metrics({f"epoch/{name}": value for name, value in row.items()}, self.epoch)
        self.history.append({"epoch": self.epoch, **row})

    def read(self) -> pd.DataFrame:
        """The terms of this epoch's steps and their sum, a row per step; its one transfer from the device."""
        names = list(self.taken[0])
        terms = [torch.stack([step[name].float() for name in names]) for step in self.taken]
        values = torch.stack(terms).cpu()
        for step, name in (~values.isfinite()).nonzero().tolist():
            good = next((str(file) for file in self.checkpoints.files()), "none yet")
            raise UserError(
                f"epoch {self.epoch + 1}, step {step + 1}: {names[name]} is {values[step, name].item()}; "
                f"try a lower lr, a lower weight of the method, or precision: 32-true; "
                f"last good checkpoint: {good}"
            )
        curves = pd.DataFrame(values.numpy(), columns=names)
        curves.insert(0, "loss", curves.sum(axis=1))
        return curves

    def is_due(self) -> bool:
        """Whether a checkpoint is; the end needs none, what follows from it is written at once."""
        elapsed = time.monotonic() - self.saved
        due = self.epoch < self.config.epochs and elapsed >= machine.settings().checkpoint_seconds
        return any(processes.everyones(due))

    def save(self) -> None:
        self.log.flush()  # Before: what a checkpoint has left behind is not logged again.
        state = self.state_dict()
        if processes.rank() == 0:
            self.checkpoints.save(state, self.done)
        self.saved = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),  # the scaler of 16-mixed
            "epoch": self.epoch,
            "taken": self.taken,
            "history": self.history,
            "best": self.best,
            "kept": self.kept,
            "seconds": self.meter.seconds,
            "random": processes.everyones(random_state()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        for name in ("epoch", "taken", "history", "best", "kept"):
            setattr(self, name, state[name])
        states = state["random"]
        set_random_state(states[processes.rank() % len(states)])


class Meter:
    """What a training costs, for the log alone: an out of the pipeline must not differ between two runs.

    Args:
        before: seconds that the training took before it was resumed.
    """

    def __init__(self, device: torch.device, before: float) -> None:
        self._device = device
        self._start = time.perf_counter() - before
        self.start_epoch()

    @property
    def seconds(self) -> float:
        """Since the beginning, validation among them."""
        return time.perf_counter() - self._start

    def start_epoch(self) -> None:
        self._start_epoch = time.perf_counter()
        self._images = self._steps = 0
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def count(self, images: int) -> None:
        """Another step."""
        self._images += images
        self._steps += 1

    def epoch(self) -> dict[str, float]:
        """Costs of the steps since `start_epoch`, data loading among them and validation not."""
        if not self._steps:  # Resumed when all were taken.
            return {}
        seconds = time.perf_counter() - self._start_epoch
        costs = {
            "speed/seconds_per_step": seconds / self._steps,
            "speed/images_per_second": self._images / seconds,
            "speed/peak_memory_mib": _peak_memory() / 2**20,
        }
        if self._device.type == "cuda":
            costs["speed/peak_device_memory_mib"] = torch.cuda.max_memory_allocated(self._device) / 2**20
        return costs


def _peak_memory() -> int:
    """The most bytes of memory that this process has held, without its loader processes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def validate(model: DeepLabV3Plus, loader: Any, classes: int, fabric: Fabric) -> float:
    """mIoU of a network on the batches of a split, in the arithmetic that it trains in."""
    with fabric.autocast():
        matrices = evaluation.confusion(model, loader, classes, device=fabric.device)
    return scores(processes.total(matrices.sum(0)))["miou"]


def _progress_bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[note]}"), disable=processes.rank() > 0)
