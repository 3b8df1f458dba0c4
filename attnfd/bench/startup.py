"""The fixed time of a command: help, each stage, and `dvc repro` when nothing is stale.

Run it in a project with a very small pipeline that has run: its steps and images take almost no time, so the
time of a stage is its fixed cost.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.progress import track
from rich.table import Table

from attnfd.bench import timing
from attnfd.errors import UserError
from attnfd.paths import Cell

RECORD = Path("docs/startup.json")
"""The last recorded figures: seconds by command, and the machine."""


def startup(cells: Mapping[str, Cell], rounds: int, console: Console, *, record: Path | None) -> None:
    """Time each command, show the medians beside the last figures, and write them to `record` if given.

    Args:
        cells: the cell to run each stage for, by stage.

    Raises:
        UserError: the pipeline has not run here, or a command fails.
    """
    if json.loads(_run("dvc", "status", "--json") or "{}"):
        raise UserError(
            "dvc status: found stale stages; allowed: none, since their work would be timed, too; "
            "run `python -m tests.miniature FOLDER`, then this command in FOLDER"
        )
    calls: dict[str, Callable[[], object]] = {
        "attnfd --help": partial(_attnfd, "--help"),
        "dvc repro, nothing to do": partial(_run, "dvc", "repro"),
        **{stage: partial(_attnfd, stage, *_options(cell)) for stage, cell in cells.items()},
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    # Stages rewrite their outputs, which the next `dvc repro` would check: so its rounds come before theirs.
    for name, call in track(calls.items(), "Commands"):
        for _ in range(rounds):
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    found = {name: round(median(taken), 2) for name, taken in seconds.items()}
    console.print(table(found, _recorded()))
    console.print(str(timing.machine()), highlight=False, markup=False)
    if record is not None:
        content = {"machine": timing.machine(), "rounds": rounds, "seconds": found}
        record.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _options(cell: Cell) -> list[str]:
    taught = ("--variant", cell.variant) if cell.variant else ("--method", cell.method)
    given = [("--dataset", cell.dataset), ("--student", cell.student), taught, ("--seed", cell.seed)]
    return [word for name, value in given if value is not None for word in (name, str(value))]


def table(found: Mapping[str, float], recorded: Mapping[str, float]) -> Table:
    """Seconds by command, beside the last figures if there are any."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("command")
    for column in ("seconds", "last", "ratio"):
        shown.add_column(column, justify="right")
    for name, taken in found.items():
        last = recorded.get(name)
        compared = ("", "") if last is None else (f"{last:.2f}", f"{taken / last:.2f}")
        shown.add_row(name, f"{taken:.2f}", *compared)
    return shown


def _recorded() -> dict[str, float]:
    return json.loads(RECORD.read_text(encoding="utf-8"))["seconds"] if RECORD.is_file() else {}


def _attnfd(*words: str) -> str:
    return _run(sys.executable, "-m", "attnfd", *words)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise UserError(f"{' '.join(command)}: {' '.join(last)}")
    return done.stdout
