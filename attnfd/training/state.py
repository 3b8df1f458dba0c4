"""One training: its state from step to step, its log, and the content of its checkpoints."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from typing import Any, NamedTuple

import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor

from attnfd.config.schema import Training
from attnfd.config.task import Log
from attnfd.errors import UserError
from attnfd.evaluation import inference
from attnfd.evaluation.metrics import scores
from attnfd.models.network import Network
from attnfd.runtime import machine, processes
from attnfd.training.average import Average
from attnfd.training.checkpoints import Checkpoints
from attnfd.training.meter import Meter
from attnfd.training.objective import Objective
from attnfd.training.optimizer import make_optimizer, make_schedule
from attnfd.training.progress import Bar, described
from attnfd.training.randomness import RandomState, random_state, set_random_state


class Trainee(NamedTuple):
    """A network to train, and what differs from other trainings that run together with it.

    `random`: the random states at the start of the training. `epochs`: None: those of the config.
    """

    objective: Objective
    log: Log
    title: str
    checkpoints: Checkpoints
    random: RandomState
    epochs: int | None = None


class TrainState:
    """A training in progress.

    Resumes from the newest checkpoint of the trainee, if there is one.

    Args:
        alone: whether no other network is trained together with it, so that its costs can be measured.
    """

    def __init__(
        self,
        trainee: Trainee,
        config: Training,
        fabric: Fabric,
        *,
        classes: int,
        steps_per_epoch: int,
        alone: bool,
    ) -> None:
        self.objective, self.log, self.title = trainee.objective, trainee.log, trainee.title
        config = config.model_copy(update={"epochs": trainee.epochs or config.epochs})
        self.config, self.fabric, self.classes, self.alone = config, fabric, classes, alone
        self.steps_per_epoch, self.steps = steps_per_epoch, steps_per_epoch * config.epochs
        optimizer = make_optimizer(self.objective, config)
        self.schedule = make_schedule(optimizer, config, self.steps)
        if config.sync_bn:
            processes.synchronise_bn(self.objective.to(fabric.device).model)
        self.objective.to(memory_format=torch.channels_last)
        self.wrapped, self.optimizer = fabric.setup(self.objective, optimizer)

        self.average = Average(self.objective.model, config.ema) if config.ema else None

        self.epoch = 0
        self.terms: list[dict[str, Tensor]] = []  # loss terms of each step of this epoch
        self.history: list[dict[str, float]] = []
        self.best: float | None = None  # mIoU of the best validation
        self.best_weights: dict[str, Tensor] = {}
        self.random = trainee.random
        self.error: UserError | None = None
        self.checkpoints = trainee.checkpoints
        state = self.checkpoints.load()
        self.meter = Meter(fabric.device, before=state["seconds"] if state else 0)
        if state:
            self.load_state_dict(state)
        elif processes.rank() > 0:  # Each part of a batch needs other dropout masks.
            with self.own_random():
                torch.manual_seed(torch.initial_seed() + processes.rank())
        self.saved = time.monotonic()

    @property
    def done(self) -> int:
        """Number of steps that are done."""
        return self.epoch * self.steps_per_epoch + len(self.terms)

    @property
    def trains(self) -> bool:
        """Whether there are epochs left and no error has ended the training."""
        return self.error is None and self.epoch < self.config.epochs

    @contextmanager
    def own_random(self) -> Iterator[None]:
        """Use the random states of this training inside the `with` block, and keep them for the next one."""
        set_random_state(self.random)
        yield
        self.random = random_state()

    def show_on(self, bar: Bar) -> None:
        self.bar, self.task = bar, bar.add(self.title, steps=self.steps, done=self.done)
        self.bar.note(self.task, self.described(self.epoch + 1))

    def described(self, epoch: int) -> str:
        """The progress line, with the terms of the last complete epoch."""
        row = self.history[-1] if self.history else None
        terms = row and {name: row[name] for name in row if name not in ("epoch", "lr", "miou")}
        return described(epoch, self.config.epochs, terms, self.best)

    def step(self, images: Tensor, target: Tensor) -> None:
        """Run forward and backward pass, and update the weights if it is time."""
        number, together = len(self.terms), self.config.accumulate
        if number % together == 0:
            self.optimizer.zero_grad()  # Before the forward pass, to free memory for its activations.
        with self.own_random():
            terms = self.wrapped(images, target, self.done / self.steps)
        loss = sum(terms.values())
        if together > 1:
            # The last update of an epoch may have fewer steps.
            loss = loss / min(together, self.steps_per_epoch - number // together * together)
        self.fabric.backward(loss)
        waiting = number % together + 1
        if waiting == together or number + 1 == self.steps_per_epoch:
            self.update(waiting)
        self.terms.append({name: term.detach() for name, term in terms.items()})
        self.meter.count(len(target) * processes.count())
        if len(self.terms) == 1 and self.epoch:
            self.bar.note(self.task, self.described(self.epoch + 1))
        self.bar.advance(self.task)

    def update(self, steps: int) -> None:
        """Update the weights with the gradients of the last `steps` steps, then the learning rate."""
        if self.config.clip_norm:
            self.fabric.clip_gradients(
                self.wrapped, self.optimizer, max_norm=self.config.clip_norm, error_if_nonfinite=False
            )
        self.optimizer.step()
        for _ in range(steps):
            self.schedule.step()
        if self.average is not None:
            self.average.update()

    def end_epoch(self, validation: Any) -> None:
        """Read the epoch's terms, log, validate and save if it is time. A UserError is stored in `error`."""
        try:
            self._end_epoch(validation)
        except UserError as error:
            self.error = error

    def _end_epoch(self, validation: Any) -> None:
        curves = self.read()
        first = self.done - len(self.terms) + 1
        self.epoch, self.terms = self.epoch + 1, []
        if self.alone:
            self.log.metrics(self.meter.epoch(), self.epoch)
        for step, values in enumerate(curves.to_dict("records"), start=first):
            self.log.metrics({f"step/{name}": value for name, value in values.items()}, step)
        row = {str(name): float(value) for name, value in curves.mean().items()}
        row["lr"] = self.optimizer.param_groups[0]["lr"]
        last = self.epoch == self.config.epochs
        if self.epoch % self.config.validate_every == 0 or last:
            self.bar.note(self.task, f"epoch {self.epoch}/{self.config.epochs} · validating")
            with self.average.in_place() if self.average else nullcontext():
                row["miou"] = validate(self.objective.model, validation, self.classes, self.fabric)
                if self.best is None or row["miou"] > self.best:
                    self.best, self.best_weights = row["miou"], deepcopy(self.objective.state_dict())
        self.log.metrics({f"epoch/{name}": value for name, value in row.items()}, self.epoch)
        self.history.append({"epoch": self.epoch, **row})
        self.bar.end_epoch(self.task, self.described(self.epoch), self.epoch, self.config.epochs)
        if last and self.alone:
            self.log.metrics({"speed/training_seconds": self.meter.seconds}, self.epoch)
        self.save_if_due()

    def finish(self) -> pd.DataFrame:
        """Give the network the weights of its best validation; return the history."""
        self.objective.load_state_dict(self.best_weights)
        return pd.DataFrame(self.history)

    def read(self) -> pd.DataFrame:
        """The terms of this epoch's steps and their sum, a row per step; only here they leave the device.

        Raises:
            UserError: a term is not finite.
        """
        names = list(self.terms[0])
        terms = [torch.stack([step[name].float() for name in names]) for step in self.terms]
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

    def save_if_due(self) -> None:
        """Write a checkpoint if the last one is old; not after the last epoch, when the model is saved."""
        elapsed = time.monotonic() - self.saved
        due = self.epoch < self.config.epochs and elapsed >= machine.settings().checkpoint_seconds
        if any(processes.everyones(due)):
            self.save()

    def save(self) -> None:
        """Write a checkpoint.

        Raises:
            UserError: it cannot be written, or a term of this epoch is not finite.
        """
        if self.terms:
            self.read()  # Raises if a term is not finite: such a state must not be saved.
        self.log.flush()  # Before saving: a resumed training does not log earlier steps again.
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
            "terms": self.terms,
            "history": self.history,
            "best": self.best,
            "best_weights": self.best_weights,
            "seconds": self.meter.seconds,
            "random": processes.everyones(self.random),
            "average": self.average.state_dict() if self.average else None,
            "gradients": self.gradients(),
        }

    def gradients(self) -> list[Tensor | None]:
        """The gradients of an unfinished `accumulate`; empty if there are none."""
        waiting = len(self.terms) % self.config.accumulate
        return [parameter.grad for parameter in self.objective.parameters()] if waiting else []

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        for parameter, gradient in zip(self.objective.parameters(), state["gradients"], strict=False):
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        # A checkpoint is read on the CPU, but the terms of the next steps are on the device.
        self.terms = self.fabric.to_device(state["terms"])
        for name in ("epoch", "history", "best", "best_weights"):
            setattr(self, name, state[name])
        states = state["random"]
        self.random = states[processes.rank() % len(states)]


def validate(model: Network, loader: Any, classes: int, fabric: Fabric) -> float:
    """mIoU of a network on the batches of a split, in the precision of its training."""
    processes.share_buffers(model)
    with fabric.autocast():
        matrices = inference.confusion(model, loader, classes, device=fabric.device)
    return scores(processes.total(matrices.sum(0)))["miou"]
