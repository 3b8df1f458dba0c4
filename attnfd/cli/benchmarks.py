"""The commands that measure."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from attnfd.cli import completion
from attnfd.cli.app import app
from attnfd.cli.messages import plain, tell
from attnfd.cli.options import Dataset, MethodName, Student
from attnfd.errors import UserError

benchmark = typer.Typer(help="What models and trainings cost on this machine.", no_args_is_help=True)
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
            help="As of predict; the first is 1.00×.",
            autocompletion=completion.models,
        ),
    ],
    size: Annotated[tuple[int, int], typer.Option(min=17, help="Height and width in pixels.")] = (512, 512),
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Timings of each model.")] = 30,
    json: Annotated[Path | None, typer.Option(help="A file for the numbers.")] = None,
    plot: Annotated[Path | None, typer.Option(help="A PNG of mIoU over latency.")] = None,
) -> None:
    """Compare trained models on this machine: parameters, multiply-adds, latency, images per second, mIoU.

    With MLflow installed, the numbers and the plot are kept as a run of the first model's dataset.
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
        tell(f"[bold yellow]warning:[/] not logged: {plain(error)}")


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
            "The last three want a prepared dataset: `dvc repro prepare`.",
            show_default=False,
        ),
    ] = None,
    dataset: Dataset = "shapes",
    student: Student = "resnet18",
    method: MethodName = "attnfd",
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(min=17, help="Height and width of a crop; unset: the recipe's.", show_default=False),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=2, help="Images of a step; unset: the recipe's.", show_default=False)
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timings of each.")] = 10,
    json: Annotated[Path | None, typer.Option(help="A file for the numbers.")] = None,
    plot: Annotated[Path | None, typer.Option(help="A PNG of the ratios.")] = None,
) -> None:
    """Measure what a training costs on this machine: its steps, their parts, and what is around them."""
    from attnfd.bench.run import PARTS
    from attnfd.bench.run import bench as run
    from attnfd.bench.setting import Setting

    given = Setting.load(dataset, student, method, size, batch, rounds)
    run(given, parts or list(PARTS), numbers=json, plot=plot)


@benchmark.command(
    "gpu",
    epilog="Example: attnfd benchmark gpu\n\nWhere there is little but PyTorch: python -m attnfd.bench.gpu",
)
def benchmark_gpu(
    parts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PART]...", help="steps, shortcuts, cells, loop; unset: all.", show_default=False
        ),
    ] = None,
    rehearse: Annotated[bool, typer.Option("--rehearse", help="Tiny steps, also on a CPU.")] = False,
    json: Annotated[Path, typer.Option(help="A file for the numbers.")] = Path("gpu.json"),
    markdown: Annotated[Path, typer.Option(help="A file for the tables.")] = Path("gpu.md"),
) -> None:
    """Measure on a GPU a step in every arithmetic, its shortcuts, the loop, and cells that share the card."""
    from attnfd.bench.gpu import PARTS, gpu
    from attnfd.discovery import one_of

    for part in parts or ():
        one_of(part, tuple(PARTS), "PART")
    tables = gpu(rehearse=rehearse, json_file=json, markdown=markdown, parts=parts or tuple(PARTS))
    Console(soft_wrap=True, highlight=False).print(tables, markup=False)


@benchmark.command("startup", epilog="Example: attnfd benchmark startup --rounds 5")
def benchmark_startup(
    rounds: Annotated[int, typer.Option(min=1, help="Timings of each.")] = 3,
    json: Annotated[Path | None, typer.Option(help="A file for the numbers.")] = None,
) -> None:
    """Measure the fixed cost of every stage, in a small project whose pipeline has run."""
    from attnfd.bench.startup import startup
    from attnfd.cli import opening
    from attnfd.config.params import load_params

    cells = dict(opening.graph(load_params()))  # The last of each stage.
    startup(cells, rounds, Console(), record=json)
