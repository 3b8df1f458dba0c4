"""Timings of the training step, and of its parts."""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MethodType
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from rich.progress import track
from torch import Tensor, nn

from attnfd import discovery
from attnfd.bench import timing
from attnfd.bench.rows import Row, to_rows
from attnfd.config.params import load_params
from attnfd.data.transforms import normalize
from attnfd.models import checkpoint
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.frozen import freeze
from attnfd.models.kernels import AtrousConv, Dropout, JoiningConv, ReLU6, settle_weights
from attnfd.models.taps import Output
from attnfd.runtime.fabric import start_fabric
from attnfd.training.objective import Objective, SharedTeacher

CLASSES = 21


@dataclass(frozen=True)
class Setting:
    """What is trained: a recipe, a student and a method, on crops (height, width) in batches."""

    dataset: str
    student: str
    method: str
    size: tuple[int, int]
    batch: int
    rounds: int


class Variant(NamedTuple):
    """A way to compute the step.

    `released`: the teacher trains along, as in the authors' code, and nothing takes a shorter way.
    `tf32`: a GPU may round what it multiplies.
    """

    released: bool
    frozen: bool
    channels_last: bool
    precision: str
    tf32: bool = False
    compiled: bool = False


OURS = Variant(False, True, True, "32-true")
VARIANTS = {
    "released code's": Variant(True, False, False, "32-true"),
    "teacher without gradient": Variant(False, False, False, "32-true"),
    "teacher frozen, BN folded": Variant(False, True, False, "32-true"),
    "channels last: 32-true": OURS,
    "bf16-mixed": OURS._replace(precision="bf16-mixed"),
}
GPU_VARIANTS = {
    "TF32": OURS._replace(tf32=True),
    "bf16-mixed, compiled": OURS._replace(precision="bf16-mixed", compiled=True),
}
"""A CPU has no TF32, and compiling does not pay there (docs/performance.md)."""


SHORTCUTS: Mapping[type, Callable[..., Tensor]] = {
    AtrousConv: nn.Conv2d.forward,
    Dropout: nn.Dropout.forward,
    JoiningConv: JoiningConv.in_turn,
    ReLU6: nn.ReLU6.forward,
}
"""Modules that take a shorter way to the same, and the long one."""


class Released(Objective):
    """The released code's step: a teacher in train mode, whose graph is kept and back-propagated through."""

    def teach(self, images: Tensor) -> Output:
        assert self.distiller is not None
        teacher = self._teacher[0]
        assert teacher is not None
        return teacher(images, taps=self.distiller.teacher_taps)


def step(given: Setting) -> list[Row]:
    """The training step from the released code's arithmetic to ours, with peak memory."""
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


def split(given: Setting) -> list[Row]:
    """The parts of our step; they are ratios of the whole."""
    run = _parts_of_a_step(given)
    parts: dict[str, list[float]] = {}
    for number in track(range(timing.WARM_UP + given.rounds), "split"):
        taken = run()
        if number >= timing.WARM_UP:
            for name, seconds in {"whole step": sum(taken.values()), **taken}.items():
                parts.setdefault(name, []).append(seconds)
    return to_rows("split", parts)


def methods(given: Setting) -> list[Row]:
    """The step of every method, relative to the undistilled student's."""
    names = sorted(discovery.names("distillers"), key=lambda name: (name != "none", name))
    teacher = _teacher(given.dataset, frozen=True)
    calls = {name: training_step(replace(given, method=name), OURS, teacher) for name in names}
    return to_rows("methods", timing.take_turns(calls, rounds=given.rounds, title="methods"))


def teacher(given: Setting) -> list[Row]:
    """The step of the teacher's own training, relative to the undistilled student's."""
    learning = Objective(_teacher(given.dataset, frozen=False)).train()
    calls = {
        "none": training_step(replace(given, method="none"), OURS),
        "teacher": stepping(given, OURS, start_fabric(OURS.precision), learning),
    }
    return to_rows("teacher", timing.take_turns(calls, rounds=given.rounds, title="teacher"))


def sharing(given: Setting) -> list[Row]:
    """A step of a student of every method that reads the teacher, each beside its own or all beside one.

    The latter is what `attnfd sweep --students-per-teacher` does.
    """
    fabric = start_fabric(OURS.precision)
    teacher = serving_teacher(given.dataset, fabric)
    names = [name for name in discovery.names("distillers") if name != "none"]
    apart = [make_objective(replace(given, method=name), Objective, teacher) for name in names]
    distillers = [objective.distiller for objective in apart if objective.distiller]
    shared = SharedTeacher(teacher, distillers)
    beside = [Objective(objective.model, objective.distiller, shared).train() for objective in apart]
    pixels, target = fabric.to_device(_noise(given))

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
    given: Setting, variant: Variant, teacher: DeepLabV3Plus | None = None
) -> Callable[[], None]:
    """A step of a training that has begun: forward passes, loss, backward pass, update.

    `teacher`: with this one; unset: with one of random weights.
    """
    fabric = start_fabric(variant.precision)
    teacher = teacher or _teacher(given.dataset, frozen=variant.frozen)
    teacher.to(fabric.device).to(memory_format=layout(variant))
    if variant.frozen:
        settle_weights(teacher, fabric)
    objective = make_objective(given, Released if variant.released else Objective, teacher)
    if variant.released:
        for network in (objective, teacher):
            _without_shortcuts(network)
    return stepping(given, variant, fabric, objective)


def _without_shortcuts(network: nn.Module) -> None:
    for module in network.modules():
        if long_way := SHORTCUTS.get(type(module)):
            module.forward = MethodType(long_way, module)


def stepping(given: Setting, variant: Variant, fabric: Fabric, objective: Objective) -> Callable[[], None]:
    update = _update(given, variant, fabric, objective)
    images, target = fabric.to_device(_noise(given))

    def run() -> None:
        update(normalize(images), target)
        wait(fabric.device)

    return run


def _update(
    given: Setting, variant: Variant, fabric: Fabric, objective: Objective
) -> Callable[[Tensor, Tensor], None]:
    """What a training does with a batch on the device."""
    objective.to(memory_format=layout(variant))
    if variant.compiled:
        objective.compile()
    optimizer = torch.optim.SGD(
        objective.parameter_groups(load_params().distill(given.dataset)),
        momentum=0.9,
        nesterov=True,
        fused=not variant.released,
    )
    wrapped, stepping = fabric.setup(objective, optimizer)

    def update(images: Tensor, target: Tensor) -> None:
        torch.backends.cudnn.allow_tf32 = variant.tf32
        torch.set_float32_matmul_precision("high" if variant.tf32 else "highest")
        stepping.zero_grad()
        terms = wrapped(images, target, 0.0)
        fabric.backward(sum(terms.values()))
        stepping.step()

    return update


def layout(variant: Variant) -> torch.memory_format:
    return torch.channels_last if variant.channels_last else torch.contiguous_format


def _parts_of_a_step(given: Setting) -> Callable[[], dict[str, float]]:
    fabric = start_fabric("32-true")
    objective = make_objective(given, Objective, serving_teacher(given.dataset, fabric))
    objective.to(fabric.device).to(memory_format=layout(OURS))
    optimizer = torch.optim.SGD(
        objective.parameter_groups(load_params().distill(given.dataset)), momentum=0.9, fused=True
    )
    pixels, target = fabric.to_device(_noise(given))
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


def make_objective(given: Setting, kind: type[Objective], teacher: DeepLabV3Plus) -> Objective:
    params = load_params()
    student = DeepLabV3Plus(params.student(given.student).backbone, CLASSES)
    distiller = discovery.component("distillers", given.method)(
        params.method(given.method, given.dataset), student=student.info, teacher=teacher.info
    )
    return kind(student, distiller, teacher).train()


def _teacher(dataset: str, *, frozen: bool) -> DeepLabV3Plus:
    given = load_params().train_teacher(dataset)
    teacher = DeepLabV3Plus(given.backbone, CLASSES, attention=given.attention)
    with torch.no_grad():
        for _ in range(3):  # without statistics of its BN, a deep network overflows in eval mode
            teacher(torch.randn(2, 3, 65, 65))
    return freeze(teacher.eval()) if frozen else teacher


def serving_teacher(dataset: str, fabric: Fabric) -> DeepLabV3Plus:
    """A frozen teacher as a training has it."""
    teacher = _teacher(dataset, frozen=True).to(fabric.device).to(memory_format=layout(OURS))
    settle_weights(teacher, fabric)
    return teacher


def _noise(given: Setting) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (given.batch, *given.size)
    images = torch.randint(256, (given.batch, 3, *given.size), dtype=torch.uint8, generator=generator)
    return images, torch.randint(CLASSES, shape, generator=generator)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _memory(given: Setting, variant: Variant) -> float:
    """Peak memory in MiB of a process of its own that takes some steps; on a GPU, of the device.

    It reads its teacher from a file, as a stage does: making one takes more than having one.
    """
    with TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(1) as pool:
        checkpoint.save(Path(folder), _teacher(given.dataset, frozen=variant.frozen), {})
        return pool.apply(_steps_and_peak, (given, variant, Path(folder)))


def _steps_and_peak(given: Setting, variant: Variant, saved: Path) -> float:
    teacher, _ = checkpoint.load(saved)
    run = training_step(given, variant, teacher.train(not variant.frozen))
    for _ in range(timing.WARM_UP):
        run()
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # `ru_maxrss` would count what the parent held when it started this process.
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
