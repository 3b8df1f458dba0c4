"""The command line: one command per stage of `dvc.yaml`, and the user's own verbs.

Commands parse, check and dispatch. What one needs is imported when it runs, so that `--help` is instant.
"""

import os

import typer

from attnfd.errors import UserError

app = typer.Typer(
    help="Attention-guided Feature Distillation for semantic segmentation: a DVC pipeline tracked by MLflow.",
    epilog="Run all that is stale: dvc repro. Run one cell: dvc repro distill@shapes-resnet18-attnfd-0",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def one_process_unless_it_trains(context: typer.Context) -> None:
    """Refuse what several processes would do over each other."""
    trains = ("train_teacher", "distill", "ablate")
    if "TORCHELASTIC_RUN_ID" in os.environ and context.invoked_subcommand not in trains:
        raise UserError(
            f"torchrun: found attnfd {context.invoked_subcommand}; allowed: {', '.join(trains)}; "
            "start the others without it"
        )
