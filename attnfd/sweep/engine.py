"""Runs the commands of a sweep with Ray, on this machine or on a cluster that shares the project's folder."""

import os
import re
import signal
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Protocol

from attnfd.errors import UserError

# Variables that a cell gets from the driver's environment; all others, such as its GPU, come from the node.
PASSED_ON = ("ATTNFD_", "DVC_", "MLFLOW_")
# Without a terminal, rich shows no progress; these variables make it write to a pipe as to a terminal.
TERMINAL = {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "100"}
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
GRACE_SECONDS = 60  # Eight students write checkpoints of about 1 GB.
# Ray starts clusters with a token, so joining them must use a token, too.
RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_AUTH_MODE": "token"}
OBJECT_STORE = 100 * 2**20  # Bytes; it contains only commands and exit statuses.


@dataclass(frozen=True, kw_only=True)
class Task:
    """A command to run in a folder; `environment` is added to the node's, output goes to `log`."""

    command: str
    folder: Path
    environment: Mapping[str, str]
    log: Path


class Engine(Protocol):
    """Runs several tasks at once."""

    jobs: int

    def submit(self, name: str, task: Task) -> None:
        """Run a task as soon as the resources for it are free."""

    def wait(self, seconds: float) -> dict[str, str]:
        """Wait at most so long for a task to end. Returns the ended tasks, each with why it failed, or ""."""

    def stop(self) -> None:
        """Interrupt the running tasks, and wait for their end."""


class Ray:
    """Ray on this machine, or on the cluster at `address`.

    Args:
        jobs: tasks at once; None: as many as the GPUs allow; without GPUs one per four cores, at least two.
        gpus: GPUs, or share of a GPU, for each task; None: one GPU if there are GPUs.

    Raises:
        UserError: Ray is not installed, the cluster cannot be reached, or no node has enough GPUs for a task.
    """

    def __init__(self, *, jobs: int | None, gpus: float | None, address: str | None) -> None:
        self._ray = _library()
        # The logs contain all output of the cells, and `wait` returns Ray's errors.
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        local = {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
        try:
            self._ray.init(address or "local", **quiet, **({} if address else local))
        except Exception as error:  # Ray raises a plain Exception if one of its processes times out.
            fix = "start it by `ray start --head`" if address else "is the machine overloaded? Try again"
            raise UserError(f"ray at {address or 'this machine'}: {_line(error)}; {fix}") from None
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        cores = sum(node.get("CPU", 0) for node in nodes)
        gpus = _share(gpus, [node.get("GPU", 0) for node in nodes])
        self.jobs = jobs or _default_jobs(cores, sum(node.get("GPU", 0) for node in nodes), gpus)
        share = min(cores / self.jobs, max(node.get("CPU", 0) for node in nodes))
        self._threads = max(1, int(share))
        self._run = self._ray.remote(execute).options(
            num_cpus=self._threads if share >= 1 else share, num_gpus=gpus, max_retries=0
        )
        self._tasks: dict[Any, str] = {}

    def submit(self, name: str, task: Task) -> None:
        environment = {"OMP_NUM_THREADS": str(self._threads), **task.environment}
        self._tasks[self._run.remote(task, environment)] = name

    def wait(self, seconds: float) -> dict[str, str]:
        ended, _ = self._ray.wait([*self._tasks], num_returns=1, timeout=seconds)
        return {self._tasks.pop(task): self._reason(task) for task in ended}

    def stop(self) -> None:
        for task in self._tasks:
            self._ray.cancel(task)
        if self._tasks:
            self._ray.wait([*self._tasks], num_returns=len(self._tasks), timeout=2 * GRACE_SECONDS)
        self._ray.shutdown()

    def _reason(self, task: Any) -> str:
        try:
            return self._ray.get(task)
        except self._ray.exceptions.RayError as error:  # A node was lost, or ran out of memory.
            return _line(error)


def check_system() -> None:
    """Check that a command can be ended together with all processes that it started.

    Raises:
        UserError: this system does not support it.
    """
    if not hasattr(os, "killpg"):
        raise UserError(
            "sweep: found Windows; allowed: Linux, macOS or WSL; on Windows run `dvc repro`, "
            "which trains the same cells one after another"
        )


def execute(task: Task, environment: Mapping[str, str]) -> str:
    """Run a task on this node. Returns why it failed, or "".

    If the caller is interrupted, the command and all processes that it started end.
    """
    _allow_interrupts()
    process = subprocess.Popen(
        task.command,
        shell=True,
        cwd=task.folder,
        env={**os.environ, **TERMINAL, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        last = _follow(process.stdout, task.log)
        status = process.wait()
    except BaseException:
        _end(process)
        raise
    return f"exit status {status}: {last}" if status else ""


def _allow_interrupts() -> None:
    """Let this process and its commands react to SIGINT, which a script's background jobs ignore."""
    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def passed_on() -> dict[str, str]:
    """The part of this process's environment that a command needs on every node."""
    kept = {key: value for key, value in os.environ.items() if key.startswith(PASSED_ON)}
    return {**kept, "PATH": os.environ.get("PATH", os.defpath)}


def last_line(log: Path) -> str:
    """The last line that a task wrote, such as its progress."""
    with suppress(FileNotFoundError), log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1000))
        lines = file.read().decode(errors="replace").splitlines()
        return lines[-1] if lines else ""
    return ""


def _follow(output: IO[bytes], log: Path) -> str:
    """Copy output to a log as a terminal shows it: a line that is redrawn replaces its earlier version."""
    log.parent.mkdir(parents=True, exist_ok=True)
    text = ""
    with log.open("w", encoding="utf-8") as file:
        kept = 0
        for piece in TextIOWrapper(output, encoding="utf-8", errors="replace", newline=""):
            if line := CONTROL.sub("", piece).strip():
                text = line
                file.seek(kept)
                file.truncate()
                file.write(f"{line}\n")
                file.flush()
            if piece.endswith("\n"):
                kept = file.tell()
    return text


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGINT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
            return


def _library() -> ModuleType:
    for key, value in RAY.items():
        os.environ.setdefault(key, value)
    try:
        import ray
    except ModuleNotFoundError:
        raise UserError("ray: not installed; run `pip install 'attnfd[sweep]'`") from None
    return ray


def _share(asked: float | None, there: list[float]) -> float:
    """GPUs of a task.

    >>> _share(None, [0, 4]), _share(None, [0]), _share(0.25, [1])
    (1, 0, 0.25)
    """
    most = max(there)
    if asked is None:
        return min(1, most)
    if asked > most or (asked > 1 and asked % 1):
        raise UserError(
            f"--gpus-per-job: found {asked:g}; allowed: up to {most:g} on this machine or cluster, and a "
            "whole number above 1"
        )
    return asked


def _default_jobs(cores: float, gpus: float, share: float) -> int:
    """Tasks at once.

    >>> _default_jobs(16, 2, 0.25), _default_jobs(16, 0, 0), _default_jobs(2, 0, 0), _default_jobs(1, 0, 0)
    (8, 4, 2, 1)
    """
    if share:
        return max(1, int(gpus / share))
    return max(1, int(min(cores, max(2, cores // 4))))


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
