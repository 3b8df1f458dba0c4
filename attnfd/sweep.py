"""All that is stale at once: what `dvc repro` does job by job, done side by side."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from attnfd import engine
from attnfd.engine import Engine, Task
from attnfd.errors import UserError
from attnfd.graph import Graph
from attnfd.paths import main_root

POLL_SECONDS = 0.5
LOGS = Path(".attnfd", "sweep")


@dataclass
class Outcome:
    """What became of the jobs: those that ran, those that were up to date or in the run-cache, those that
    failed and why, and those skipped with the failed job that they wait for.
    """

    ran: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def sweep(graph: Graph, runner: Engine, console: Console) -> Outcome:
    """Run what is stale in a graph, each job when all that it waits for is done.

    Staleness is judged when a job's turn comes, as DVC does: where an upstream job gives the same outs again,
    what follows stays. A job is recorded as soon as its command has ended, so that an interrupted sweep goes
    on where it was; a failed one stops its dependents and nothing else.
    """
    with Board(console, len(graph.jobs)) as board, _interruptible():
        walk = Walk(graph, runner, board)
        try:
            while walk.step():
                pass
        finally:
            runner.stop()
            walk.release()
    return walk.outcome


class Walk:
    """The way through a graph, a `step` at a time."""

    def __init__(self, graph: Graph, runner: Engine, board: "Board") -> None:
        self.outcome = Outcome()
        self._graph = graph
        self._runner = runner
        self._board = board
        self._waiting = dict(graph.jobs)
        self._done: set[str] = set()
        self._running: set[str] = set()
        # Jobs without results, each with the failed job that is the cause.
        self._cause: dict[str, str] = {}

    def step(self) -> bool:
        """Start what can start, record what has ended; whether anything is left."""
        self._start_ready()
        if self._running:
            for name, reason in self._runner.wait(POLL_SECONDS).items():
                self._end(name, reason)
            self._board.update()
        return bool(self._waiting or self._running)

    def release(self) -> None:
        """Give up on what still runs."""
        for name in self._running:
            self._graph.release(name)

    def _start_ready(self) -> None:
        for name, job in list(self._waiting.items()):
            if len(self._running) == self._runner.jobs:
                return
            if causes := [self._cause[needed] for needed in job.upstream if needed in self._cause]:
                del self._waiting[name]
                self._cause[name] = self.outcome.skipped[name] = causes[0]
                self._board.end(name)
            elif self._done.issuperset(job.upstream):
                del self._waiting[name]
                self._start(name)

    def _start(self, name: str) -> None:
        try:
            must_run = self._graph.start(name)
        except UserError as error:
            self._fail(name, str(error))
            return
        if not must_run:
            self.outcome.fresh.append(name)
            self._done.add(name)
            self._board.end(name)
            return
        log = logfile(name)
        folder = self._graph.folder
        environment = {"DVC_ROOT": str(folder), **engine.passed_on(), "DVC_STAGE": name}
        command = self._graph.jobs[name].command
        self._runner.submit(name, Task(command=command, folder=folder, environment=environment, log=log))
        self._running.add(name)
        self._board.start(name, log)

    def _end(self, name: str, reason: str) -> None:
        self._running.remove(name)
        try:
            if reason:
                self._graph.release(name)
                raise UserError(reason)
            self._graph.record(name)
        except UserError as error:
            self._fail(name, str(error))
            return
        self.outcome.ran.append(name)
        self._done.add(name)
        self._board.end(name, "[green]done[/]")

    def _fail(self, name: str, reason: str) -> None:
        self._cause[name] = name
        self.outcome.failed[name] = reason
        self._board.end(name, "[red]failed[/]")


class Board:
    """On the terminal, a line for all jobs, and one for each that runs: its time and what it wrote last."""

    def __init__(self, console: Console, jobs: int) -> None:
        name = TextColumn("{task.description}", markup=False)
        note = TextColumn("{task.fields[note]}", markup=False)
        self._progress = Progress(SpinnerColumn(), TimeElapsedColumn(), name, note, console=console)
        self._all = self._progress.add_task("all cells", total=jobs, note=f"0/{jobs}")
        self._shown: dict[str, tuple[TaskID, Path]] = {}

    def __enter__(self) -> "Board":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def start(self, name: str, log: Path) -> None:
        """Show a job that has been started."""
        self._shown[name] = self._progress.add_task(name, note=""), log

    def update(self) -> None:
        """Show what the jobs wrote last."""
        for task, log in self._shown.values():
            self._progress.update(task, note=engine.last_line(log))

    def end(self, name: str, word: str = "") -> None:
        """Count a job, and say what became of it if it ran."""
        if name in self._shown:
            task, _ = self._shown.pop(name)
            seconds = self._progress.tasks[self._progress.task_ids.index(task)].elapsed or 0
            self._progress.remove_task(task)
            self._progress.console.print(f"{word} {name} ({seconds:.0f} s)")
        self._progress.advance(self._all)
        everything = self._progress.tasks[0]
        self._progress.update(self._all, note=f"{everything.completed:.0f}/{everything.total:.0f}")


def show(outcome: Outcome, console: Console) -> None:
    """Say what ran, and list what did not."""
    console.print(f"{len(outcome.ran)} cells ran, {len(outcome.fresh)} were up to date or in the run-cache")
    for name, reason in outcome.failed.items():
        console.print(f"[bold red]failed:[/] {name}: {escape(reason)}")
        if (log := logfile(name)).exists():
            console.print(f"  {log}", markup=False)
    for name, cause in outcome.skipped.items():
        console.print(f"[yellow]skipped:[/] {name}: waits for {cause}")


def logfile(name: str) -> Path:
    """Where the output of a job goes."""
    return (main_root() / LOGS / f"{name}.log").absolute()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Take `kill` for Ctrl-C, which the jobs are told of."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
