"""Cost of a step of each method, relative to the undistilled student: `python benchmarks/methods.py`.

Methods take turns, round after round, so that a change of the machine's speed falls on all. The figure
is the median over the rounds of the ratio to `none` in the same round. Random weights and images, frozen
ResNet-101 teacher, ResNet-18 student, float32. Prints a Markdown table.
"""

import statistics
import time
from collections.abc import Callable

import torch
import typer
from rich.progress import track

from attnfd import config, discovery
from attnfd.config import Params
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.frozen import freeze
from attnfd.training import Objective

CLASSES = 21


def main(size: int = 129, batch: int = 4, rounds: int = 7, student: str = "resnet18") -> None:
    """Measure every method of params.yaml on the recipe `shapes`."""
    params = config.load()
    torch.manual_seed(0)
    teacher = _teacher(params)
    images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    target = torch.randint(CLASSES, (batch, size, size))
    steps = {
        method: _step(params, method, student, teacher, images, target)
        for method in discovery.names("distillers")
    }
    for step in steps.values():
        step()  # warm-up; fills CIRKD's memory, too
    ratios: dict[str, list[float]] = {method: [] for method in steps}
    for _ in track(range(rounds), description="Measuring"):
        seconds = {method: _seconds(step) for method, step in steps.items()}
        for method, taken in seconds.items():
            ratios[method].append(taken / seconds["none"])
    print("| method | cost per step relative to `none` |\n|---|---|")
    for method, found in ratios.items():
        print(f"| `{method}` | {statistics.median(found):.2f} |")


def _teacher(params: Params) -> DeepLabV3Plus:
    attention = params.train_teacher("shapes").attention
    live = DeepLabV3Plus("resnet101", CLASSES, attention=attention)
    with torch.no_grad():
        for _ in range(3):  # without statistics of its BN, a deep network overflows in eval mode
            live(torch.randn(2, 3, 65, 65))
    return freeze(live.eval()).to(memory_format=torch.channels_last)


def _step(
    params: Params,
    method: str,
    student: str,
    teacher: DeepLabV3Plus,
    images: torch.Tensor,
    target: torch.Tensor,
) -> Callable[[], None]:
    model = DeepLabV3Plus(params.student(student).backbone, CLASSES)
    distiller = discovery.component("distillers", method)(
        params.method(method, "shapes"), student=model.info, teacher=teacher.info
    )
    objective = Objective(model, distiller, teacher).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        objective.parameter_groups(params.distill("shapes")), momentum=0.9, fused=True
    )

    def step() -> None:
        loss = torch.stack(list(objective(images, target, 0.0).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _seconds(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


if __name__ == "__main__":
    typer.run(main)
