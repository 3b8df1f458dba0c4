"""Options and arguments that several commands have."""

from typing import Annotated

import typer

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
