"""The one loop that trains teacher and students alike."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, NamedTuple, Protocol

import pandas as pd
import torch
from lightning_fabric import Fabric
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from attnfd.config.schema import Training
from attnfd.data.loaders import eval_loader, train_loader
from attnfd.data.prepared import Prepared
from attnfd.data.transforms import normalize
from attnfd.errors import UserError
from attnfd.evaluation import inference
from attnfd.evaluation.metrics import scores
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.paths import Cell
from attnfd.runtime import machine, processes
from attnfd.training.checkpoints import Checkpoints
from attnfd.training.interrupts import Interrupt, interruptible
from attnfd.training.meter import Meter
from attnfd.training.objective import Objective
from attnfd.training.optimizer import decay
from attnfd.training.randomness import RandomState, random_state, set_random_state


class Log(Protocol):
    """Whoever wants the curves."""

    def metrics(self, values: Mapping[str, float], step: int) -> None: ...

    def flush(self) -> None: ...


class Tracked(NamedTuple):
    """A cell to train, with the log and the checkpoints of its training."""

    cell: Cell
    log: Log
    checkpoints: Checkpoints


class Trainee(NamedTuple):
    """A network to be trained, and what belongs to its training alone.

    `random`: the random states that the training begins with.
    """

    objective: Objective
    log: Log
    title: str
    checkpoints: Checkpoints
    random: RandomState


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
    trainee = Trainee(objective, log, title, checkpoints, random_state())
    (outcome,) = fit_together([trainee], prepared, config, seed=seed, fabric=fabric)
    if isinstance(outcome, UserError):
        raise outcome
    return outcome


def fit_together(
    trainees: Sequence[Trainee], prepared: Prepared, config: Training, *, seed: int, fabric: Fabric
) -> list[pd.DataFrame | UserError]:
    """Train several networks side by side on the same batches: each gets the bits that `fit` would give it.

    They take turns at every batch, each with random states of its own. One that stands further back, after an
    interruption, catches up first.

    Returns:
        For each what `fit` returns, or the error that ended its training; the others go on.

    Raises:
        StoppedError: Ctrl-C or SIGTERM; the states are saved.
    """
    course = _Course(trainees, prepared, config, seed, fabric)
    with interruptible() as interrupt, _progress_bar() as bar:
        course.run(interrupt, bar)
    for fitting in course.fittings:
        if fitting.error is None:
            fitting.objective.load_state_dict(fitting.kept)
    return [fitting.error or pd.DataFrame(fitting.history) for fitting in course.fittings]


class _Course:
    """The batches, and the trainings that take them."""

    def __init__(
        self, trainees: Sequence[Trainee], prepared: Prepared, config: Training, seed: int, fabric: Fabric
    ) -> None:
        self.epochs, self.fabric = config.epochs, fabric
        self.train = train_loader(prepared, config, seed, device=fabric.device)
        share = processes.rank(), processes.count()
        self.validation = eval_loader(prepared, "val", config.batch_size, device=fabric.device, share=share)
        classes, alone = len(prepared.card.classes), len(trainees) == 1
        self.fittings = [
            _Fitting(trainee, config, fabric, classes=classes, steps=len(self.train), alone=alone)
            for trainee in trainees
        ]

    def run(self, interrupt: Interrupt, bar: Progress) -> None:
        for fitting in self.fittings:
            fitting.show_on(bar)
        for epoch in range(min(fitting.epoch for fitting in self.fittings), self.epochs):
            here = [fitting for fitting in self.fittings if fitting.epoch == epoch and not fitting.error]
            if here:
                self.run_epoch(epoch, here, interrupt)

    def run_epoch(self, epoch: int, here: Sequence["_Fitting"], interrupt: Interrupt) -> None:
        skip = min(len(fitting.taken) for fitting in here)
        self.train.set_epoch(epoch, skip)
        for fitting in here:
            fitting.meter.start_epoch()
        for number, batch in enumerate(self.train, start=skip):
            images, target = self.fabric.to_device(batch)
            images, target = normalize(images), target.long()
            for fitting in here:
                if len(fitting.taken) == number:
                    fitting.step(images, target)
            done = epoch * len(self.train) + number + 1
            interrupt.agree(done)
            self.stop_if_agreed(interrupt, f"step {done} of {self.epochs * len(self.train)}")
        for fitting in here:
            try:
                fitting.end_epoch(self.validation)
            except UserError as error:
                fitting.error = error
        interrupt.agree()
        self.stop_if_agreed(interrupt, f"epoch {epoch + 1} of {self.epochs}")

    def stop_if_agreed(self, interrupt: Interrupt, where: str) -> None:
        if not interrupt.agreed:
            return
        for fitting in self.fittings:
            if not fitting.error:
                fitting.save()
        interrupt.raise_if_asked(where)


class _Fitting:
    """A training on its way: the trainee, and what changes from step to step.

    Args:
        steps: batches of an epoch.
        alone: whether nothing else trains beside it, so that its costs can be told.
    """

    def __init__(
        self, trainee: Trainee, config: Training, fabric: Fabric, *, classes: int, steps: int, alone: bool
    ) -> None:
        self.objective, self.log, self.title = trainee.objective, trainee.log, trainee.title
        self.config, self.fabric, self.classes, self.alone = config, fabric, classes, alone
        self.epoch_steps, self.steps = steps, steps * config.epochs
        optimizer = torch.optim.SGD(
            self.objective.parameter_groups(config),
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
            fused=True,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: decay(config.schedule, step / self.steps)
        )
        if config.sync_bn:
            processes.synchronise_bn(self.objective.to(fabric.device).model)
        self.objective.to(memory_format=torch.channels_last)
        self.wrapped, self.optimizer = fabric.setup(self.objective, optimizer)

        self.epoch = 0
        self.taken: list[dict[str, Tensor]] = []  # the terms of this epoch's steps
        self.history: list[dict[str, float]] = []
        self.best: float = -1.0
        self.kept: dict[str, Tensor] = {}
        self.random = trainee.random
        self.error: UserError | None = None
        self.checkpoints = trainee.checkpoints
        state = self.checkpoints.load()
        self.meter = Meter(fabric.device, before=state["seconds"] if state else 0)
        if state:
            self.load_state_dict(state)
        elif processes.rank() > 0:  # Dropout shall differ between the parts of a batch.
            with self.own_random():
                torch.manual_seed(torch.initial_seed() + processes.rank())
        self.saved = time.monotonic()

    @property
    def done(self) -> int:
        """Steps that were taken."""
        return self.epoch * self.epoch_steps + len(self.taken)

    @contextmanager
    def own_random(self) -> Iterator[None]:
        """Draw from the random states of this training, whatever was drawn for others meanwhile."""
        set_random_state(self.random)
        yield
        self.random = random_state()

    def show_on(self, bar: Progress) -> None:
        self.bar, self.task = bar, bar.add_task(self.title, total=self.steps, completed=self.done, note="")

    def step(self, images: Tensor, target: Tensor) -> None:
        self.optimizer.zero_grad()  # Before: gradients and activations need not be held at once.
        with self.own_random():
            terms = self.wrapped(images, target, self.done / self.steps)
        self.fabric.backward(sum(terms.values()))
        self.optimizer.step()
        self.schedule.step()
        self.taken.append({name: term.detach() for name, term in terms.items()})
        self.meter.count(len(target) * processes.count())
        self.bar.advance(self.task)

    def end_epoch(self, validation: Any) -> None:
        """Read the epoch's terms, validate if it is time to, and log both; save if that is due."""
        self.bar.update(self.task, note="validating")
        curves = self.read()
        first = self.done - len(self.taken) + 1
        self.epoch, self.taken = self.epoch + 1, []
        if self.alone:
            self.log.metrics(self.meter.epoch(), self.epoch)
        for step, values in enumerate(curves.to_dict("records"), start=first):
            self.log.metrics({f"step/{name}": value for name, value in values.items()}, step)
        row = {str(name): float(value) for name, value in curves.mean().items()}
        row["lr"] = self.optimizer.param_groups[0]["lr"]
        last = self.epoch == self.config.epochs
        if self.epoch % self.config.validate_every == 0 or last:
            row["miou"] = validate(self.objective.model, validation, self.classes, self.fabric)
            if row["miou"] > self.best:
                self.best, self.kept = row["miou"], deepcopy(self.objective.state_dict())
        self.log.metrics({f"epoch/{name}": value for name, value in row.items()}, self.epoch)
        self.history.append({"epoch": self.epoch, **row})
        self.bar.update(self.task, note=f"loss {row['loss']:.3f}, best mIoU {100 * self.best:.1f} %")
        if last and self.alone:
            self.log.metrics({"speed/training_seconds": self.meter.seconds}, self.epoch)
        if self.is_due():
            self.save()

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
        if self.taken:
            self.read()  # What is no longer finite is not worth keeping.
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
            "random": processes.everyones(self.random),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        for name in ("epoch", "taken", "history", "best", "kept"):
            setattr(self, name, state[name])
        states = state["random"]
        self.random = states[processes.rank() % len(states)]


def validate(model: DeepLabV3Plus, loader: Any, classes: int, fabric: Fabric) -> float:
    """mIoU of a network on the batches of a split, in the arithmetic that it trains in."""
    with fabric.autocast():
        matrices = inference.confusion(model, loader, classes, device=fabric.device)
    return scores(processes.total(matrices.sum(0)))["miou"]


def _progress_bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[note]}"), disable=processes.rank() > 0)
