"""Timings of the training step, of its parts, and of the time that each shortcut saves."""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from lightning_fabric import Fabric
from rich.progress import track
from torch import Tensor, nn

from attnfd import discovery
from attnfd.bench import timing
from attnfd.bench.rows import Row, to_rows
from attnfd.bench.setting import (
    Setting,
    make_objective,
    make_objectives_beside,
    make_serving_teacher,
    make_teacher,
)
from attnfd.bench.timing import wait
from attnfd.bench.ways import GPU_VARIANTS, OURS, SHORTCUTS, VARIANTS, Released, Variant, leave_out
from attnfd.data.transforms import normalize
from attnfd.models import checkpoint
from attnfd.models.kernels import cast_weights
from attnfd.models.network import Network
from attnfd.runtime.arithmetic import TF32, allow_tf32
from attnfd.runtime.fabric import start_fabric
from attnfd.training.meter import peak_memory
from attnfd.training.objective import Objective
from attnfd.training.optimizer import make_optimizer


def time_step(given: Setting) -> list[Row]:
    """Variants of the training step, from the released code's to ours, with peak memory."""
    on_gpu = start_fabric(OURS.precision).device.type == "cuda"
    variants = VARIANTS | GPU_VARIANTS if on_gpu else VARIANTS
    calls = {name: training_step(given, variant) for name, variant in variants.items()}
    rows = to_rows("step", timing.take_turns(calls, rounds=given.rounds, title="step"))
    calls.clear()
    return [
        row._replace(
            images_per_second=1000 * given.batch / row.ms, memory_mib=_memory(given, variants[row.name])
        )
        for row in rows
    ]


def time_kernels(given: Setting) -> list[Row]:
    """Our step in float32 and bfloat16, and each without one of the shortcuts; ratios to the step with all.

    A ratio of 1.05 means that a step takes 1.05 times as long without this shortcut.
    """
    rows = []
    for precision in ("32-true", "bf16-mixed"):
        variant = OURS._replace(precision=precision)
        calls = {precision: training_step(given, variant)}
        calls |= {
            f"{precision} without {kind.__name__}": training_step(given, variant, without=(kind,))
            for kind in SHORTCUTS
        }
        if precision != "32-true":
            calls[f"{precision} without cast_weights"] = training_step(given, variant, cast=False)
        rows += to_rows("kernels", timing.take_turns(calls, rounds=given.rounds, title=precision))
    return rows


def time_parts(given: Setting) -> list[Row]:
    """The parts of our step; ratios to the whole step."""
    run = _parts_of_a_step(given)
    parts: dict[str, list[float]] = {}
    for number in track(range(timing.WARM_UP + given.rounds), "split"):
        taken = run()
        if number >= timing.WARM_UP:
            for name, seconds in {"whole step": sum(taken.values()), **taken}.items():
                parts.setdefault(name, []).append(seconds)
    return to_rows("split", parts)


def time_methods(given: Setting) -> list[Row]:
    """The step of every method, relative to a step without distillation."""
    names = sorted(discovery.names("distillers"), key=lambda name: (name != "none", name))
    teacher = make_teacher(given, frozen=True)
    calls = {name: training_step(given.by(name), OURS, teacher=teacher) for name in names}
    return to_rows("methods", timing.take_turns(calls, rounds=given.rounds, title="methods"))


def time_teacher(given: Setting) -> list[Row]:
    """The step of the teacher's own training, relative to a student's step without distillation."""
    learning = Objective(make_teacher(given, frozen=False), labels=given.labels(given.teacher)).train()
    calls = {
        "none": training_step(given.by("none"), OURS),
        "teacher": stepping(given, OURS, start_fabric(OURS.precision), learning),
    }
    return to_rows("teacher", timing.take_turns(calls, rounds=given.rounds, title="teacher"))


def time_sharing(given: Setting) -> list[Row]:
    """A step of one student per method with a teacher: each with its own teacher, or all with one teacher.

    `attnfd sweep --students-per-teacher` does the latter.
    """
    fabric = start_fabric(OURS.precision)
    teacher = make_serving_teacher(given, fabric)
    names = [name for name in discovery.names("distillers") if name != "none"]
    apart = [make_objective(given.by(name), teacher) for name in names]
    beside = make_objectives_beside(teacher, apart)
    pixels, target = fabric.to_device(given.noise())

    def steps(objectives: Sequence[Objective]) -> Callable[[], None]:
        students = [_update(given, OURS, fabric, objective) for objective in objectives]

        def run() -> None:
            images = normalize(pixels)
            for update in students:
                update(images, target)
            wait(fabric.device)

        return run

    calls = {f"{len(names)} students, a teacher each": steps(apart), "one teacher for all": steps(beside)}
    return to_rows("sharing", timing.take_turns(calls, rounds=given.rounds, title="sharing"))


def training_step(
    given: Setting,
    variant: Variant,
    *,
    teacher: Network | None = None,
    without: Sequence[type[nn.Module]] = (),
    cast: bool = True,
) -> Callable[[], None]:
    """A training step: forward passes, loss, backward pass, update.

    Args:
        teacher: the teacher; None: a teacher with random weights.
        without: shortcuts to leave out; the released step uses none.
        cast: whether a frozen teacher's weights are cast once, see `cast_weights`.
    """
    fabric = start_fabric(variant.precision)
    teacher = teacher or make_teacher(given, frozen=variant.frozen)
    teacher.to(fabric.device).to(memory_format=variant.layout)
    if variant.frozen and cast:
        cast_weights(teacher, fabric)
    objective = make_objective(given, teacher, Released if variant.released else Objective)
    for network in (objective, teacher):
        leave_out(tuple(SHORTCUTS) if variant.released else without, network)
    return stepping(given, variant, fabric, objective)


def stepping(given: Setting, variant: Variant, fabric: Fabric, objective: Objective) -> Callable[[], None]:
    """The step of an objective on a batch of noise."""
    update = _update(given, variant, fabric, objective)
    images, target = fabric.to_device(given.noise())

    def run() -> None:
        update(normalize(images), target)
        wait(fabric.device)

    return run


def _update(
    given: Setting, variant: Variant, fabric: Fabric, objective: Objective
) -> Callable[[Tensor, Tensor], None]:
    """The update of a training with a batch that is on the device."""
    objective.to(memory_format=variant.layout)
    if variant.compiled:
        objective.compile()
    optimizer = make_optimizer(objective, given.training, fused=not variant.released)
    wrapped, optimizing = fabric.setup(objective, optimizer)

    def update(images: Tensor, target: Tensor) -> None:
        allow_tf32(variant.precision == TF32)  # Variants alternate, and share this global setting.
        optimizing.zero_grad()
        terms = wrapped(images, target, 0.0)
        fabric.backward(sum(terms.values()))
        optimizing.step()

    return update


def _parts_of_a_step(given: Setting) -> Callable[[], dict[str, float]]:
    fabric = start_fabric("32-true")
    objective = make_objective(given, make_serving_teacher(given, fabric))
    objective.to(fabric.device).to(memory_format=OURS.layout)
    optimizer = make_optimizer(objective, given.training)
    pixels, target = fabric.to_device(given.noise())
    images = normalize(pixels)
    distiller = objective.distiller
    assert distiller is not None

    def run() -> dict[str, float]:
        marks = [time.perf_counter()]

        def mark() -> None:
            wait(fabric.device)
            marks.append(time.perf_counter())

        taught = objective.teach(images)
        mark()
        student = objective.model(images, taps=distiller.student_taps)
        mark()
        loss = sum(objective.terms(student, taught, target, 0.0).values())
        mark()
        optimizer.zero_grad()
        assert isinstance(loss, Tensor)
        loss.backward()
        mark()
        optimizer.step()
        mark()
        names = ("teacher", "student", "loss", "backward", "optimiser")
        return {name: end - start for name, (start, end) in zip(names, pairwise(marks), strict=True)}

    return run


def _memory(given: Setting, variant: Variant) -> float:
    """Peak memory in MiB of a separate process that runs some steps; on a GPU, of the device.

    The process reads its teacher from a file, as a stage does: making a teacher needs more memory.
    """
    with TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(1) as pool:
        checkpoint.save(Path(folder), make_teacher(given, frozen=variant.frozen), {})
        return pool.apply(_steps_and_peak, (given, variant, Path(folder)))


def _steps_and_peak(given: Setting, variant: Variant, saved: Path) -> float:
    teacher, _ = checkpoint.load(saved)
    run = training_step(given, variant, teacher=teacher.train(not variant.frozen))
    for _ in range(timing.WARM_UP):
        run()
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # `ru_maxrss` would include the memory of the parent when it started this process.
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 2**10
    return peak_memory() / 2**20
