"""What models cost on this machine: parameters, multiply-adds and latency, beside their mIoU."""

import copy
import importlib.util
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import nn

from attnfd import paths
from attnfd.bench import timing
from attnfd.deploy import export
from attnfd.deploy.source import Model
from attnfd.errors import UserError
from attnfd.evaluation.inference import ClassMap
from attnfd.results import style
from attnfd.results.cost import count_parameters, multiply_adds
from attnfd.runtime.fabric import start_fabric

PYTORCH, ONNX_RUNTIME, OPENVINO = "PyTorch", "ONNX Runtime", "OpenVINO"
MARKERS = {PYTORCH: "o", ONNX_RUNTIME: "^", OPENVINO: "s"}
Call = Callable[[], object]


@dataclass(frozen=True)
class Cost:
    """The cost of a model in a runtime. Latencies are of a batch, from pixels to classes in host memory.

    `macs`: multiply-adds of one image in PyTorch, see `attnfd.results.cost`.
    """

    model: str
    runtime: str
    device: str
    parameters: int
    macs: int
    p50_ms: float
    p95_ms: float
    images_per_second: float
    miou: float | None


def benchmark(
    models: Sequence[Model],
    *,
    size: tuple[int, int],
    batch: int,
    rounds: int,
    numbers: Path | None,
    plot: Path | None,
) -> tuple[dict[str, Any], Figure | None]:
    """Measure models and show a table.

    Args:
        numbers: JSON file to write the numbers to.
        plot: PNG file to write the plot of mIoU over latency to.

    Returns:
        The numbers, and the plot if all models have an mIoU.

    Raises:
        UserError: `plot` is given, and a model has no mIoU.
    """
    for model in models:
        if plot is not None and model.miou is None:
            raise UserError(f"{model.name}: has no {paths.METRICS}; evaluate it, or leave out --plot")
    costs = measure(models, size=size, batch=batch, rounds=rounds)
    console = Console()
    console.print(table(costs))
    devices = ", ".join(sorted({f"{cost.runtime} on {cost.device}" for cost in costs}))
    console.print(f"batch {batch}, {size[0]}×{size[1]} pixels; {devices}", highlight=False)
    if not has_onnx_runtime():
        console.print(f"ONNX Runtime was not timed; to time it, too: {export.INSTALL}", markup=False)
    for file in filter(None, (numbers, plot)):
        file.parent.mkdir(parents=True, exist_ok=True)
    content = describe(costs, size=size, batch=batch, rounds=rounds)
    figure = None if any(cost.miou is None for cost in costs) else trade_off(costs)
    if numbers is not None:
        numbers.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if plot is not None:
        assert figure is not None
        style.save(figure, plot)
    return content, figure


def measure(models: Sequence[Model], *, size: tuple[int, int], batch: int, rounds: int) -> list[Cost]:
    """Time every model in PyTorch and, where they are installed, in ONNX Runtime and OpenVINO.

    Each round runs each of them once, so that other load on the machine affects all of them equally.

    Args:
        size: height and width of the images, which contain noise.
    """
    noise = torch.Generator().manual_seed(0)
    images = torch.randint(256, (batch, *size, 3), dtype=torch.uint8, generator=noise)
    device = start_fabric("32-true").device
    calls: dict[tuple[int, str], Call] = {}
    used: dict[tuple[int, str], str] = {}
    for place, model in enumerate(models):
        key = place, PYTORCH
        calls[key], used[key] = _pytorch(model.network, images, device)
        if has_onnx_runtime():
            key = place, ONNX_RUNTIME
            calls[key], used[key] = _onnx_runtime(model.network, images.numpy(), device)
        if has_openvino():
            key = place, OPENVINO
            calls[key], used[key] = _openvino(model.network, images.numpy())
    seconds = timing.take_turns(calls, rounds=rounds, title="Timing")
    macs = [multiply_adds(model.network, size) for model in models]
    return [
        _cost(models[place], runtime, used[place, runtime], macs[place], taken, batch)
        for (place, runtime), taken in seconds.items()
    ]


def has_onnx_runtime() -> bool:
    """Whether ONNX Runtime is installed, with all that an export to ONNX needs."""
    return all(importlib.util.find_spec(package) for package in export.PACKAGES)


def has_openvino() -> bool:
    """Whether OpenVINO is installed, with all that an export to ONNX needs."""
    return has_onnx_runtime() and importlib.util.find_spec("openvino") is not None


def _pytorch(network: nn.Module, images: torch.Tensor, device: torch.device) -> tuple[Call, str]:
    live = ClassMap(copy.deepcopy(network).to(device)).eval()

    def call() -> None:
        with torch.inference_mode():
            live(images.to(device)).cpu()  # This waits for the device.

    return call, device.type


def _onnx_runtime(network: nn.Module, images: NDArray[np.uint8], device: torch.device) -> tuple[Call, str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    providers = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, "CUDAExecutionProvider")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "model.onnx")
        export.write(network, "onnx", file)
        session = onnxruntime.InferenceSession(file, options, providers=providers)
    used = "cuda" if "CUDAExecutionProvider" in session.get_providers() else "cpu"
    return lambda: session.run(None, {"images": images}), used


def _openvino(network: nn.Module, images: NDArray[np.uint8]) -> tuple[Call, str]:
    import openvino

    # By default OpenVINO computes in bfloat16 on processors that support it; the other runtimes use float32.
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "model.onnx")
        export.write(network, "onnx", file)
        compiled = openvino.Core().compile_model(str(file), "CPU", settings)
    return lambda: compiled(images), "cpu"


def _cost(model: Model, runtime: str, device: str, macs: int, seconds: Sequence[float], batch: int) -> Cost:
    p50, p95 = np.percentile(seconds, [50, 95])
    return Cost(
        model=model.name,
        runtime=runtime,
        device=device,
        parameters=count_parameters(model.network),
        macs=macs,
        p50_ms=1000 * float(p50),
        p95_ms=1000 * float(p95),
        images_per_second=batch / float(p50),
        miou=model.miou,
    )


def table(costs: Sequence[Cost]) -> Table:
    """The costs as a table; `speed` is relative to the first model in the same runtime."""
    first = {cost.runtime: cost.p50_ms for cost in reversed(costs)}
    shown = Table(box=None, pad_edge=False)
    shown.add_column("model", overflow="fold")
    shown.add_column("runtime", no_wrap=True)
    for column in ("params", "MACs", "p50 ms", "p95 ms", "images/s", "speed", "mIoU"):
        shown.add_column(column, justify="right", no_wrap=True)
    for cost in costs:
        shown.add_row(
            cost.model,
            cost.runtime,
            f"{cost.parameters / 1e6:.1f}M",
            f"{cost.macs / 1e9:.2f}G",
            f"{cost.p50_ms:.1f}",
            f"{cost.p95_ms:.1f}",
            f"{cost.images_per_second:.1f}",
            f"{first[cost.runtime] / cost.p50_ms:.2f}×",
            "" if cost.miou is None else f"{100 * cost.miou:.2f}",
        )
    return shown


def describe(costs: Sequence[Cost], *, size: tuple[int, int], batch: int, rounds: int) -> dict[str, Any]:
    """The costs, and where and how they were measured."""
    return {
        "size": size,
        "batch": batch,
        "rounds": rounds,
        "machine": timing.machine(),
        "costs": [asdict(cost) for cost in costs],
    }


@style.styled
def trade_off(costs: Sequence[Cost]) -> Figure:
    """mIoU over the median latency: a point per model and runtime."""
    figure = Figure((6.2, 4.2))
    axes = figure.subplots()
    models = list(dict.fromkeys(cost.model for cost in costs))
    colour = style.colours(models)
    for cost in costs:
        assert cost.miou is not None
        marker = MARKERS[cost.runtime]
        axes.plot(
            cost.p50_ms,
            100 * cost.miou,
            marker,
            color=colour[cost.model],
            markersize=8,
            label=f"{cost.model}, {cost.runtime}",
        )
    axes.set(xlabel="median latency of a batch, ms", ylabel="mIoU, %", xlim=(0, None))
    axes.margins(0.12)
    axes.set_title("Quality over latency")
    figure.legend(loc="outside lower center", ncols=1)
    return figure
