"""The training loop of teacher and students."""

from collections.abc import Sequence

import pandas as pd
from lightning_fabric import Fabric

from attnfd.config.schema import Training
from attnfd.data.loaders import eval_loader, train_loader
from attnfd.data.prepared import Prepared
from attnfd.data.transforms import normalize
from attnfd.errors import UserError
from attnfd.runtime import processes
from attnfd.training.interrupts import Interrupt, interruptible
from attnfd.training.progress import Bar
from attnfd.training.state import Trainee, TrainState


def fit_together(
    trainees: Sequence[Trainee], prepared: Prepared, config: Training, *, seed: int, fabric: Fabric
) -> list[pd.DataFrame | UserError]:
    """Train several networks on the same batches. Each result is the same bit for bit as that of `fit`.

    At each batch, every network takes one step. Each has its own random states and number of epochs. If one
    is behind the others after an interruption, it catches up first.

    Returns:
        For each network, the result of `fit`, or the error that ended its training; the others continue.

    Raises:
        StoppedError: Ctrl-C or SIGTERM; the states are saved.
    """
    train = train_loader(prepared, config, seed, device=fabric.device)
    share = processes.rank(), processes.count()
    validation = eval_loader(prepared, "val", config.batch_size, device=fabric.device, share=share)
    classes, alone = len(prepared.card.classes), len(trainees) == 1
    states = [
        TrainState(trainee, config, fabric, classes=classes, steps_per_epoch=len(train), alone=alone)
        for trainee in trainees
    ]
    with interruptible() as interrupt, Bar(alone=alone) as bar:
        for state in states:
            state.show_on(bar)
        last = max(state.config.epochs for state in states)
        for epoch in range(min(state.epoch for state in states), last):
            active = [state for state in states if state.epoch == epoch and state.trains]
            if not active:
                continue
            first = min(len(state.terms) for state in active)
            train.set_epoch(epoch, first)
            for state in active:
                state.meter.start_epoch()
            for number, batch in enumerate(train, start=first):
                images, target = fabric.to_device(batch)
                images, target = normalize(images), target.long()
                for state in active:
                    if len(state.terms) == number:
                        state.step(images, target)
                done = epoch * len(train) + number + 1
                interrupt.agree(done)
                _stop_if_asked(interrupt, states, f"step {done} of {last * len(train)}")
            for state in active:
                state.end_epoch(validation)
            interrupt.agree()
            _stop_if_asked(interrupt, states, f"epoch {epoch + 1} of {last}")
    return [state.error or state.finish() for state in states]


def fit(trainee: Trainee, prepared: Prepared, config: Training, *, seed: int, fabric: Fabric) -> pd.DataFrame:
    """Train a network. Afterwards it has the weights of its best validation.

    Resumes from the trainee's newest checkpoint, and writes new checkpoints.

    Returns:
        A row per epoch: means of `loss` and of each term, the backbone's `lr` at the end of the epoch, and
        `miou` if there was a validation.

    Raises:
        UserError: the loss is no longer finite; the message names epoch, step and term.
        StoppedError: Ctrl-C or SIGTERM; the state is saved.
    """
    (outcome,) = fit_together([trainee], prepared, config, seed=seed, fabric=fabric)
    if isinstance(outcome, UserError):
        raise outcome
    return outcome


def _stop_if_asked(interrupt: Interrupt, states: Sequence[TrainState], where: str) -> None:
    if not interrupt.agreed:
        return
    for state in states:
        if not state.error:
            state.save()
    interrupt.raise_if_asked(where)
