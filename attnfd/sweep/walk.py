"""All that is stale at once: what `dvc repro` does job by job, done side by side."""

import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape

from attnfd.errors import PartlyError, UserError
from attnfd.sweep import engine
from attnfd.sweep.board import Board, logfile
from attnfd.sweep.engine import Engine, Task
from attnfd.sweep.graph import BusyError, Graph, Job

POLL_SECONDS = 0.5
BUSY_SECONDS = 2
SHARED = ("dataset", "seed")
"""Options that jobs must have in common for one command to do them with one teacher."""
TAUGHT = ("distill", "ablate", "tune")
PARTLY = f"exit status {PartlyError.status}:"


@dataclass
class Outcome:
    """What became of the jobs: those that ran, those that were up to date or in the run-cache, those that
    failed and why, and those skipped with the failed job that they wait for.
    """

    ran: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def sweep(
    graph: Graph, runner: Engine, console: Console, students_per_teacher: int = 1, *, wait: bool = False
) -> Outcome:
    """Run what is stale in a graph, each job when all that it waits for is done.

    Staleness is judged when a job's turn comes, as DVC does: where an upstream job gives the same outs again,
    what follows stays. A job is recorded as soon as its command has ended, so that an interrupted sweep goes
    on where it was; a failed one stops its dependents and nothing else.

    Up to `students_per_teacher` jobs of one stage, dataset and seed that are ready at the same time are run
    by one command, see `stages/distill.py`.

    Args:
        wait: for a job whose files another run is at work on; else it has failed.
    """
    with Board(console, len(graph.jobs)) as board, _interruptible():
        walk = Walk(graph, runner, board, students_per_teacher, wait=wait)
        try:
            while walk.step():
                pass
        finally:
            runner.stop()
            walk.release()
    return walk.outcome


class Walk:
    """The way through a graph, a `step` at a time."""

    def __init__(
        self, graph: Graph, runner: Engine, board: Board, students_per_teacher: int, *, wait: bool
    ) -> None:
        self.outcome = Outcome()
        self._graph = graph
        self._runner = runner
        self._board = board
        self._students_per_teacher = students_per_teacher
        self._wait = wait
        self._said = ""
        self._waiting = dict(graph.jobs)
        self._done: set[str] = set()
        self._running: dict[str, list[Job]] = {}  # By the first of those that one command does.
        # Jobs without results, each with the failed job that is the cause.
        self._cause: dict[str, str] = {}

    def step(self) -> bool:
        """Start what can start, record what has ended; whether anything is left."""
        self._start_ready()
        if self._running:
            for name, reason in self._runner.wait(POLL_SECONDS).items():
                self._end(name, reason)
            self._board.update()
        elif self._waiting:  # For another run.
            time.sleep(BUSY_SECONDS)
        return bool(self._waiting or self._running)

    def release(self) -> None:
        """Give up on what still runs."""
        for jobs in self._running.values():
            for job in jobs:
                self._graph.release(job.name)

    def _start_ready(self) -> None:
        for name, job in list(self._waiting.items()):
            if len(self._running) == self._runner.jobs:
                return
            if name not in self._waiting:  # Started with one before it.
                continue
            if causes := [self._cause[needed] for needed in job.upstream if needed in self._cause]:
                del self._waiting[name]
                self._cause[name] = self.outcome.skipped[name] = causes[0]
                self._board.end(name)
            elif self._is_ready(job) and self._must_run(job):
                self._start([job, *self._companions(job)])

    def _is_ready(self, job: Job) -> bool:
        return self._done.issuperset(job.upstream)

    def _companions(self, first: Job) -> Iterator[Job]:
        """Jobs that are to run by the same command as this one."""
        if first.stage not in TAUGHT:
            return
        room = self._students_per_teacher - 1
        for job in list(self._waiting.values()):
            if room and _kin(job) == _kin(first) and self._is_ready(job) and self._must_run(job):
                room -= 1
                yield job

    def _must_run(self, job: Job) -> bool:
        """Take a job off those that wait; whether its command has to run."""
        try:
            must_run = self._graph.start(job.name)
        except UserError as error:
            if self._wait and isinstance(error, BusyError):
                self._say(f"waiting for another run: {error.others}")
                return False
            del self._waiting[job.name]
            self._fail(job.name, str(error))
            return False
        del self._waiting[job.name]
        if not must_run:
            self.outcome.fresh.append(job.name)
            self._done.add(job.name)
            self._board.end(job.name)
        return must_run

    def _start(self, jobs: list[Job]) -> None:
        name, log = jobs[0].name, logfile(jobs[0].name)
        folder = self._graph.folder
        environment = {"DVC_ROOT": str(folder), **engine.passed_on(), "DVC_STAGE": name}
        task = Task(command=_command(jobs), folder=folder, environment=environment, log=log)
        for job in jobs:
            logfile(job.name).unlink(missing_ok=True)
        self._runner.submit(name, task)
        self._running[name] = jobs
        for job in jobs:
            if job.name != name:  # Where one looks for a job's log there shall be one.
                log.parent.mkdir(parents=True, exist_ok=True)
                logfile(job.name).symlink_to(log)
            self._board.start(job.name, log)

    def _end(self, name: str, reason: str) -> None:
        for job in self._running.pop(name):
            try:
                # Of several trainings some can fail; those that did have no outs.
                if reason and not (reason.startswith(PARTLY) and self._graph.has_outs(job.name)):
                    self._graph.release(job.name)
                    raise UserError(reason)
                self._graph.record(job.name)
            except UserError as error:
                self._fail(job.name, str(error))
                continue
            self.outcome.ran.append(job.name)
            self._done.add(job.name)
            self._board.end(job.name, "[green]done[/]")

    def _say(self, line: str) -> None:
        if line != self._said:
            self._said = line
            self._board.say(line)

    def _fail(self, name: str, reason: str) -> None:
        self._cause[name] = name
        self.outcome.failed[name] = reason
        self._board.end(name, "[red]failed[/]")


def _kin(job: Job) -> tuple[str, ...]:
    return job.stage, *(job.options.get(key, "") for key in SHARED)


def _command(jobs: list[Job]) -> str:
    """The first job's command, with what the others have of their own as further options.

    Example:
        >>> one, other = "attnfd distill --student a --seed 0", "attnfd distill --student b --seed 0"
        >>> _command([Job(name="", command=command, upstream=()) for command in (one, other)])
        'attnfd distill --student a --seed 0 --student b'
    """
    own = [
        word
        for job in jobs[1:]
        for key, value in job.options.items()
        if key not in SHARED
        for word in (f"--{key}", value)
    ]
    return " ".join([jobs[0].command, *map(shlex.quote, own)])


def show(outcome: Outcome, console: Console) -> None:
    """Say what ran, and list what did not."""
    console.print(f"{len(outcome.ran)} cells ran, {len(outcome.fresh)} were up to date or in the run-cache")
    for name, reason in outcome.failed.items():
        console.print(f"[bold red]failed:[/] {name}: {escape(reason)}")
        if (log := logfile(name)).exists():
            console.print(f"  {log}", markup=False)
    for name, cause in outcome.skipped.items():
        console.print(f"[yellow]skipped:[/] {name}: waits for {cause}")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Take `kill` for Ctrl-C, which the jobs are told of."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
