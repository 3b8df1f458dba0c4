"""The command line: one command per stage of `dvc.yaml`, and the user's own verbs.

Commands parse, check and dispatch. What one needs is imported when it runs, so that `--help` is instant.
"""

import sys
from typing import Annotated

import typer
from rich.console import Console

from attnfd.errors import UserError

app = typer.Typer(
    help="Attention-guided Feature Distillation for semantic segmentation: a DVC pipeline tracked by MLflow.",
    epilog="Run all that is stale: dvc repro. Run one cell: dvc repro distill@shapes-resnet18-attnfd-0",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Dataset = Annotated[str, typer.Option(help="A recipe of params.yaml, such as shapes.")]
Student = Annotated[str, typer.Option(help="A student of params.yaml, such as resnet18.")]
MethodName = Annotated[str, typer.Option("--method", help="A method of params.yaml, such as attnfd.")]
Variant = Annotated[str, typer.Option(help="An entry of `ablate` in params.yaml, such as be.")]
Address = Annotated[
    str,
    typer.Argument(
        help="A folder below results/ or ablation/, such as shapes/resnet18/attnfd/0. Without the seed: all "
        "seeds. With @REV behind it: at a Git revision or DVC experiment.",
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of initial weights, order and augmentation.")]


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
    from attnfd import preflight, tracking
    from attnfd.paths import Cell

    params = preflight.check_params()
    cell = Cell(stage="train_teacher", dataset=dataset)
    from stages.train_teacher import train_teacher as stage

    with tracking.open_run(cell, params.resolve(cell)) as run:
        run.trained(stage(params, cell, run))


@app.command(epilog="Example: attnfd freeze --dataset shapes")
def freeze(dataset: Dataset) -> None:
    """Freeze the teacher: fold its BN, verify it on real images, write one self-contained artefact."""
    from attnfd import preflight

    params = preflight.check_params()
    from stages.freeze import freeze as stage

    stage(params, dataset)


@app.command(epilog="Example: attnfd distill --dataset shapes --student resnet18 --method attnfd --seed 0")
def distill(dataset: Dataset, student: Student, method: MethodName, seed: Seed) -> None:
    """Train one student by one method from one seed."""
    from attnfd import preflight, tracking
    from attnfd.paths import Cell

    params = preflight.check_params()
    cell = Cell(stage="distill", dataset=dataset, student=student, method=method, seed=seed)
    from stages.distill import distill as stage

    with tracking.open_run(cell, params.resolve(cell)) as run:
        run.trained(stage(params, cell, run))


@app.command("evaluate_teacher", epilog="Example: attnfd evaluate_teacher --dataset shapes")
def evaluate_teacher(dataset: Dataset) -> None:
    """Evaluate the teacher at original size: metrics, confusion matrix, overlays, attention maps."""
    from attnfd import preflight, tracking
    from attnfd.paths import Cell

    params = preflight.check_params()
    cell = Cell(stage="train_teacher", dataset=dataset)
    from stages.evaluate_teacher import evaluate_teacher as stage

    with tracking.resume_run(cell, params.resolve(cell)) as run:
        run.evaluated(stage(params, cell))


@app.command(epilog="Example: attnfd evaluate --dataset shapes --student resnet18 --method attnfd --seed 0")
def evaluate(dataset: Dataset, student: Student, method: MethodName, seed: Seed) -> None:
    """Evaluate a student at original size: metrics, confusion matrix, overlays, attention maps."""
    from attnfd import preflight, tracking
    from attnfd.paths import Cell

    params = preflight.check_params()
    cell = Cell(stage="distill", dataset=dataset, student=student, method=method, seed=seed)
    from stages.evaluate import evaluate as stage

    with tracking.resume_run(cell, params.resolve(cell)) as run:
        run.evaluated(stage(params, cell))


@app.command(epilog="Example: attnfd ablate --dataset shapes --student resnet18 --variant be --seed 0")
def ablate(dataset: Dataset, student: Student, variant: Variant, seed: Seed) -> None:
    """Train and evaluate one ablation of AttnFD."""
    from attnfd import preflight, tracking
    from attnfd.paths import Cell

    params = preflight.check_params()
    cell = Cell(stage="ablate", dataset=dataset, student=student, method="attnfd", variant=variant, seed=seed)
    from stages.ablate import ablate as stage

    with tracking.open_run(cell, params.resolve(cell)) as run:
        fingerprint, evaluated = stage(params, cell, run)
        run.trained(fingerprint)
        run.evaluated(evaluated)


@app.command(epilog="Example: attnfd report --dataset shapes")
def report(dataset: Dataset) -> None:
    """Write tables and figures of everything that ran on a dataset into reports/<dataset>/."""
    from attnfd import preflight

    params = preflight.check_params()
    from stages.report import report as stage

    stage(params, dataset)


@app.command(
    epilog="Example: attnfd compare shapes/resnet18/none shapes/resnet18/attnfd\n\n"
    "One cell, before and now: attnfd compare shapes/resnet18/attnfd/0@HEAD shapes/resnet18/attnfd/0"
)
def compare(a: Address, b: Address) -> None:
    """Compare two cells, or two methods over their seeds: settings, scores with interval, gains by class."""
    from attnfd import compare

    compare.show(compare.compare(a, b), Console(highlight=False))


@app.command(epilog="Example: attnfd ui --port 5001")
def ui(port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000) -> None:
    """Open the MLflow UI on localhost, on the store that the pipeline writes to."""
    from attnfd import tracking

    tracking.ui(port)


def main() -> None:
    """Run a command; what the user can mend is told in a line, with exit status 2."""
    try:
        app()
    except UserError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {_plain(error)}")
        sys.exit(2)


def _plain(error: UserError) -> str:
    return str(error).replace("[", r"\[")
