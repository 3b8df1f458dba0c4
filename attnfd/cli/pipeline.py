"""The commands of the stages."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from attnfd import paths
from attnfd.cli.app import app
from attnfd.cli.messages import plain, say
from attnfd.cli.options import Dataset, Factors, MethodName, Methods, Seed, Student, Students, Variants
from attnfd.errors import UserError
from attnfd.paths import Cell

if TYPE_CHECKING:
    from attnfd.config.schema import Run
    from attnfd.config.task import Task


@app.command(rich_help_panel="Stages", epilog="Example: attnfd prepare --dataset shapes")
def prepare(dataset: Dataset) -> None:
    """Draw or read a dataset, check every image and mask, write its index and card."""
    from attnfd.cli import preflight

    preflight.check_all()
    _stage("prepare")(_tasks("prepare", [Cell.teacher(dataset)]))


@app.command(
    "train_teacher", rich_help_panel="Stages", epilog="Example: attnfd train_teacher --dataset shapes"
)
def train_teacher(dataset: Dataset) -> None:
    """Train the teacher: DeepLabV3+ with CBAM at the three taps in its forward path."""
    from attnfd.cli import weights

    tasks = _tasks("train_teacher", [Cell.teacher(dataset)])
    weights.fetch(tasks[0].params)
    _train("train_teacher", tasks)


@app.command(rich_help_panel="Stages", epilog="Example: attnfd freeze --dataset shapes")
def freeze(dataset: Dataset) -> None:
    """Freeze the teacher: fold its BN, verify it on real images, write one self-contained artefact."""
    (difference,) = _stage("freeze")(_tasks("freeze", [Cell.teacher(dataset)]))
    print(f"{dataset}: frozen and live teacher differ by at most {difference:.1e}")


@app.command(
    rich_help_panel="Stages",
    epilog="Example: attnfd distill --dataset shapes --student resnet18 --method attnfd --seed 0\n\n"
    "Two students, one teacher: attnfd distill --dataset shapes --seed 0 --student resnet18 --method attnfd "
    "--student resnet18 --method kd",
)
def distill(
    dataset: Dataset,
    students: Students,
    methods: Methods,
    seed: Seed,
) -> None:
    """Train one student with one method and one seed; or several students, with one teacher for all.

    The teacher computes each batch once for all students. The weights are the same as from single trainings.
    """
    pairs = _pairs(students, "--method", methods)
    cells = [Cell.distilled(dataset, student, method, seed) for student, method in pairs]
    _train("distill", _tasks("distill", cells))


@app.command(rich_help_panel="Stages", epilog="Example: attnfd trials --dataset shapes")
def trials(dataset: Dataset) -> None:
    """Write the settings from which the trials of each tuned method start, without the chosen weight."""
    _stage("trials")(_tasks("trials", [Cell.teacher(dataset)]))


@app.command(
    rich_help_panel="Stages",
    epilog="Example: attnfd tune --dataset shapes --student resnet18 --method kd --factor 0.3 --seed 0\n\n"
    "Two trials, one teacher: attnfd tune --dataset shapes --seed 0 --student resnet18 --method kd "
    "--factor 0.3 --student resnet18 --method kd --factor 3",
)
def tune(
    dataset: Dataset,
    students: Students,
    methods: Methods,
    factors: Factors,
    seed: Seed,
) -> None:
    """Try one factor of a method's weight: train a student on some training images, score it on the others.

    Several trials train together, as in `distill`. `attnfd choose` reads their scores.
    """
    triples = [
        (*pair, factor)
        for pair, (_, factor) in zip(
            _pairs(students, "--method", methods), _pairs(students, "--factor", factors), strict=True
        )
    ]
    _train("tune", _tasks("tune", [Cell.trial(dataset, *triple, seed) for triple in triples]))


@app.command(
    "evaluate_teacher", rich_help_panel="Stages", epilog="Example: attnfd evaluate_teacher --dataset shapes"
)
def evaluate_teacher(dataset: Dataset) -> None:
    """Evaluate the teacher at original size: metrics, confusion matrix, overlays, attention maps."""
    _evaluate("evaluate_teacher", Cell.teacher(dataset))


@app.command(
    rich_help_panel="Stages",
    epilog="Example: attnfd evaluate --dataset shapes --student resnet18 --method attnfd --seed 0",
)
def evaluate(dataset: Dataset, student: Student, method: MethodName, seed: Seed) -> None:
    """Evaluate a student at original size: metrics, confusion matrix, overlays, attention maps."""
    _evaluate("evaluate", Cell.distilled(dataset, student, method, seed))


@app.command(
    rich_help_panel="Stages",
    epilog="Example: attnfd ablate --dataset shapes --student resnet18 --variant be --seed 0\n\n"
    "Two variants, one teacher: attnfd ablate --dataset shapes --seed 0 --student resnet18 --variant be "
    "--student resnet18 --variant bd",
)
def ablate(
    dataset: Dataset,
    students: Students,
    variants: Variants,
    seed: Seed,
) -> None:
    """Train and evaluate one ablation of AttnFD; or several, as in `distill`."""
    pairs = _pairs(students, "--variant", variants)
    cells = [Cell.ablated(dataset, student, variant, seed) for student, variant in pairs]
    _train("ablate", _tasks("ablate", cells))


@app.command(rich_help_panel="Stages", epilog="Example: attnfd report --dataset shapes")
def report(dataset: Dataset) -> None:
    """Write tables and figures of all results on a dataset to reports/<dataset>/, and log them to MLflow."""
    from attnfd.cli import ending

    tasks = _tasks("report", [Cell.teacher(dataset)])
    (page,) = _stage("report")(tasks)
    _publish(tasks[0].params.run, dataset)
    ending.show_report(tasks[0].params.run, dataset, page)


def _tasks(stage: str, cells: Sequence[Cell]) -> "list[Task]":
    from attnfd.cli import opening, preflight
    from attnfd.config.task import Task

    params = preflight.check_params()
    opening.announce(stage, cells, params)
    for cell in cells:
        for out in paths.outs(stage, cell):
            paths.unlink(out)
    return [Task(params, cell) for cell in cells]


def _stage(name: str) -> Any:
    """The function of `stages/<name>.py`."""
    from importlib import import_module

    return getattr(import_module(f"stages.{name}"), name)


def _train(stage: str, tasks: "Sequence[Task]") -> None:
    """Run a stage that trains, with an MLflow run for each cell. Print the score of each evaluated cell."""
    from attnfd.cli import ending
    from attnfd.tracking.trainings import Outcome, train

    def scored(tasks: "Sequence[Task]") -> "Sequence[Outcome]":
        outcomes = _stage(stage)(tasks)
        for task, outcome in zip(tasks, outcomes, strict=True):
            if isinstance(outcome, tuple) and outcome[1]:
                ending.show_score(task.cell, outcome[1].metrics["miou"])
        return outcomes

    train(tasks, scored)


def _evaluate(stage: str, cell: Cell) -> None:
    """Run a stage that evaluates, in the MLflow run of the cell's training."""
    (task,) = _tasks(stage, [cell])
    from attnfd.tracking import runs

    with runs.resume_run(cell, task.settings.of_the_model()) as run:
        (evaluated,) = _stage(stage)([task])
        run.evaluated(evaluated)
    from attnfd.cli import ending

    ending.show_score(cell, evaluated.metrics["miou"])


def _pairs(students: list[str], option: str, values: list[str]) -> Iterator[tuple[str, str]]:
    if len(students) != len(values):
        raise UserError(f"{option}: found {len(values)} for {len(students)} students; allowed: one for each")
    return zip(students, values, strict=True)


def _publish(axes: "Run", dataset: str) -> None:
    """Log a report. Its files are complete, so a store that does not answer only causes a warning."""
    from attnfd.tracking import summary

    try:
        summary.publish(axes, dataset)
    except UserError as error:
        say(
            f"[bold yellow]warning:[/] the report is written, but not logged: {plain(error)}; "
            f"then run attnfd report --dataset {dataset}"
        )
