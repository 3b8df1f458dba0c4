"""What a training costs on this machine: the step, its parts, every method, loader, loop, evaluation.

Networks have random weights, and images of the step are noise: its cost does not depend on what it learns.
A ratio is the median of the ratios within a round, see `attnfd.timing`.
"""

import json
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import count, groupby, pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from types import MethodType
from typing import NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from attnfd import config, discovery, evaluation, timing
from attnfd.accelerator import settle_weights, start_fabric
from attnfd.config import Training
from attnfd.data.loaders import TrainLoader, eval_loader, train_loader
from attnfd.data.prepared import Prepared, open_prepared
from attnfd.data.transforms import normalize
from attnfd.models import checkpoint
from attnfd.models.backbones import ReLU6
from attnfd.models.deeplab import AtrousConv, DeepLabV3Plus, Dropout, JoiningConv
from attnfd.models.frozen import freeze
from attnfd.models.taps import Output
from attnfd.paths import Cell
from attnfd.resume import Checkpoints
from attnfd.tracking import runs, store
from attnfd.training import Log, Objective, SharedTeacher, fit

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


class Row(NamedTuple):
    """One thing that was timed: median, 10th and 90th percentile over the rounds.

    `ratio`: to the part's first row. `memory_mib`: the most that a process held which ran nothing else.
    """

    part: str
    name: str
    ms: float
    ms_p10: float
    ms_p90: float
    ratio: float
    images_per_second: float | None = None
    memory_mib: float | None = None


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


def bench(setting: Setting, parts: Sequence[str], *, numbers: Path | None, plot: Path | None) -> None:
    """Measure, show tables, and keep the numbers as a run of the experiment `bench`.

    Raises:
        UserError: a part, or something that `setting` names, does not exist, or the dataset is not prepared.
    """
    for part in parts:
        discovery.one_of(part, tuple(PARTS), "PART")
    with store.errors():
        client, experiment = store.connect("bench")
    console = Console()
    rows: list[Row] = []
    for part in parts:
        found = PARTS[part](setting)
        console.print(table(found))
        rows += found
    content = {
        "machine": timing.machine(),
        "setting": asdict(setting),
        "rows": [row._asdict() for row in rows],
    }
    console.print(f"{setting}\n{content['machine']}", highlight=False, markup=False)
    from attnfd.report import bars, style  # Late, or matplotlib would count among what a step holds.

    parted = {part: list(group) for part, group in groupby(rows, key=lambda row: row.part)}
    figure = bars.ratios({part: {row.name: row.ratio for row in group} for part, group in parted.items()})
    for file in filter(None, (numbers, plot)):
        file.parent.mkdir(parents=True, exist_ok=True)
    if numbers is not None:
        numbers.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if plot is not None:
        style.save(figure, plot)
    with store.errors(), TemporaryDirectory() as folder:
        style.save(figure, Path(folder, "bench.png"))
        tags = {"stage": "bench", **store.origin()}
        run = client.create_run(experiment, tags=tags, run_name=f"{setting.student}-{setting.method}")
        client.log_dict(run.info.run_id, content, "bench.json")
        client.log_artifacts(run.info.run_id, folder)
        for key, value in {**asdict(setting), **timing.machine()}.items():
            client.log_param(run.info.run_id, key, value)
        for row in rows:
            client.log_metric(run.info.run_id, f"{row.part}/{_metric(row.name)}", row.ms)
        client.set_terminated(run.info.run_id)


def setting(
    dataset: str, student: str, method: str, size: tuple[int, int] | None, batch: int | None, rounds: int
) -> Setting:
    """The recipe's crop and batch where none is given.

    Raises:
        UserError: there is no such dataset, student or method.
    """
    params = config.load()
    training = params.distill(dataset)
    params.student(student)
    params.method(method, dataset)
    return Setting(dataset, student, method, size or training.crop, batch or training.batch_size, rounds)


def step(given: Setting) -> list[Row]:
    """The training step from the released code's arithmetic to ours, with peak memory."""
    on_gpu = start_fabric(OURS.precision).device.type == "cuda"
    variants = VARIANTS | GPU_VARIANTS if on_gpu else VARIANTS
    calls = {name: training_step(given, variant) for name, variant in variants.items()}
    rows = _rows("step", timing.take_turns(calls, rounds=given.rounds, title="step"))
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
    return _rows("split", parts)


def methods(given: Setting) -> list[Row]:
    """The step of every method, relative to the undistilled student's."""
    names = sorted(discovery.names("distillers"), key=lambda name: (name != "none", name))
    teacher = _teacher(given.dataset, frozen=True)
    calls = {name: training_step(replace(given, method=name), OURS, teacher) for name in names}
    return _rows("methods", timing.take_turns(calls, rounds=given.rounds, title="methods"))


def teacher(given: Setting) -> list[Row]:
    """The step of the teacher's own training, relative to the undistilled student's."""
    learning = Objective(_teacher(given.dataset, frozen=False)).train()
    calls = {
        "none": training_step(replace(given, method="none"), OURS),
        "teacher": _stepping(given, OURS, start_fabric(OURS.precision), learning),
    }
    return _rows("teacher", timing.take_turns(calls, rounds=given.rounds, title="teacher"))


def sharing(given: Setting) -> list[Row]:
    """A step of a student of every method that reads the teacher, each beside its own or all beside one.

    The latter is what `attnfd sweep --students-per-teacher` does.
    """
    fabric = start_fabric(OURS.precision)
    teacher = _serving_teacher(given.dataset, fabric)
    names = [name for name in discovery.names("distillers") if name != "none"]
    apart = [_objective(replace(given, method=name), Objective, teacher) for name in names]
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
            _wait(fabric.device)

        return run

    calls = {f"{len(names)} students, a teacher each": steps(apart), "one teacher for all": steps(beside)}
    return _rows("sharing", timing.take_turns(calls, rounds=given.rounds, title="sharing"))


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
            _wait(fabric.device)

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
    return _rows("loader", seconds)


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
    teacher = _serving_teacher(given.dataset, fabric)
    learning, apart = (_objective(given, Objective, teacher) for _ in range(2))
    step = _stepping(given, OURS._replace(precision=training.precision), fabric, apart)

    def bare() -> None:
        step()
        apart.zero_grad()  # As the loop does before its own, so that both have the memory to themselves.

    with TemporaryDirectory() as folder, _discarded_run(given) as run:
        clock, kept = _Clock(run, bare, steps, fabric.device), Checkpoints(Path(folder))
        learning.register_forward_pre_hook(clock.run_bare_step)
        fit(learning, prepared, training, seed=0, fabric=fabric, log=clock, title="loop", checkpoints=kept)
    return _rows("loop", {"bare step": clock.bare, "step of the loop": clock.loop})


def evaluate(given: Setting) -> list[Row]:
    """An evaluation of the validation split over its forward passes alone."""
    params = config.load()
    prepared = open_prepared(params, given.dataset)
    classes = len(prepared.card.classes)
    device = start_fabric("32-true").device
    model = DeepLabV3Plus(params.student(given.student).backbone, classes).to(device).eval()
    model.to(memory_format=_layout(OURS))
    loader = eval_loader(prepared, "val", params.evaluate(given.dataset).batch_size, device=device)
    images = [normalize(images.to(device)) for images, _, _ in loader]

    def forward() -> None:
        with torch.no_grad():
            for batch in images:
                model(batch)
        _wait(device)

    calls: dict[str, Callable[[], object]] = {
        "forward passes": forward,
        "evaluation": lambda: evaluation.confusion(model, loader, classes, device=device),
    }
    return _rows("evaluate", timing.take_turns(calls, rounds=given.rounds, title="evaluate"))


PARTS: Mapping[str, Callable[[Setting], list[Row]]] = {
    "step": step,
    "split": split,
    "methods": methods,
    "teacher": teacher,
    "sharing": sharing,
    "loader": loader,
    "loop": loop,
    "evaluate": evaluate,
}


def training_step(
    given: Setting, variant: Variant, teacher: DeepLabV3Plus | None = None
) -> Callable[[], None]:
    """A step of a training that has begun: forward passes, loss, backward pass, update.

    `teacher`: with this one; unset: with one of random weights.
    """
    fabric = start_fabric(variant.precision)
    teacher = teacher or _teacher(given.dataset, frozen=variant.frozen)
    teacher.to(fabric.device).to(memory_format=_layout(variant))
    if variant.frozen:
        settle_weights(teacher, fabric)
    objective = _objective(given, Released if variant.released else Objective, teacher)
    if variant.released:
        for network in (objective, teacher):
            _without_shortcuts(network)
    return _stepping(given, variant, fabric, objective)


def _without_shortcuts(network: nn.Module) -> None:
    for module in network.modules():
        if long_way := SHORTCUTS.get(type(module)):
            module.forward = MethodType(long_way, module)


def _stepping(given: Setting, variant: Variant, fabric: Fabric, objective: Objective) -> Callable[[], None]:
    update = _update(given, variant, fabric, objective)
    images, target = fabric.to_device(_noise(given))

    def run() -> None:
        update(normalize(images), target)
        _wait(fabric.device)

    return run


def _update(
    given: Setting, variant: Variant, fabric: Fabric, objective: Objective
) -> Callable[[Tensor, Tensor], None]:
    """What a training does with a batch on the device."""
    objective.to(memory_format=_layout(variant))
    if variant.compiled:
        objective.compile()
    optimizer = torch.optim.SGD(
        objective.parameter_groups(config.load().distill(given.dataset)),
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


def _layout(variant: Variant) -> torch.memory_format:
    return torch.channels_last if variant.channels_last else torch.contiguous_format


def _parts_of_a_step(given: Setting) -> Callable[[], dict[str, float]]:
    fabric = start_fabric("32-true")
    objective = _objective(given, Objective, _serving_teacher(given.dataset, fabric))
    objective.to(fabric.device).to(memory_format=_layout(OURS))
    optimizer = torch.optim.SGD(
        objective.parameter_groups(config.load().distill(given.dataset)), momentum=0.9, fused=True
    )
    pixels, target = fabric.to_device(_noise(given))
    images = normalize(pixels)
    distiller = objective.distiller
    assert distiller is not None

    def run() -> dict[str, float]:
        marks = [time.perf_counter()]

        def mark() -> None:
            _wait(fabric.device)
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
        _wait(self._device)  # What the loop has queued is its own.
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


def _objective(given: Setting, kind: type[Objective], teacher: DeepLabV3Plus) -> Objective:
    params = config.load()
    student = DeepLabV3Plus(params.student(given.student).backbone, CLASSES)
    distiller = discovery.component("distillers", given.method)(
        params.method(given.method, given.dataset), student=student.info, teacher=teacher.info
    )
    return kind(student, distiller, teacher).train()


def _teacher(dataset: str, *, frozen: bool) -> DeepLabV3Plus:
    given = config.load().train_teacher(dataset)
    teacher = DeepLabV3Plus(given.backbone, CLASSES, attention=given.attention)
    with torch.no_grad():
        for _ in range(3):  # without statistics of its BN, a deep network overflows in eval mode
            teacher(torch.randn(2, 3, 65, 65))
    return freeze(teacher.eval()) if frozen else teacher


def _serving_teacher(dataset: str, fabric: Fabric) -> DeepLabV3Plus:
    """A frozen teacher as a training has it."""
    teacher = _teacher(dataset, frozen=True).to(fabric.device).to(memory_format=_layout(OURS))
    settle_weights(teacher, fabric)
    return teacher


def _real_data(given: Setting) -> tuple[Prepared, Training, Setting]:
    """The dataset, and the students' recipe on the images of the teacher's training."""
    params = config.load()
    splits = params.train_teacher(given.dataset).splits
    training = params.distill(given.dataset).model_copy(update={"splits": splits})
    given = replace(given, size=training.crop, batch=training.batch_size)
    return open_prepared(params, given.dataset), training, given


def _noise(given: Setting) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (given.batch, *given.size)
    images = torch.randint(256, (given.batch, 3, *given.size), dtype=torch.uint8, generator=generator)
    return images, torch.randint(CLASSES, shape, generator=generator)


def _wait(device: torch.device) -> None:
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


def _rows(part: str, seconds: Mapping[str, Sequence[float]]) -> list[Row]:
    """Rows of a part; the first is what the others are compared with.

    Example:
        >>> [(row.name, row.ms, row.ratio) for row in _rows("", {"a": [1, 2, 4], "b": [3, 4, 4]})]
        [('a', 2000.0, 1.0), ('b', 4000.0, 2.0)]
    """
    first = next(iter(seconds.values()))
    rows = []
    for name, taken in seconds.items():
        p10, p90 = (1000 * float(value) for value in np.percentile(taken, [10, 90]))
        ratio = median(own / other for own, other in zip(taken, first, strict=True))
        rows.append(Row(part, name, 1000.0 * median(taken), p10, p90, ratio))
    return rows


def table(rows: Sequence[Row]) -> Table:
    """The rows of a part for the terminal."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column(rows[0].part, no_wrap=True)
    for column in ("ms", "p10–p90", "ratio", "images/s", "peak MiB"):
        shown.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        speed = "" if row.images_per_second is None else f"{row.images_per_second:.1f}"
        memory = "" if row.memory_mib is None else f"{row.memory_mib:.0f}"
        spread = f"{row.ms_p10:.1f}–{row.ms_p90:.1f}"
        shown.add_row(row.name, f"{row.ms:.1f}", spread, f"{row.ratio:.2f}", speed, memory)
    return shown


def _metric(name: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in name)
