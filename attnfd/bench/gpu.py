"""How fast a GPU trains, measured on a machine that has PyTorch and few other packages.

Run `attnfd benchmark gpu`, or `python -m attnfd.bench.gpu` if the packages of the command line are missing.
PyTorch, torchvision, NumPy, Pillow and pydantic are enough. Only the loop and its loader need more packages,
and are left out without them. Networks have random weights, and the images of the step are noise.
"""

import argparse
import gc
import json
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Self

import torch
from torch import nn

from attnfd.bench import timing
from attnfd.bench.timing import wait
from attnfd.bench.ways import CLASSES, GPU_VARIANTS, OURS, SHORTCUTS, VARIANTS, Released, Variant, leave_out
from attnfd.config.network import Attention
from attnfd.data.transforms import normalize
from attnfd.distillers.attnfd import AttnFD
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.frozen import freeze
from attnfd.models.kernels import Dropout, cast_weights
from attnfd.runtime.arithmetic import TF32, allow_tf32
from attnfd.training.objective import Objective

BF16 = OURS._replace(precision="bf16-mixed")
CELLS = 4
"""Trainings at once, as `attnfd sweep --gpus-per-job 0.25` starts them."""

WAIT = 300
"""Seconds after which a cell without an answer counts as failed."""

GOALS = {"speed": 4.0, "loop": 0.97, "cells": 0.4}
"""`speed`: time of the released code's step over that of bf16, at least. `loop`: the bare step's share of the
loop's time, at least. `cells`: time of cells at once over their time one after another, at most."""


@dataclass(frozen=True)
class Sizes:
    """Networks, crops and batch of a step; by default those of PASCAL VOC's recipe.

    `small`: side of the crops of the cells that share a GPU.
    """

    teacher: str = "resnet101"
    student: str = "resnet18"
    crop: tuple[int, int] = (513, 513)
    batch: int = 6
    small: int = 65
    rounds: int = 20

    @classmethod
    def tiny(cls) -> Self:
        """Small sizes, for a rehearsal on a CPU."""
        return cls("mobilenetv2", "mobilenetv2", (33, 33), 2, 33, 2)


@dataclass(frozen=True)
class Arithmetic:
    """A device and a precision, without Fabric."""

    device: torch.device
    precision: str

    def autocast(self) -> AbstractContextManager[Any]:
        half = self.precision == BF16.precision
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half)


def make_teacher(sizes: Sizes, *, frozen: bool) -> DeepLabV3Plus:
    """A teacher with random weights, whose BN has statistics."""
    torch.manual_seed(0)
    teacher = DeepLabV3Plus(sizes.teacher, CLASSES, attention=Attention())
    with torch.no_grad():
        for _ in range(3):
            teacher(torch.randn(2, 3, 65, 65))
    return freeze(teacher.eval()) if frozen else teacher


def training_step(
    sizes: Sizes,
    variant: Variant,
    device: torch.device,
    teacher: DeepLabV3Plus,
    without: Sequence[type[nn.Module]] = (),
) -> Callable[[], None]:
    """A step of AttnFD on a batch of noise: forward passes, loss, backward pass, update, wait for the GPU."""
    arithmetic = Arithmetic(device, variant.precision)
    teacher.to(device).to(memory_format=variant.layout)
    if variant.frozen:
        cast_weights(teacher, arithmetic)
    student = DeepLabV3Plus(sizes.student, CLASSES)
    kind = Released if variant.released else Objective
    objective = kind(student, AttnFD(student, teacher), teacher).train().to(device)
    objective.to(memory_format=variant.layout)
    for network in (objective, teacher):
        leave_out(tuple(SHORTCUTS) if variant.released else without, network)
    if variant.compiled:
        objective.compile()
    optimizer = torch.optim.SGD(
        objective.parameters(), 0.007, 0.9, weight_decay=5e-4, nesterov=True, fused=not variant.released
    )
    pixels = torch.randint(256, (sizes.batch, 3, *sizes.crop), dtype=torch.uint8).to(device)
    target = torch.randint(CLASSES, (sizes.batch, *sizes.crop)).to(device)

    def run() -> None:
        allow_tf32(variant.precision == TF32)
        optimizer.zero_grad()
        with arithmetic.autocast():
            terms = objective(normalize(pixels), target, 0.0)
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        wait(device)

    return run


def time_call(call: Callable[[], None], rounds: int, device: torch.device) -> dict[str, Any]:
    """Median, 10th and 90th percentile of a call's time in ms, and the device's peak memory."""
    for _ in range(timing.WARM_UP):
        call()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - start))
    low, middle, high = torch.tensor(taken, dtype=torch.float64).quantile(
        torch.tensor([0.1, 0.5, 0.9]).double()
    )
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return {"ms": float(middle), "ms_p10": float(low), "ms_p90": float(high), "peak_mib": peak}


def time_steps(sizes: Sizes, device: torch.device) -> list[dict[str, Any]]:
    """Every variant of the step, one after another; `speed` is relative to the released code's step."""
    ways = VARIANTS | (GPU_VARIANTS if device.type == "cuda" else {})
    rows: list[dict[str, Any]] = []
    for name, variant in ways.items():
        step = training_step(sizes, variant, device, make_teacher(sizes, frozen=variant.frozen))
        found = time_call(step, sizes.rounds, device)
        del step
        _empty(device)
        first = rows[0]["ms"] if rows else found["ms"]
        images = 1000 * sizes.batch / found["ms"]
        rows.append({"name": name, **found, "images_per_second": images, "speed": first / found["ms"]})
    return rows


def time_shortcuts(sizes: Sizes, device: torch.device) -> list[dict[str, Any]]:
    """Our bf16 step without one of the shortcuts: it takes `worth` times as long."""
    ways: dict[str, Sequence[type[nn.Module]]] = {"all": ()}
    ways |= {kind.__name__: (kind,) for kind in SHORTCUTS if kind is not Dropout or device.type == "cpu"}
    steps = {
        name: training_step(sizes, BF16, device, make_teacher(sizes, frozen=True), without)
        for name, without in ways.items()
    }
    for step in steps.values():
        for _ in range(timing.WARM_UP):
            step()
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(sizes.rounds):  # In turns: the differences are small.
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            taken[name].append(time.perf_counter() - start)
    worth = {
        name: median(own / whole for own, whole in zip(taken[name], taken["all"], strict=True))
        for name in taken
    }
    return [{"name": name, "worth": worth[name]} for name in worth if name != "all"]


def time_cells(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """The time of small trainings in processes of their own: at once, over one after another."""
    small = replace(sizes, crop=(sizes.small, sizes.small))
    context = multiprocessing.get_context("spawn")

    def seconds(count: int) -> float:
        gate, results = context.Barrier(count), context.Queue()
        given = (small, device, gate, results)
        cells = [context.Process(target=_cell, args=given, daemon=True) for _ in range(count)]
        for cell in cells:
            cell.start()
        taken = [results.get(timeout=WAIT) for _ in cells]
        for cell in cells:
            cell.join()
        return max(taken)

    alone, together = seconds(1), seconds(CELLS)
    return {"cells": CELLS, "alone_s": alone, "together_s": together, "ratio": together / (CELLS * alone)}


def _cell(sizes: Sizes, device: torch.device, gate: Any, results: Any) -> None:
    """Time steps while other cells run; all cells start together when they are ready."""
    step = training_step(sizes, BF16, device, make_teacher(sizes, frozen=True))
    for _ in range(timing.WARM_UP):
        step()
    gate.wait(WAIT)
    start = time.perf_counter()
    for _ in range(10 * sizes.rounds):
        step()
    results.put(time.perf_counter() - start)


def time_loop(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """The loader and the loop compared with the bare step, see `attnfd.bench.gpu_loop`."""
    from attnfd.bench import gpu_loop

    return gpu_loop.time_loop(sizes, device)


def _empty(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


PARTS: Mapping[str, Callable[[Sizes, torch.device], Any]] = {
    "steps": time_steps,
    "shortcuts": time_shortcuts,
    "cells": time_cells,
    "loop": time_loop,
}


def measure(sizes: Sizes, device: torch.device, parts: Sequence[str] = tuple(PARTS)) -> dict[str, Any]:
    """All numbers. If a part fails or lacks a package, the result says so, and the other parts still run."""
    content: dict[str, Any] = {"machine": timing.machine(), "device": device.type, "sizes": vars(sizes)}
    for part in parts:
        print(f"{part} …", flush=True)
        try:
            content[part] = PARTS[part](sizes, device)
        except ModuleNotFoundError as error:
            content[part] = {"left_out": f"{error.name} is not installed"}
        except Exception as error:  # One failed part must not cost the results of the others.
            content[part] = {"failed": f"{type(error).__name__}: {error}"}
        _empty(device)
    return content


def to_markdown(content: Mapping[str, Any]) -> str:
    """The tables for docs/performance.md."""
    sizes, found = content["sizes"], content["machine"]
    height, width = sizes["crop"]
    lines = [
        f"{found['gpu'] or found['processor']}, PyTorch {found['torch']}: {sizes['teacher']} teacher, "
        f"{sizes['student']} student with AttnFD, batch {sizes['batch']}, {height}×{width}, "
        f"median of {sizes['rounds']}.",
        "",
    ]
    for part in PARTS:
        if part in content:
            lines += [*_SHOWN[part](content[part]), ""] if _is_whole(content[part]) else _why(part, content)
    return "\n".join(lines)


def _is_whole(found: Any) -> bool:
    return not (isinstance(found, dict) and found.keys() & {"left_out", "failed"})


def _why(part: str, content: Mapping[str, Any]) -> list[str]:
    ((what, why),) = content[part].items()
    return [f"{part}: {what.replace('_', ' ')} ({why})", ""]


def _steps(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    def line(row: Mapping[str, Any]) -> str:
        peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        speeds = f"{row['ms']:.1f} | {row['images_per_second']:.1f} | {row['speed']:.2f}"
        return f"| {row['name']} | {speeds} | {peak} |"

    best = max((row["speed"] for row in rows if "bf16" in row["name"]), default=0.0)
    return [
        "| step | ms | images/s | speed | peak of the device, MiB |",
        "|---|--:|--:|--:|--:|",
        *map(line, rows),
        "",
        f"Goal: bf16 at {GOALS['speed']:.0f} times the speed of the released code's step or more; "
        f"found {best:.2f}.",
    ]


def _shortcuts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    losing = [row["name"] for row in rows if row["worth"] < 1]
    return [
        "| shortcut | a bf16 step without it takes … times as long |",
        "|---|--:|",
        *(f"| `{row['name']}` | {row['worth']:.2f} |" for row in rows),
        "",
        f"Slower than the plain way on this card: {', '.join(losing) or 'none'}.",
    ]


def _cells(found: Mapping[str, Any]) -> list[str]:
    return [
        f"{found['cells']} cells at once take {found['ratio']:.2f} times as long as one after another; "
        f"goal: {GOALS['cells']} or less."
    ]


def _loop(found: Mapping[str, Any]) -> list[str]:
    return [
        f"The bare step is {100 * found['bare_share']:.1f} % of a step of the loop; goal: "
        f"{100 * GOALS['loop']:.0f} % or more. A batch of the loader takes {found['loader_ms']:.1f} ms, "
        f"{100 * found['loader_share']:.0f} % of a step, with {found['workers']} processes."
    ]


_SHOWN: Mapping[str, Callable[[Any], list[str]]] = {
    "steps": _steps,
    "shortcuts": _shortcuts,
    "cells": _cells,
    "loop": _loop,
}


def gpu(*, rehearse: bool, json_file: Path, markdown: Path, parts: Sequence[str] = tuple(PARTS)) -> str:
    """Measure on the GPU, or rehearse in small sizes on any device, and write both files; returns the tables.

    Raises:
        UserError: there is no GPU, and `rehearse` is false.
    """
    from attnfd.errors import UserError

    if not rehearse and not torch.cuda.is_available():
        raise UserError("no GPU is visible; allowed: --rehearse, which runs tiny steps on the CPU")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    content = measure(Sizes.tiny() if rehearse else Sizes(), device, parts)
    tables = to_markdown(content)
    for file, text in ((json_file, json.dumps(content, indent=2) + "\n"), (markdown, tables)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return tables


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure how fast a GPU trains, without the packages of the command line."
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; unset: all")
    parser.add_argument("--rehearse", action="store_true", help="tiny steps, also on a CPU")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    parser.add_argument("--markdown", type=Path, default=Path("gpu.md"))
    given = parser.parse_args()
    run = partial(gpu, rehearse=given.rehearse, json_file=given.json, markdown=given.markdown)
    print(run(parts=given.parts or tuple(PARTS)))


if __name__ == "__main__":
    main()
