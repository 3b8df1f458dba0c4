"""Timings of the loader, the training loop and the evaluation, on real data."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from attnfd.bench import timing
from attnfd.bench.rows import Row, to_rows
from attnfd.bench.steps import (
    OURS,
    Setting,
    layout,
    make_objective,
    serving_teacher,
    stepping,
    training_step,
    wait,
)
from attnfd.config.params import load_params
from attnfd.config.schema import Training
from attnfd.data.loaders import TrainLoader, eval_loader, train_loader
from attnfd.data.prepared import Prepared, open_prepared
from attnfd.data.transforms import normalize
from attnfd.evaluation import inference
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.paths import Cell
from attnfd.runtime.fabric import start_fabric
from attnfd.tracking import runs, store
from attnfd.training.checkpoints import Checkpoints
from attnfd.training.loop import Log, fit
from attnfd.training.objective import Objective


def loader(given: Setting) -> list[Row]:
    """A batch of the loader, read, transformed and on the device, by its processes; over the bare step.

    That is what it has to keep up with. A round is an epoch; crop, batch and images are as in `loop`.
    """
    prepared, training, given = _real_data(given)
    fabric = start_fabric(training.precision)

    def epoch(batches: TrainLoader) -> Callable[[], None]:
        epochs = count()

        def run() -> None:
            batches.set_epoch(next(epochs))
            for batch in batches:
                fabric.to_device(batch)
            wait(fabric.device)

        return run

    many = [0, *(2**power for power in range((os.cpu_count() or 1).bit_length()))]
    loaders = {
        f"{workers} processes": train_loader(prepared, training, 0, device=fabric.device, workers=workers)
        for workers in many
    }
    calls = {name: epoch(batches) for name, batches in loaders.items()}
    step = training_step(given, OURS._replace(precision=training.precision))
    seconds = timing.take_turns({"bare step": step, **calls}, rounds=given.rounds, title="loader")
    for name, batches in loaders.items():
        seconds[name] = [taken / len(batches) for taken in seconds[name]]
    return to_rows("loader", seconds)


def loop(given: Setting) -> list[Row]:
    """A step of the real loop (loader, transforms, schedule, curves, log, checkpoints) over the bare step.

    They take turns, step by step; a round is an epoch. The first epoch warms up, and the last, which has a
    validation, does not count either. The crop and the batch are the recipe's, the images are those of the
    teacher's training: students may have too few to measure with. The loop logs into a run of the store that
    trainings log to, which is deleted afterwards.
    """
    prepared, training, given = _real_data(given)
    epochs = given.rounds + 2
    training = training.model_copy(update={"epochs": epochs, "validate_every": epochs})
    fabric = start_fabric(training.precision)
    steps = len(train_loader(prepared, training, 0, device=fabric.device))
    torch.manual_seed(0)
    teacher = serving_teacher(given.dataset, fabric)
    learning, apart = (make_objective(given, Objective, teacher) for _ in range(2))
    step = stepping(given, OURS._replace(precision=training.precision), fabric, apart)

    def bare() -> None:
        step()
        apart.zero_grad()  # As the loop does before its own, so that both have the memory to themselves.

    with TemporaryDirectory() as folder, _discarded_run(given) as run:
        clock, kept = _Clock(run, bare, steps, fabric.device), Checkpoints(Path(folder))
        learning.register_forward_pre_hook(clock.run_bare_step)
        fit(learning, prepared, training, seed=0, fabric=fabric, log=clock, title="loop", checkpoints=kept)
    return to_rows("loop", {"bare step": clock.bare, "step of the loop": clock.loop})


def evaluate(given: Setting) -> list[Row]:
    """An evaluation of the validation split over its forward passes alone."""
    params = load_params()
    prepared = open_prepared(params, given.dataset)
    classes = len(prepared.card.classes)
    device = start_fabric("32-true").device
    model = DeepLabV3Plus(params.student(given.student).backbone, classes).to(device).eval()
    model.to(memory_format=layout(OURS))
    loader = eval_loader(prepared, "val", params.evaluate(given.dataset).batch_size, device=device)
    images = [normalize(images.to(device)) for images, _, _ in loader]

    def forward() -> None:
        with torch.no_grad():
            for batch in images:
                model(batch)
        wait(device)

    calls: dict[str, Callable[[], object]] = {
        "forward passes": forward,
        "evaluation": lambda: inference.confusion(model, loader, classes, device=device),
    }
    return to_rows("evaluate", timing.take_turns(calls, rounds=given.rounds, title="evaluate"))


@contextmanager
def _discarded_run(given: Setting) -> Iterator[runs.Run]:
    client, experiment = store.connect("bench")
    made = client.create_run(experiment, run_name="loop").info.run_id
    cell = Cell(stage="distill", dataset=given.dataset, student=given.student, method=given.method, seed=0)
    run = runs.Run(client, made, cell, again="measure again")
    try:
        yield run
    finally:
        run.close("FINISHED")
        client.delete_run(made)


class _Clock:
    """A log that times the epochs of a loop, and runs a bare step before each of its steps."""

    def __init__(self, log: Log, bare: Callable[[], None], steps: int, device: torch.device) -> None:
        self._log, self._bare, self._steps, self._device = log, bare, steps, device
        self.loop: list[float] = []
        self.bare: list[float] = []
        self._taken = 0.0
        self._start: float | None = None

    def run_bare_step(self, *_: object) -> None:
        """Hook of the objective that the loop trains."""
        wait(self._device)  # What the loop has queued is its own.
        start = time.perf_counter()
        self._bare()
        self._taken += time.perf_counter() - start

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """`epoch/loss` is what a loop logs last of an epoch."""
        self._log.metrics(values, step)
        if "epoch/loss" not in values:
            return
        self._log.flush()  # Or the next bare step would bear a part of what the log still has to do.
        if self._start is not None and "epoch/miou" not in values:  # With it, a validation was timed too.
            whole = time.perf_counter() - self._start
            self.loop.append((whole - self._taken) / self._steps)
            self.bare.append(self._taken / self._steps)
        self._start, self._taken = time.perf_counter(), 0.0

    def flush(self) -> None:
        """Whatever waits."""
        self._log.flush()


def _real_data(given: Setting) -> tuple[Prepared, Training, Setting]:
    """The dataset, and the students' recipe on the images of the teacher's training."""
    params = load_params()
    splits = params.train_teacher(given.dataset).splits
    training = params.distill(given.dataset).model_copy(update={"splits": splits})
    given = replace(given, size=training.crop, batch=training.batch_size)
    return open_prepared(params, given.dataset), training, given
