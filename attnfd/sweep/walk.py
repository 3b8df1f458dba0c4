"""Runs stale jobs in parallel that `dvc repro` would run one after another."""

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
"""Options that must be equal for jobs that one command runs with one teacher."""
TAUGHT = ("distill", "ablate", "tune")
PARTLY = f"exit status {PartlyError.status}:"


@dataclass
class Outcome:
    """The results of the jobs: those that ran, those that were up to date or in the run-cache, those that
    failed with the reason, and those that were skipped with the failed job that they depend on.
    """

    ran: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def sweep(
    graph: Graph, runner: Engine, console: Console, students_per_teacher: int = 1, *, wait: bool = False
) -> Outcome:
    """Run the stale jobs of a graph, each as soon as all jobs that it depends on are done.

    As in DVC, a job is checked when its turn comes: if the upstream jobs produce the same outs as before, it
    does not run. A job is recorded as soon as its command has ended, so an interrupted sweep can resume. If a
    job fails, only the jobs that depend on it are skipped.

    One command runs up to `students_per_teacher` jobs that have the same stage, dataset and seed and are
    ready at the same time, see `stages/distill.py`.

    Args:
        wait: wait if another run uses a job's files; if false, the job fails.
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
    """Goes through a graph, one `step` at a time."""

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
        self._running: dict[str, list[Job]] = {}  # By the first job of each command.
        # Jobs without results, each with the failed job that caused it.
        self._cause: dict[str, str] = {}

    def step(self) -> bool:
        """Start the jobs that can start, record those that have ended. Returns whether any are left."""
        self._start_ready()
        if self._running:
            for name, reason in self._runner.wait(POLL_SECONDS).items():
                self._end(name, reason)
            self._board.update()
        elif self._waiting:  # They wait for another run.
            time.sleep(BUSY_SECONDS)
        return bool(self._waiting or self._running)

    def release(self) -> None:
        """Unlock the files of the jobs that still run."""
        for jobs in self._running.values():
            for job in jobs:
                self._graph.release(job.name)

    def _start_ready(self) -> None:
        for name, job in list(self._waiting.items()):
            if len(self._running) == self._runner.jobs:
                return
            if name not in self._waiting:  # It was started together with an earlier job.
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
        """Other jobs for the same command."""
        if first.stage not in TAUGHT:
            return
        room = self._students_per_teacher - 1
        for job in list(self._waiting.values()):
            if room and _kin(job) == _kin(first) and self._is_ready(job) and self._must_run(job):
                room -= 1
                yield job

    def _must_run(self, job: Job) -> bool:
        """Remove a job from the waiting ones. Returns whether its command must run."""
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
            if job.name != name:  # Every job needs a log under its own name.
                log.parent.mkdir(parents=True, exist_ok=True)
                logfile(job.name).symlink_to(log)
            self._board.start(job.name, log)

    def _end(self, name: str, reason: str) -> None:
        for job in self._running.pop(name):
            try:
                # If only some of several trainings failed, those have no outs.
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
    """The first job's command, with the options of the other jobs that differ added to it.

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
    """Print what ran, and list what failed or was skipped."""
    console.print(f"{len(outcome.ran)} cells ran, {len(outcome.fresh)} were up to date or in the run-cache")
    for name, reason in outcome.failed.items():
        console.print(f"[bold red]failed:[/] {name}: {escape(reason)}")
        if (log := logfile(name)).exists():
            console.print(f"  {log}", markup=False)
    for name, cause in outcome.skipped.items():
        console.print(f"[yellow]skipped:[/] {name}: depends on {cause}")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Handle `kill` like Ctrl-C, so that the jobs are interrupted, too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
