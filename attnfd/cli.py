"""The command line: one command per stage of `dvc.yaml`, and the user's own verbs.

Commands parse, check and dispatch. What one needs is imported when it runs, so that `--help` is instant.
"""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from attnfd.errors import StoppedError, UserError

if TYPE_CHECKING:
    from attnfd.config import Run

app = typer.Typer(
    help="Attention-guided Feature Distillation for semantic segmentation: a DVC pipeline tracked by MLflow.",
    epilog="Run all that is stale: dvc repro. Run one cell: dvc repro distill@shapes-resnet18-attnfd-0",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

data = typer.Typer(help="Datasets on this disk.", no_args_is_help=True)
app.add_typer(data, name="data")

Dataset = Annotated[str, typer.Option(help="A recipe of params.yaml, such as shapes.")]
Student = Annotated[str, typer.Option(help="A student of params.yaml, such as resnet18.")]
Students = Annotated[
    list[str],
    typer.Option("--student", help="A student of params.yaml, such as resnet18.", show_default=False),
]
MethodName = Annotated[str, typer.Option("--method", help="A method of params.yaml, such as attnfd.")]
Address = Annotated[
    str,
    typer.Argument(
        help="A folder below results/ or ablation/, such as shapes/resnet18/attnfd/0. Without the seed: all "
        "seeds. With @REV behind it: at a Git revision or DVC experiment.",
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of initial weights, order and augmentation.")]

ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A folder such as models/shapes/resnet18/attnfd/0, an MLflow run's id, or a registered model.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write over what is there.")]


@app.callback()
def one_process_unless_it_trains(context: typer.Context) -> None:
    """Refuse what several processes would do over each other."""
    trains = ("train_teacher", "distill", "ablate")
    if "TORCHELASTIC_RUN_ID" in os.environ and context.invoked_subcommand not in trains:
        raise UserError(
            f"torchrun: found attnfd {context.invoked_subcommand}; allowed: {', '.join(trains)}; "
            "start the others without it"
        )


@app.command(epilog="Example: attnfd check")
def check() -> None:
    """Check params.yaml, the machine and the MLflow store, before anything runs."""
    from attnfd import preflight

    preflight.check_all()
    Console().print("params.yaml, machine and tracking store: all good")


@app.command(epilog="Example: attnfd prepare --dataset shapes")
def prepare(dataset: Dataset) -> None:
    """Draw or read a dataset, check every image and mask, write its index and card."""
    from attnfd import preflight

    params = preflight.check_all()
    from stages.prepare import prepare as stage

    stage(params, dataset)


@app.command("train_teacher", epilog="Example: attnfd train_teacher --dataset shapes")
def train_teacher(dataset: Dataset) -> None:
    """Train the teacher: DeepLabV3+ with CBAM at the three taps in its forward path."""
    from attnfd import preflight
    from attnfd.paths import Cell
    from attnfd.tracking.trainings import train

    params = preflight.check_params()
    cell = Cell(stage="train_teacher", dataset=dataset)
    from stages.train_teacher import train_teacher as stage

    train(params, [cell], lambda params, tracked: [stage(params, *tracked[0])])


@app.command(epilog="Example: attnfd freeze --dataset shapes")
def freeze(dataset: Dataset) -> None:
    """Freeze the teacher: fold its BN, verify it on real images, write one self-contained artefact."""
    from attnfd import preflight

    params = preflight.check_params()
    from stages.freeze import freeze as stage

    stage(params, dataset)


@app.command(
    epilog="Example: attnfd distill --dataset shapes --student resnet18 --method attnfd --seed 0\n\n"
    "Two beside one teacher: attnfd distill --dataset shapes --seed 0 --student resnet18 --method attnfd "
    "--student resnet18 --method kd"
)
def distill(
    dataset: Dataset,
    students: Students,
    methods: Annotated[list[str], typer.Option("--method", help="A method of params.yaml, such as attnfd.")],
    seed: Seed,
) -> None:
    """Train one student by one method from one seed; or several, which the teacher serves together.

    Several give the same weights as one by one, and the teacher sees every batch once for all of them.
    """
    from attnfd import preflight
    from attnfd.paths import Cell
    from attnfd.tracking.trainings import train

    params = preflight.check_params()
    cells = [
        Cell(stage="distill", dataset=dataset, student=student, method=method, seed=seed)
        for student, method in _pairs(students, "--method", methods)
    ]
    from stages.distill import distill as stage

    train(params, cells, stage)


@app.command("evaluate_teacher", epilog="Example: attnfd evaluate_teacher --dataset shapes")
def evaluate_teacher(dataset: Dataset) -> None:
    """Evaluate the teacher at original size: metrics, confusion matrix, overlays, attention maps."""
    from attnfd import preflight
    from attnfd.paths import Cell
    from attnfd.tracking import runs

    params = preflight.check_params()
    cell = Cell(stage="train_teacher", dataset=dataset)
    from stages.evaluate_teacher import evaluate_teacher as stage

    with runs.resume_run(cell, params.resolve(cell)) as run:
        run.evaluated(stage(params, cell))


@app.command(epilog="Example: attnfd evaluate --dataset shapes --student resnet18 --method attnfd --seed 0")
def evaluate(dataset: Dataset, student: Student, method: MethodName, seed: Seed) -> None:
    """Evaluate a student at original size: metrics, confusion matrix, overlays, attention maps."""
    from attnfd import preflight
    from attnfd.paths import Cell
    from attnfd.tracking import runs

    params = preflight.check_params()
    cell = Cell(stage="distill", dataset=dataset, student=student, method=method, seed=seed)
    from stages.evaluate import evaluate as stage

    with runs.resume_run(cell, params.resolve(cell)) as run:
        run.evaluated(stage(params, cell))


@app.command(
    epilog="Example: attnfd ablate --dataset shapes --student resnet18 --variant be --seed 0\n\n"
    "Two beside one teacher: attnfd ablate --dataset shapes --seed 0 --student resnet18 --variant be "
    "--student resnet18 --variant bd"
)
def ablate(
    dataset: Dataset,
    students: Students,
    variants: Annotated[
        list[str], typer.Option("--variant", help="An entry of `ablate` in params.yaml, such as be.")
    ],
    seed: Seed,
) -> None:
    """Train and evaluate one ablation of AttnFD; or several, as in `distill`."""
    from attnfd import preflight
    from attnfd.paths import Cell
    from attnfd.tracking.trainings import train

    params = preflight.check_params()
    cells = [
        Cell(stage="ablate", dataset=dataset, student=student, method="attnfd", variant=variant, seed=seed)
        for student, variant in _pairs(students, "--variant", variants)
    ]
    from stages.ablate import ablate as stage

    train(params, cells, stage)


def _pairs(students: list[str], option: str, values: list[str]) -> Iterator[tuple[str, str]]:
    if len(students) != len(values):
        raise UserError(f"{option}: found {len(values)} for {len(students)} students; allowed: one for each")
    return zip(students, values, strict=True)


@app.command(epilog="Example: attnfd report --dataset shapes")
def report(dataset: Dataset) -> None:
    """Write tables and figures of everything that ran on a dataset into reports/<dataset>/, and log them."""
    from attnfd import preflight

    params = preflight.check_params()
    from stages.report import report as stage

    stage(params, dataset)
    _publish(params.run, dataset)


def _publish(axes: "Run", dataset: str) -> None:
    """Log a report. It is written by now, so a store out of reach costs a warning and no more."""
    from attnfd.tracking import costs, summary

    try:
        cost = summary.publish(axes, dataset)
    except UserError as error:
        _tell(
            f"[bold yellow]warning:[/] the report is written, but not logged: {_plain(error)}; "
            f"then run attnfd report --dataset {dataset}"
        )
        return
    Console().print(costs.drawn(cost), costs.gaps(cost))


@app.command(epilog="Example: attnfd plan\n\nOf other settings: edit params.yaml, attnfd plan")
def plan() -> None:
    """List the cells that `dvc repro` or `attnfd sweep` would run, why, and the hours that it would take."""
    from attnfd import plan
    from attnfd.graph import Graph

    plan.show(plan.plan(Graph()), Console(highlight=False))


@app.command(
    epilog="Example: attnfd sweep --jobs 2\n\nFour cells on each GPU: attnfd sweep --gpus-per-job 0.25\n\n"
    "Eight students beside one teacher: attnfd sweep --students-per-teacher 8\n\n"
    "On a Ray cluster: attnfd sweep --address 10.0.0.1:6379"
)
def sweep(
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Cells at once; unset: as many as fit the GPUs, or a job per 4 cores."),
    ] = None,
    gpus_per_job: Annotated[
        float | None,
        typer.Option(min=0, help="Share of a GPU for each; unset: a whole one, if there are any."),
    ] = None,
    students_per_teacher: Annotated[
        int,
        typer.Option(min=1, help="Students of a dataset and seed that share a teacher's forward passes."),
    ] = 1,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster; unset: this machine.", show_default=False)
    ] = None,
) -> None:
    """Run every stale cell as `dvc repro` would, many at once; what fails stops only what waits for it."""
    from attnfd import preflight, sweep
    from attnfd.engine import Ray
    from attnfd.graph import Graph

    preflight.check_all()
    console = Console(highlight=False, soft_wrap=True)
    graph = Graph()
    runner = Ray(jobs=jobs, gpus=gpus_per_job, address=address)
    outcome = sweep.sweep(graph, runner, console, students_per_teacher)
    sweep.show(outcome, console)
    if outcome.failed:
        raise typer.Exit(1)


@app.command(
    epilog="Example: attnfd compare shapes/resnet18/none shapes/resnet18/attnfd\n\n"
    "One cell, before and now: attnfd compare shapes/resnet18/attnfd/0@HEAD shapes/resnet18/attnfd/0"
)
def compare(a: Address, b: Address) -> None:
    """Compare two cells, or two methods over their seeds: settings, scores with interval, gains by class."""
    from attnfd import compare

    compare.show(compare.compare(a, b), Console(highlight=False))


@app.command(epilog="Example: attnfd predict shapes/resnet18/attnfd/0 photos 'more/*.jpg' --out predictions")
def predict(
    model: ModelName,
    images: Annotated[list[str], typer.Argument(help="Images of any size, folders, patterns.")],
    out: Annotated[Path, typer.Option(help="A folder for class maps, overlays and areas.csv.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Images of one size per forward pass.")] = 8,
    overlays: Annotated[bool, typer.Option(help="Whether to write overlays.")] = True,
    overwrite: Overwrite = False,
) -> None:
    """Segment images: class maps with palette, overlays, and the areas of the classes."""
    from attnfd.product.predict import predict as run
    from attnfd.product.source import open_model

    opened = open_model(model)
    count = run(opened, images, out, batch_size=batch_size, overlays=overlays, overwrite=overwrite)
    Console(soft_wrap=True).print(f"{count} images segmented into {out}")


@app.command(epilog="Example: attnfd export shapes/resnet18/attnfd/0 --format onnx --out student.onnx")
def export(
    model: ModelName,
    out: Annotated[Path, typer.Option(help="A file; its card is written beside it.")],
    kind: Annotated[str, typer.Option("--format", help="onnx or torch-export.")] = "onnx",
    images: Annotated[
        list[str] | None,
        typer.Option(help="To compare on instead of validation images; may be given again."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a model as one file that needs no attnfd; refused if it answers otherwise than the model."""
    from attnfd.product.export import export as run
    from attnfd.product.source import open_model

    found = run(open_model(model), kind, out, images=images or [], overwrite=overwrite)
    Console(soft_wrap=True).print(
        f"{out}: compared on {found.images} images: logits differ by at most {found.difference:.1e} of the "
        f"largest, {100 * found.agreement:.3f} % of the pixels have the same class"
    )


@app.command(
    epilog="Example: attnfd benchmark shapes/teacher shapes/resnet18/attnfd/0 --size 256 256 --plot cost.png"
)
def benchmark(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="As of predict; the first is 1.00×.")
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

    from attnfd.product.benchmark import benchmark as run
    from attnfd.product.source import open_model

    opened = [open_model(model) for model in models]
    content, figure = run(opened, size=size, batch=batch, rounds=rounds, numbers=json, plot=plot)
    if find_spec("mlflow") is None:
        return
    from attnfd.tracking import summary

    try:
        summary.log_benchmark(opened[0].legend.dataset, content, figure)
    except UserError as error:
        _tell(f"[bold yellow]warning:[/] not logged: {_plain(error)}")


@app.command(epilog="Example: attnfd bench step --student mobilenetv2 --size 257 257 --batch 2")
def bench(
    parts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PART]...",
            help="step, split, methods, teacher, sharing, loader, loop, evaluate; unset: all. The last three "
            "want a prepared dataset: `dvc repro prepare`.",
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
    """Measure what a training costs on this machine; for trained models see `benchmark`."""
    from attnfd import bench as benching

    given = benching.setting(dataset, student, method, size, batch, rounds)
    benching.bench(given, parts or list(benching.PARTS), numbers=json, plot=plot)


@data.command(epilog="Example: attnfd data fetch voc")
def fetch(
    name: Annotated[str, typer.Argument(help="voc, sbd, camvid or cityscapes.")],
    to: Annotated[
        Path | None,
        typer.Option(help="Folder to put it in; unset: where its recipe looks.", show_default=False),
    ] = None,
) -> None:
    """Download a published dataset, or tell how to get it where its terms ask for more."""
    from attnfd import fetch as fetching

    Console(soft_wrap=True, highlight=False).print(fetching.fetch(name, to), markup=False)


@app.command(epilog="Example: attnfd ui --port 5001")
def ui(port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000) -> None:
    """Open the MLflow UI on localhost, on the store that the pipeline writes to."""
    from attnfd.tracking import store

    store.ui(port)


def main() -> None:
    """Run a command; what the user can mend is told in a line, with exit status 2."""
    # The libraries make millions of objects that stay. As it is set, Python looks through them over and over
    # while they are imported: a sixth of what a small cell takes.
    gc.set_threshold(100_000, 50, 50)
    try:
        app()
    except StoppedError as interrupted:
        _tell(_plain(interrupted))
        sys.exit(interrupted.status)
    except UserError as error:
        _fail(error)
    except OSError as error:
        if error.errno is None:
            raise
        what = f"{error.filename or 'a file'}: {error.strerror}"
        _fail(UserError(f"{what}; see that it may be read and written, and that its disk has room"))
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        hint = "if memory is short, ATTNFD_WORKERS=0 does without such processes"
        _fail(UserError(f"a loader's process was killed; start the same again, and it goes on; {hint}"))


def _fail(error: UserError) -> NoReturn:
    _tell(f"[bold red]error:[/] {_plain(error)}")
    sys.exit(error.status)


def _tell(line: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(line)


def _plain(error: UserError) -> str:
    # What a loader's process raised has that process's traceback before it.
    return str(error).rpartition(f"{UserError.__name__}: ")[2].strip().replace("[", r"\[")
