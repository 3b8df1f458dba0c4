"""The graph of `dvc.yaml` as DVC reads it, and what `dvc repro` does before and after a command.

DVC runs one command at a time. With `Graph.start` before each command and `Graph.record` after it, many can
run at once, and the result is that of `dvc repro`: the same `dvc.lock`, cache and run-cache.
"""

import itertools
import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from attnfd.errors import UserError, full_disk
from attnfd.sweep.changed import files_with

if TYPE_CHECKING:
    from dvc.stage import Stage


PIPELINE = "dvc.yaml"
BLOCKER = re.compile(r"\(PID (\d+)\): (.*)")
"""How DVC names a process that blocks another one."""
NOTE = " (another run, started {since}; wait until it ends, or use `attnfd sweep --wait`)"
"""Added to the command of a sweep, for DVC's message to a `dvc repro` that the sweep blocks."""


class BusyError(UserError):
    """Another run uses the same files; `others` names it."""

    def __init__(self, others: str) -> None:
        super().__init__(
            f"another run is active here: {others}; wait until it ends, or use `attnfd sweep --wait`"
        )
        self.others = others


@dataclass(frozen=True, kw_only=True)
class Job:
    """A cell of the graph.

    `name` is its name in `dvc repro`, such as `distill@shapes-resnet18-attnfd-0`; `upstream` names the jobs
    that it waits for. A file that `dvc add` tracks is also a job, without a command.
    """

    name: str
    command: str
    upstream: tuple[str, ...]

    @property
    def stage(self) -> str:
        """The stage, such as `distill`: the command of `attnfd` and the file in `stages/`."""
        return self.name.partition("@")[0]

    @property
    def options(self) -> dict[str, str]:
        """The options of its command: `{"dataset": "shapes", …}`."""
        words = shlex.split(self.command)
        pairs = itertools.pairwise(words)
        return {key.removeprefix("--"): value for key, value in pairs if key.startswith("--")}


class Graph:
    """The jobs of `dvc repro` in the working directory; a job comes after the jobs that it waits for.

    Args:
        params: text to read instead of `params.yaml`; do not run the jobs of such a graph.

    Raises:
        UserError: at construction, if DVC is missing, this is not a DVC repository, or `dvc.yaml` is invalid.
    """

    def __init__(self, params: str | None = None) -> None:
        if not Path(PIPELINE).exists():
            raise UserError(f"{PIPELINE}: not found; run this from the repository's root")
        with errors():
            from dvc.repo import Repo
            from dvc.repo.reproduce import get_active_graph, plan_repro

            # DVC's progress bars would overwrite ours.
            logging.getLogger("dvc").setLevel(logging.CRITICAL)
            files = None if params is None else files_with(params)
            self._repo = Repo(fs=files, _wait_for_lock=True)
            edges = get_active_graph(self._repo.index.graph)
            stages = plan_repro(edges, list(self._repo.stage.collect(PIPELINE)))
        self._stages: dict[str, Stage] = {stage.addressing: stage for stage in stages}
        self._held: dict[str, ExitStack] = {}
        self.jobs = {
            name: Job(
                name=name,
                command=_command(stage),
                upstream=tuple(sorted(needed.addressing for needed in edges.successors(stage))),
            )
            for name, stage in self._stages.items()
        }

    @property
    def folder(self) -> Path:
        """Root of the project."""
        return Path(self._repo.root_dir)

    def check_alone(self) -> None:
        """Check that no other run is active in this project.

        Raises:
            BusyError: another run is active.
        """
        with errors(), self._locked(), self._occupied([], [self._repo.root_dir]):
            pass

    def changes(self, name: str) -> list[str]:
        """What makes a job itself stale: files, params, its command, or `never ran`; empty if nothing does.

        Raises:
            UserError: DVC fails; the message says why.
        """
        stage = self._stages[name]
        with errors(), self._locked():
            entries = stage.status().get(stage.addressing, [])
        if entries and not any(out.hash_info for out in stage.outs):
            return ["never ran"]
        return [change for entry in entries for change in _described(entry)]

    def is_cached(self, name: str) -> bool:
        """Whether the run-cache has the results of a job whose upstream is up to date.

        Raises:
            UserError: DVC fails; the message says why.
        """
        from dvc.stage.cache import RunCacheNotFoundError

        stage = self._stages[name]
        with errors(), self._locked():
            if not all(dep.exists for dep in stage.deps):
                return False
            try:
                self._repo.stage_cache.restore(_unrecorded(stage), dry=True)
            except RunCacheNotFoundError:
                return False
        return True

    def start(self, name: str) -> bool:
        """Do what DVC does before a job's command. Returns whether the command must run.

        It need not run if the job is up to date, or if the run-cache has its results; then they are restored.
        Else the old outs are removed, and other DVC processes cannot use the job's files until `record` or
        `release`.

        Raises:
            BusyError: another run uses its files.
            UserError: DVC fails; the message says why.
        """
        from dvc.stage.cache import RunCacheNotFoundError

        stage = self._stages[name]
        files = [dep.fs_path for dep in stage.deps], [out.fs_path for out in stage.outs]
        with errors(), self._locked():
            if not stage.changed():
                return False
            with self._occupied(*files):
                pass  # No other run uses them, and none can start before the repository is unlocked.
            if not self.jobs[name].command:
                stage.reproduce()
                stage.dump(update_pipeline=False)
                return False
            stage.remove_outs(ignore_remove=False)
            try:
                self._repo.stage_cache.restore(stage)
            except RunCacheNotFoundError:
                with ExitStack() as held:
                    held.enter_context(self._occupied(*files))
                    self._held[name] = held.pop_all()
                return True
            _record(stage)
            return False

    def has_outs(self, name: str) -> bool:
        """Whether all outs of a job exist."""
        return all(out.exists for out in self._stages[name].outs)

    def record(self, name: str) -> None:
        """Record a job whose command has run, as DVC does: hashes, cache, run-cache and `dvc.lock`.

        Raises:
            UserError: an out is missing, or DVC cannot record the job.
        """
        with errors(), self._locked():
            self.release(name)  # DVC now locks the files itself, under another name.
            _record(self._stages[name])

    def release(self, name: str) -> None:
        """Unlock the files of a job that has started."""
        self._held.pop(name).close()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from dvc.repo import lock_repo

        with lock_repo(self._repo), self._repo.scm_context(quiet=True):
            yield

    @contextmanager
    def _occupied(self, read: list[str], write: list[str]) -> Iterator[None]:
        """Lock the files of a running job against other DVC processes, such as `dvc repro`."""
        from dvc.rwlock import rwlock

        hardlink = self._repo.config["core"].get("hardlink_lock", False)
        with rwlock(self._repo.tmp_dir, self._repo.fs, _this_run(), read, write, hardlink):
            yield


@contextmanager
def errors() -> Iterator[None]:
    """Turn errors of DVC and a full disk into one line for the user.

    Raises:
        BusyError: another run blocks DVC.
        UserError: DVC fails or is not installed, or the disk is full.
    """
    try:
        from dvc.exceptions import DvcException
        from dvc.lock import LockError
    except ModuleNotFoundError:
        raise UserError("dvc: not installed; run `pip install 'attnfd[pipeline]'`") from None
    try:
        yield
    except LockError as error:
        others = {_described_run(*found) for found in BLOCKER.findall(str(error))}
        raise BusyError(", ".join(sorted(others)) or "a command of DVC") from None
    except OSError as error:
        if full := full_disk(error, Path.cwd()):
            raise UserError(full) from None
        raise
    except DvcException as error:
        raise UserError(f"dvc: {' '.join(str(error).split())}") from None


def _this_run() -> str:
    """The name of this process in DVC's messages to others."""
    return f"attnfd {' '.join(sys.argv[1:])}{NOTE.format(since=_since(os.getpid()))}"


def _described_run(pid: str, command: str) -> str:
    """The name of another process from DVC's message: `dvc repro (process 4711, since 2026-01-31 12:03)`."""
    program, _, words = command.partition(NOTE.partition("{")[0])[0].partition(" ")
    return f"{Path(program).name} {words} (process {pid}, since {_since(int(pid))})"


def _since(pid: int) -> str:
    import psutil  # type: ignore[import-untyped]

    try:
        started = psutil.Process(pid).create_time()
    except psutil.Error:
        return "a moment ago"  # The process has ended.
    return datetime.fromtimestamp(started).isoformat(" ", "minutes")


def _command(stage: "Stage") -> str:
    commands = stage.cmd if isinstance(stage.cmd, list) else (stage.cmd or "").splitlines()
    return " && ".join(commands)


def _unrecorded(stage: "Stage") -> "Stage":
    """A copy of a stage with the current deps, and without the outs of its last run.

    With the outs, DVC would answer from `dvc.lock` and not from the run-cache. A dry look-up does not save
    the deps itself.
    """
    from dvc_data.hashfile.hash_info import HashInfo

    bare = copy(stage)
    bare.deps, bare.outs = [copy(dep) for dep in stage.deps], [copy(out) for out in stage.outs]
    bare.save_deps()
    for out in bare.outs:
        out.hash_info = HashInfo()
    return bare


def _record(stage: "Stage") -> None:
    cacheable = all(out.use_cache or out.is_metric or out.is_plot for out in stage.outs)
    stage.save(run_cache=cacheable)
    stage.commit()
    stage.dump(update_pipeline=False)


def _described(entry: str | dict[str, dict]) -> list[str]:
    """An entry of DVC's status in words: `methods.attnfd`, `attnfd/losses.py`, `data/shapes (deleted)`."""
    if isinstance(entry, str):
        return ["command" if entry == "changed checksum" else entry]
    words = []
    for changed in entry.values():
        for name, state in changed.items():
            if isinstance(state, dict):  # The params of a file.
                words += list(state)
            else:
                words.append(name if state == "modified" else f"{name} ({state})")
    return words
