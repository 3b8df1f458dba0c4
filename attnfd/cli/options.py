"""Options and arguments that several commands have."""

from typing import Annotated

import typer

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
    list[str], typer.Option("--factor", help="Of the method's weight: a number of `tune.factors`.")
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
        help="A folder below results/ or ablation/, such as shapes/resnet18/attnfd/0. Without the seed: all "
        "seeds. With @REV behind it: at a Git revision or DVC experiment.",
        show_default=False,
        autocompletion=completion.cells,
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of initial weights, order and augmentation.")]

ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A folder such as models/shapes/resnet18/attnfd/0, an MLflow run's id, or a registered model.",
        autocompletion=completion.models,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write over what is there.")]
