"""The commands of the stages."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from attnfd.errors import UserError

if TYPE_CHECKING:
    from attnfd.config.schema import Run
from attnfd.cli.app import app
from attnfd.cli.messages import plain, tell
from attnfd.cli.options import Dataset, MethodName, Seed, Student, Students


@app.command(epilog="Example: attnfd prepare --dataset shapes")
def prepare(dataset: Dataset) -> None:
    """Draw or read a dataset, check every image and mask, write its index and card."""
    from attnfd.cli import preflight

    params = preflight.check_all()
    from stages.prepare import prepare as stage

    stage(params, dataset)


@app.command("train_teacher", epilog="Example: attnfd train_teacher --dataset shapes")
def train_teacher(dataset: Dataset) -> None:
    """Train the teacher: DeepLabV3+ with CBAM at the three taps in its forward path."""
    from attnfd.cli import preflight
    from attnfd.paths import Cell
    from attnfd.tracking.trainings import train

    params = preflight.check_params()
    cell = Cell(stage="train_teacher", dataset=dataset)
    from stages.train_teacher import train_teacher as stage

    train(params, [cell], lambda params, tracked: [stage(params, *tracked[0])])


@app.command(epilog="Example: attnfd freeze --dataset shapes")
def freeze(dataset: Dataset) -> None:
    """Freeze the teacher: fold its BN, verify it on real images, write one self-contained artefact."""
    from attnfd.cli import preflight

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
    from attnfd.cli import preflight
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
    from attnfd.cli import preflight
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
    from attnfd.cli import preflight
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
    from attnfd.cli import preflight
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
    from attnfd.cli import preflight

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
        tell(
            f"[bold yellow]warning:[/] the report is written, but not logged: {plain(error)}; "
            f"then run attnfd report --dataset {dataset}"
        )
        return
    Console().print(costs.drawn(cost), costs.gaps(cost))
