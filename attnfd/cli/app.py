"""The command line: a command for each stage of `dvc.yaml`, and commands for everything else.

A command checks its options and calls the library. Imports happen when it runs, so that `--help` is fast.
"""

import os
from typing import Annotated, Any

import typer
import typer.core

from attnfd.errors import UserError


class Commands(typer.core.TyperGroup):
    """A group of commands. A name may have a dash in place of an underscore."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name.replace("-", "_"))


app = typer.Typer(
    cls=Commands,
    help="Attention-guided Feature Distillation for semantic segmentation: a DVC pipeline tracked by MLflow.",
    epilog="Run every stale cell: dvc repro. Run one cell: dvc repro distill@shapes-resnet18-attnfd-0",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"attnfd {version('attnfd')}")
        raise typer.Exit


@app.callback()
def one_process_unless_it_trains(
    context: typer.Context,
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Refuse commands whose processes would overwrite each other's files under torchrun."""
    trains = ("train_teacher", "distill", "tune", "ablate")
    if "TORCHELASTIC_RUN_ID" in os.environ and context.invoked_subcommand not in trains:
        raise UserError(
            f"torchrun: found attnfd {context.invoked_subcommand}; allowed: {', '.join(trains)}; "
            "start other commands without torchrun"
        )
