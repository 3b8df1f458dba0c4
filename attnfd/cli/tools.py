"""The commands that are not stages."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from attnfd.cli.app import app
from attnfd.cli.messages import say_error
from attnfd.cli.options import SCALES, Address, Dataset, ModelName, Overwrite, WithScales
from attnfd.errors import UserError

if TYPE_CHECKING:
    from attnfd.deploy.source import Model

data = typer.Typer(help="Download or import a dataset.", no_args_is_help=True)
app.add_typer(data, name="data", rich_help_panel="Run")


@app.command(rich_help_panel="Run", epilog="Example: attnfd check")
def check() -> None:
    """Check data, params.yaml, weights, the machine and the MLflow store before anything runs."""
    from attnfd.cli import preflight

    table, problems = preflight.inspect()
    Console(highlight=False).print(table)
    for problem in problems:
        say_error(UserError(problem))
    if problems:
        raise typer.Exit(UserError.status)
    Console().print("params.yaml, data, weights, machine and MLflow store: all good")


@app.command(
    rich_help_panel="Run",
    epilog="Example: attnfd plan\n\n"
    "With another value: attnfd plan --set methods.attnfd.on.shapes.weight=3\n\n"
    "Epochs for a comparison in equal time: attnfd plan --equal-time shapes --write",
)
def plan(
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Plan as if params.yaml had this value; the file stays as it is. You can repeat the option.",
            show_default=False,
        ),
    ] = None,
    equal_time: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET",
            help="Instead of a plan: measure a step of every method on this recipe, and show the epochs "
            "that give every method the same time.",
            show_default=False,
        ),
    ] = None,
    write: Annotated[
        bool,
        typer.Option(
            "--write",
            help="With --equal-time: add students with these epochs, and the measured times, to params.yaml.",
        ),
    ] = False,
) -> None:
    """List the cells that `dvc repro` or `attnfd sweep` would run, why, and the hours they would take."""
    from attnfd.cli import preflight
    from attnfd.config.params import PARAMS_FILE, load_params, parse_params
    from attnfd.sweep import changed, plan
    from attnfd.sweep.graph import Graph

    if write and (equal_time is None or changes):
        raise UserError(
            "--write: found without --equal-time or with --set; allowed: attnfd plan --equal-time "
            "<dataset> --write"
        )
    params, text = load_params(), None
    if changes:
        text = changed.change(Path(PARAMS_FILE).read_text(encoding="utf-8"), changes)
        params = parse_params(text, f"{PARAMS_FILE} with {changed.OPTION}")
        preflight.check_components(params)
    if equal_time is not None:
        from attnfd.bench import equal_time as equal

        console, budgets = Console(highlight=False, soft_wrap=True), equal.budgets(params, equal_time)
        equal.show(equal_time, budgets, console)
        if write:
            equal.write(equal_time, budgets, console)
        return
    plan.show(plan.plan(Graph(text), params), Console(highlight=False))


@app.command(rich_help_panel="Run", epilog="Example: attnfd choose --dataset shapes")
def choose(dataset: Dataset) -> None:
    """Write the best weight of each tuned method into params.yaml, as found by the trials of `tune`."""
    from attnfd.analysis import choosing

    choosing.show(dataset, choosing.choose(dataset), Console(highlight=False, soft_wrap=True))


@app.command(
    rich_help_panel="Run",
    epilog="Example: attnfd sweep --jobs 2\n\nFour cells on each GPU: attnfd sweep --gpus-per-job 0.25\n\n"
    "Eight students, one teacher: attnfd sweep --students-per-teacher 8\n\n"
    "On a Ray cluster: attnfd sweep --address 10.0.0.1:6379",
)
def sweep(
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Cells at once; unset: as many as the GPUs take, or one per 4 cores."),
    ] = None,
    gpus_per_job: Annotated[
        float | None,
        typer.Option(min=0, help="Share of a GPU for each cell; unset: a whole GPU, if there is one."),
    ] = None,
    students_per_teacher: Annotated[
        int,
        typer.Option(min=1, help="Students of one dataset and seed that share the teacher's forward passes."),
    ] = 1,
    address: Annotated[
        str | None, typer.Option(help="Address of a Ray cluster; unset: this machine.", show_default=False)
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="If another run works in this project, wait for it; unset: stop.")
    ] = False,
) -> None:
    """Run every stale cell as `dvc repro` would, many at once. A failure stops only what depends on it."""
    from attnfd.cli import preflight
    from attnfd.sweep import walk
    from attnfd.sweep.engine import Ray, check_system
    from attnfd.sweep.graph import Graph

    check_system()
    preflight.check_all()
    console = Console(highlight=False, soft_wrap=True)
    graph = Graph()
    if not wait:
        graph.check_alone()
    runner = Ray(jobs=jobs, gpus=gpus_per_job, address=address)
    outcome = walk.sweep(graph, runner, console, students_per_teacher, wait=wait)
    walk.show(outcome, console)
    if outcome.failed:
        raise typer.Exit(1)


@app.command(
    rich_help_panel="Look",
    epilog="Example: attnfd compare shapes/resnet18/none shapes/resnet18/attnfd\n\n"
    "One cell, before and now: attnfd compare shapes/resnet18/attnfd/0@HEAD shapes/resnet18/attnfd/0",
)
def compare(a: Address, b: Address) -> None:
    """Compare two cells, or two methods over their seeds: settings, scores with interval, gains by class."""
    from attnfd.analysis import compare

    compare.show(compare.compare(a, b), Console(highlight=False))


@app.command(
    cls=WithScales,
    rich_help_panel="Deploy",
    epilog="Example: attnfd predict shapes/resnet18/attnfd/0 photos 'more/*.jpg' --out out\n\n"
    "The best result, at six times the cost: attnfd predict MODEL photos --flip --scales 0.75 1 1.25",
)
def predict(
    model: ModelName,
    images: Annotated[list[str], typer.Argument(help="Images of any size, folders, or patterns.")],
    out: Annotated[Path, typer.Option(help="The folder for all output files.")] = Path("predictions"),
    batch_size: Annotated[int, typer.Option(min=1, help="Images of one size per forward pass.")] = 8,
    overlays: Annotated[bool, typer.Option(help="Whether to write overlays and the contact sheet.")] = True,
    tile: Annotated[
        int | None,
        typer.Option(
            min=32,
            max=16384,
            help="Split larger images into tiles of this side in pixels; unset: whole images.",
            show_default=False,
        ),
    ] = None,
    overlap: Annotated[
        int, typer.Option(min=0, help="Pixels that two tiles share, up to half a tile.")
    ] = 128,
    flip: Annotated[
        bool, typer.Option("--flip", help="Average the probabilities of the image and its mirror image.")
    ] = False,
    scales: Annotated[
        list[float] | None,
        typer.Option(
            SCALES,
            metavar="FACTOR...",
            help="Average the probabilities at the image's size times each factor, 0.25 to 4, such as "
            "0.75 1 1.25; unset: its own size.",
            show_default=False,
        ),
    ] = None,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities",
            help="Also write the probabilities of all classes: the array `probabilities` in "
            "probabilities/<path>.npz, float16, (classes, height, width).",
        ),
    ] = False,
    cityscapes_ids: Annotated[
        bool,
        typer.Option(
            "--cityscapes-ids",
            help="Write label ids, which the test server of Cityscapes needs, instead of class indices.",
        ),
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Segment images: write class maps with palette, overlays, a contact sheet and the area of each class."""
    from attnfd.deploy.predict import predict as run
    from attnfd.deploy.source import open_model
    from attnfd.deploy.views import LARGEST, SMALLEST, Views
    from attnfd.evaluation.tiles import Tiles

    if tile is not None and overlap > tile // 2:
        raise UserError(f"--overlap: found {overlap}; allowed: up to half of the tile's {tile}")
    tiles = None if tile is None else Tiles(size=tile, overlap=overlap)
    if wrong := [scale for scale in scales or () if not SMALLEST <= scale <= LARGEST]:
        raise UserError(
            f"--scales: found {wrong[0]:g}; allowed: {SMALLEST} to {LARGEST}, such as 0.75 1 1.25"
        )
    views = Views(flip=flip, scales=tuple(scales or (1.0,)))
    opened = open_model(model)
    count = run(
        opened,
        images,
        out,
        batch_size=batch_size,
        overlays=overlays,
        overwrite=overwrite,
        tiles=tiles,
        views=views,
        probabilities=probabilities,
        cityscapes_ids=cityscapes_ids,
    )
    images_found = "1 image" if count == 1 else f"{count} images"
    line = f"{images_found} segmented into {out} on {_device_of(opened)}"
    Console(soft_wrap=True, highlight=False).print(line, markup=False)


def _device_of(model: "Model") -> str:
    import torch

    device = next(model.network.parameters()).device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"


@app.command(
    rich_help_panel="Deploy",
    epilog="Example: attnfd export shapes/resnet18/attnfd/0 --format onnx --out student.onnx",
)
def export(
    model: ModelName,
    out: Annotated[Path, typer.Option(help="The file to write; its card is written next to it.")],
    kind: Annotated[str, typer.Option("--format", help="onnx or torch-export.")] = "onnx",
    opset: Annotated[int, typer.Option(min=18, max=23, help="Version of the ONNX operators.")] = 20,
    half: Annotated[bool, typer.Option("--half", help="Use float16 for weights and arithmetic.")] = False,
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(min=17, help="Height and width of every image; unset: any size.", show_default=False),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Return the probability of each class, not the class.")
    ] = False,
    images: Annotated[
        list[str] | None,
        typer.Option(help="Images to compare on, instead of validation images. You can repeat the option."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a model as one file that runs without attnfd. Fail if its answers differ from the model's."""
    from attnfd.deploy.export import Form
    from attnfd.deploy.export import export as run
    from attnfd.deploy.source import open_model

    form = Form(opset, half, size, probabilities)
    found = run(open_model(model), kind, out, images=images or [], overwrite=overwrite, form=form)
    Console(soft_wrap=True).print(
        f"{out}: compared on {found.images} images: logits differ by at most {found.difference:.1e} of the "
        f"largest, {100 * found.agreement:.3f} % of the pixels have the same class"
    )


@data.command(epilog="Example: attnfd data fetch voc")
def fetch(
    name: Annotated[str, typer.Argument(help="voc, sbd, camvid or cityscapes.")],
    to: Annotated[
        Path | None,
        typer.Option(help="The folder to write; unset: the one that its recipe reads.", show_default=False),
    ] = None,
) -> None:
    """Download a published dataset, or explain how you can get it if its terms allow no download."""
    from attnfd.sources import fetch as fetching

    Console(soft_wrap=True, highlight=False).print(fetching.fetch(name, to), markup=False)


@data.command("import", epilog="Example: attnfd data import coco exports/streets --to datasets/streets")
def import_(
    format: Annotated[
        str | None,
        typer.Argument(help="Format of the export, such as coco; unset: list formats.", show_default=False),
    ] = None,
    path: Annotated[
        Path | None, typer.Argument(help="The unpacked folder of the export.", show_default=False)
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="A new folder to write, such as datasets/mine.", show_default=False),
    ] = None,
) -> None:
    """Convert an export of an annotation tool to images, masks, classes and lists. Print its recipe."""
    from attnfd.sources import imports

    console = Console(soft_wrap=True, highlight=False)
    if format is None:
        console.print("\n".join(imports.formats()), markup=False)
        return
    if path is None or to is None:
        raise UserError(
            f"data import: found {'no folder of the export' if path is None else 'no --to'}; allowed: "
            "attnfd data import FORMAT PATH --to datasets/mine; attnfd data import lists the formats"
        )
    console.print(imports.import_export(format, path, to), markup=False)


@app.command(rich_help_panel="Look", epilog="Example: attnfd ui --open")
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
    browse: Annotated[bool, typer.Option("--open", help="Also open the page in a browser.")] = False,
) -> None:
    """Serve MLflow's pages on localhost. Print the address of the newest runs, with the best model first."""
    from attnfd.tracking import ui

    ui.serve(port, browse=browse)
