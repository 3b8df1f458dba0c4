"""Timings of the loader, the training loop and the evaluation, on real data."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from attnfd.bench import timing
from attnfd.bench.clock import Clock
from attnfd.bench.rows import Row, to_rows
from attnfd.bench.setting import Setting, make_objective, make_serving_teacher
from attnfd.bench.steps import stepping, training_step
from attnfd.bench.timing import wait
from attnfd.bench.ways import OURS
from attnfd.config.schema import Distill
from attnfd.data.loaders import TrainLoader, eval_loader, train_loader
from attnfd.data.prepared import Prepared, open_prepared
from attnfd.data.transforms import normalize
from attnfd.evaluation import inference
from attnfd.networks.base import make_network
from attnfd.runtime.fabric import start_fabric
from attnfd.tracking import runs, store
from attnfd.training.checkpoints import Checkpoints
from attnfd.training.loop import fit
from attnfd.training.randomness import random_state
from attnfd.training.state import Trainee


def time_loader(given: Setting) -> list[Row]:
    """A batch of the loader, read, transformed and copied to the device, by number of processes.

    Ratios are to the bare step, which the loader must keep up with. A round is an epoch; crop, batch and
    images are as in `time_loop`.
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


def time_loop(given: Setting) -> list[Row]:
    """A step of the real loop (loader, transforms, schedule, curves, log, checkpoints) over the bare step.

    The two alternate, step by step; a round is an epoch. The first epoch warms up and does not count. The
    last epoch has a validation and does not count either. Crop and batch are from the recipe. The images are
    those of the teacher's training, since students may have too few images to measure with. The loop logs
    into a run of the store that trainings log to; the run is deleted afterwards.
    """
    prepared, training, given = _real_data(given)
    epochs = given.rounds + 2
    training = training.model_copy(update={"epochs": epochs, "validate_every": epochs})
    fabric = start_fabric(training.precision)
    steps = len(train_loader(prepared, training, 0, device=fabric.device))
    torch.manual_seed(0)
    teacher = make_serving_teacher(given, fabric)
    learning, apart = (make_objective(given, teacher) for _ in range(2))
    step = stepping(given, OURS._replace(precision=training.precision), fabric, apart)

    def bare() -> None:
        step()
        apart.zero_grad()  # The loop frees its gradients before its step, too, so both have the same memory.

    with TemporaryDirectory() as folder, _discarded_run(given) as run:
        clock = Clock(bare, run.flush, steps, fabric.device)
        learning.register_forward_pre_hook(clock.run_bare_step)
        trainee = Trainee(learning, run, "loop", Checkpoints(Path(folder)), random_state())
        fit(trainee, prepared, training, seed=0, fabric=fabric)
    return to_rows("loop", {"bare step": clock.bare, "step of the loop": clock.loop})


def time_evaluation(given: Setting) -> list[Row]:
    """The time of an evaluation of the validation split, over that of its forward passes alone."""
    prepared = open_prepared(given.params, given.cell.dataset)
    classes = len(prepared.card.classes)
    device = start_fabric("32-true").device
    assert given.settings.student is not None
    model = make_network(given.settings.student, classes).to(device).eval()
    model.to(memory_format=OURS.layout)
    loader = eval_loader(prepared, "val", given.settings.evaluate.batch_size, device=device)
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
    client, experiment = store.connect("bench", models=False)
    made = client.create_run(experiment, run_name="loop").info.run_id
    run = runs.Run(client, made, given.cell, again="measure again")
    try:
        yield run
    finally:
        run.close("FINISHED")
        client.delete_run(made)


def _real_data(given: Setting) -> tuple[Prepared, Distill, Setting]:
    """The dataset, and the students' recipe with the images of the teacher's training."""
    training = given.training.model_copy(update={"splits": given.teacher.splits})
    given = replace(given, size=training.crop, batch=training.batch_size)
    return open_prepared(given.params, given.cell.dataset), training, given
