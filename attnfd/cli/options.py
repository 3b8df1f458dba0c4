"""Options and arguments that several commands have."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.core

from attnfd.cli import completion

_STUDENT = "A student of params.yaml, such as resnet18."
_METHOD = "A method of params.yaml, such as attnfd."

Dataset = Annotated[
    str,
    typer.Option(help="A recipe of params.yaml, such as shapes.", autocompletion=completion.names("recipes")),
]
Student = Annotated[str, typer.Option(help=_STUDENT, autocompletion=completion.names("students"))]
Students = Annotated[
    list[str], typer.Option("--student", help=_STUDENT, autocompletion=completion.names("students"))
]
MethodName = Annotated[
    str, typer.Option("--method", help=_METHOD, autocompletion=completion.names("methods"))
]
Methods = Annotated[
    list[str], typer.Option("--method", help=_METHOD, autocompletion=completion.names("methods"))
]
Factors = Annotated[
    list[str], typer.Option("--factor", help="A factor of the method's weight, from `tune.factors`.")
]
Variants = Annotated[
    list[str],
    typer.Option(
        "--variant",
        help="An entry of `ablate` in params.yaml, such as be.",
        autocompletion=completion.names("ablate"),
    ),
]
Address = Annotated[
    str,
    typer.Argument(
        help="A folder in results/ or ablation/, such as shapes/resnet18/attnfd/0. Without the seed: all "
        "seeds. With @REV at the end: the results of a Git revision or DVC experiment.",
        show_default=False,
        autocompletion=completion.cells,
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of initial weights, image order and augmentation.")]

ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A folder such as models/shapes/resnet18/attnfd/0, the id of an MLflow run, or a registered "
        "model.",
        autocompletion=completion.models,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Overwrite existing files.")]

SCALES = "--scales"


class WithScales(typer.core.TyperCommand):
    """A command whose `--scales` takes several numbers: `--scales 0.75 1 1.25`."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        return super().parse_args(ctx, spread(args, SCALES))


def spread(words: Sequence[str], option: str) -> list[str]:
    """The words of a command, with the option repeated before each further number that follows it.

    Example:
        >>> spread(["photos", "--scales", "0.75", "1", "--flip"], "--scales")
        ['photos', '--scales', '0.75', '--scales', '1', '--flip']
    """
    given: list[str] = []
    for word in words:
        follows = given[-2:-1] == [option] or (given[-1:] and given[-1].startswith(f"{option}="))
        given += [option, word] if follows and re.fullmatch(r"[0-9]*\.?[0-9]+", word) else [word]
    return given
