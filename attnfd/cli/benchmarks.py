"""The commands that measure."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from attnfd.cli import completion
from attnfd.cli.app import app
from attnfd.cli.messages import plain, say
from attnfd.cli.options import Dataset, MethodName, Student
from attnfd.errors import UserError

benchmark = typer.Typer(help="Measure what models and trainings cost on this machine.", no_args_is_help=True)
app.add_typer(benchmark, name="benchmark", rich_help_panel="Measure")


@benchmark.command(
    "models",
    epilog="Example: attnfd benchmark models shapes/teacher shapes/resnet18/attnfd/0 --size 256 256 "
    "--plot cost.png",
)
def benchmark_models(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Models, named as in `attnfd predict`; ratios are relative to the first one.",
            autocompletion=completion.models,
        ),
    ],
    size: Annotated[tuple[int, int], typer.Option(min=17, help="Height and width in pixels.")] = (512, 512),
    batch: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="How often each model is timed.")] = 30,
    json: Annotated[Path | None, typer.Option(help="Write the numbers to this JSON file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write mIoU over latency to this PNG file.")] = None,
) -> None:
    """Compare trained models on this machine: parameters, multiply-adds, latency, images per second, mIoU.

    If MLflow is installed, it gets the numbers and the plot, too, as a run of the first model's dataset.
    """
    from importlib.util import find_spec

    from attnfd.deploy.benchmark import benchmark as run
    from attnfd.deploy.source import open_model

    opened = [open_model(model) for model in models]
    content, figure = run(opened, size=size, batch=batch, rounds=rounds, numbers=json, plot=plot)
    if find_spec("mlflow") is None:
        return
    from attnfd.tracking import summary

    try:
        summary.log_benchmark(opened[0].legend.dataset, content, figure)
    except UserError as error:
        say(f"[bold yellow]warning:[/] not logged: {plain(error)}")


@benchmark.command(
    "training",
    epilog="Example: attnfd benchmark training step --student mobilenetv2 --size 257 257 --batch 2",
)
def benchmark_training(
    parts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PART]...",
            help="step, kernels, split, methods, teacher, sharing, loader, loop, evaluate; unset: all. "
            "The last three need a prepared dataset: `dvc repro prepare`.",
            show_default=False,
        ),
    ] = None,
    dataset: Dataset = "shapes",
    student: Student = "resnet18",
    method: MethodName = "attnfd",
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(min=17, help="Height and width of a crop; unset: as in the recipe.", show_default=False),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=2, help="Images per step; unset: as in the recipe.", show_default=False)
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each measurement is repeated.")] = 10,
    json: Annotated[Path | None, typer.Option(help="Write the numbers to this JSON file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the ratios to this PNG file.")] = None,
) -> None:
    """Measure what a training costs here: steps, their parts, data loading, the loop and the evaluation."""
    from attnfd.bench.run import PARTS
    from attnfd.bench.run import bench as run
    from attnfd.bench.setting import Setting

    given = Setting.load(dataset, student, method, size, batch, rounds)
    run(given, parts or list(PARTS), numbers=json, plot=plot)


@benchmark.command(
    "gpu",
    epilog="Example: attnfd benchmark gpu\n\nWith few packages besides PyTorch: python -m attnfd.bench.gpu",
)
def benchmark_gpu(
    parts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PART]...", help="steps, shortcuts, cells, loop; unset: all.", show_default=False
        ),
    ] = None,
    rehearse: Annotated[bool, typer.Option("--rehearse", help="Run tiny steps; a CPU is enough.")] = False,
    json: Annotated[Path, typer.Option(help="Write the numbers to this JSON file.")] = Path("gpu.json"),
    markdown: Annotated[Path, typer.Option(help="Write the tables to this Markdown file.")] = Path("gpu.md"),
) -> None:
    """Measure on a GPU: a step in every precision, its shortcuts, the loop, and cells that share the GPU."""
    from attnfd.bench.gpu import PARTS, gpu
    from attnfd.discovery import one_of

    for part in parts or ():
        one_of(part, tuple(PARTS), "PART")
    tables = gpu(rehearse=rehearse, json_file=json, markdown=markdown, parts=parts or tuple(PARTS))
    Console(soft_wrap=True, highlight=False).print(tables, markup=False)


@benchmark.command("startup", epilog="Example: attnfd benchmark startup --rounds 5")
def benchmark_startup(
    rounds: Annotated[int, typer.Option(min=1, help="How often each measurement is repeated.")] = 3,
    json: Annotated[Path | None, typer.Option(help="Write the numbers to this JSON file.")] = None,
) -> None:
    """Measure the fixed cost of every stage. Run the pipeline of a small project first, then this command."""
    from attnfd.bench.startup import startup
    from attnfd.cli import opening
    from attnfd.config.params import load_params

    cells = dict(opening.graph(load_params()))  # The last cell of each stage.
    startup(cells, rounds, Console(), record=json)
