"""macOS and Windows, as far as Linux can test them: what only Linux or only Unix has is hidden."""

import ast
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import psutil
import pytest
from filelock import FileLock

from attnfd.cli import main
from attnfd.errors import UserError
from attnfd.sweep import engine
from attnfd.tracking import exported
from attnfd.training.checkpoints import Checkpoints
from attnfd.training.meter import peak_memory
from tests import miniature
from tests.miniature import PROJECT, environment
from tests.test_house import MODULES

# Modules and names that Python has on Linux and not on Windows.
ONLY_UNIX = ("crypt", "fcntl", "grp", "posix", "pty", "pwd", "resource", "spwd", "syslog", "termios", "tty")
OS = (
    "O_DIRECTORY O_NOFOLLOW chown chroot fchmod fchown fork forkpty getegid geteuid getgid getloadavg "
    "getpgid getpgrp getuid initgroups killpg lchown mkfifo mknod nice openpty pread preadv pwrite "
    "sched_getaffinity sched_setaffinity sendfile setpgid setsid setuid statvfs "
    "sync sysconf uname wait3 wait4 waitid"
)
SIGNAL = (
    "SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 SIGWINCH "
    "alarm pause pthread_kill setitimer sigwait"
)
OS_AND_SIGNAL = {f"os.{name}" for name in OS.split()} | {f"signal.{name}" for name in SIGNAL.split()}
GUARDED = {"attnfd.sweep.engine": {"os.killpg", "signal.SIGKILL"}}
"""Uses behind a check of the system."""

# First on the path, this runs before any module of ours in every process of a command.
HIDDEN = f"""
import builtins, multiprocessing, os
whole = builtins.__import__
def ours(name, globals=None, *more, **other):
    asks = (globals or {{}}).get("__name__", "")
    if name in {ONLY_UNIX} and asks.partition(".")[0] in ("attnfd", "stages"):
        raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
    return whole(name, globals, *more, **other)
builtins.__import__ = ours
for name in ("killpg", "O_DIRECTORY", "sched_getaffinity"):
    delattr(os, name)
multiprocessing.set_start_method("spawn")
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """An environment in which processes see Windows, with a pipe of its code page."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HIDDEN, encoding="utf-8")
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", str(PROJECT))])
    return {"PYTHONPATH": path, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}


def used(tree: ast.AST) -> Iterator[str]:
    """Attributes of `os` and `signal`, and modules, that a source uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and node.module in ("os", "signal"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", MODULES)
def test_what_only_unix_has_is_used_behind_a_check(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert set(used(tree)) & OS_AND_SIGNAL == GUARDED.get(module, set())
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in top if isinstance(node, ast.ImportFrom) and node.module}
    assert not names & set(ONLY_UNIX)


def test_every_module_is_imported_without_what_only_unix_has(elsewhere: dict[str, str]) -> None:
    names = [name for name in MODULES if not name.endswith("__main__")]
    code = f"""if True:
        from importlib import import_module
        for name in {names}:
            import_module(name)
        from attnfd.training import meter
        exec("import math", vars(meter))
        try:
            exec("import resource", vars(meter))
        except ModuleNotFoundError:
            print("hidden")
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment() | elsewhere,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "hidden\n"


@pytest.mark.parametrize("command", [("plan",), ("check",), ("--help",)])
def test_a_pipe_of_another_code_page_is_written_to(
    command: tuple[str, ...], elsewhere: dict[str, str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "attnfd", *command],
        cwd=PROJECT, env=environment() | elsewhere, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode("cp1252").strip()
    assert b"Error" not in done.stderr


def test_memory_is_measured_without_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert peak <= peak_memory() < 1.1 * peak
    monkeypatch.setitem(sys.modules, "resource", None)
    assert 10 * 2**20 < peak_memory() <= 1.1 * peak
    memory = SimpleNamespace(rss=1, peak_wset=2)
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(memory_info=lambda: memory))
    assert peak_memory() == 2


def test_a_checkpoint_is_saved_where_folders_are_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.open

    def only_files(path: Any, *more: Any, **other: Any) -> int:
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path, *more, **other)

    monkeypatch.delattr(os, "O_DIRECTORY")
    monkeypatch.setattr(os, "open", only_files)
    checkpoints = Checkpoints(tmp_path / "key")
    checkpoints.save({"step": 3}, 3)
    assert checkpoints.load() == {"step": 3}


def test_a_training_is_alone_where_a_locked_file_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {"write_text": Path.write_text, "unlink": Path.unlink}

    def refuse(name: str) -> Any:
        def call(path: Path, *given: Any, **other: Any) -> Any:
            if path.suffix == ".lock":
                raise PermissionError(13, "Permission denied", str(path))
            return whole[name](path, *given, **other)

        return call

    for name in whole:
        monkeypatch.setattr(Path, name, refuse(name))
    with Checkpoints(tmp_path / "key").alone():
        assert FileLock(tmp_path / "key.lock").is_locked is False  # not locked by this object
        with pytest.raises(TimeoutError):
            FileLock(tmp_path / "key.lock").acquire(blocking=False)
    FileLock(tmp_path / "key.lock").acquire(blocking=False)


def test_a_sweep_says_in_a_line_that_it_does_not_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(os, "killpg")
    with pytest.raises(UserError, match="found Windows; allowed: Linux, macOS or WSL"):
        engine.check_system()
    monkeypatch.setattr(sys, "argv", ["attnfd", "sweep"])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "dvc repro" in said
    assert "Traceback" not in said


def test_weights_are_sent_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, bytes] = {}

    class Client:
        def get_logged_model(self, model: str) -> SimpleNamespace:
            return SimpleNamespace(artifact_location=f"mlflow-artifacts:/1/{model}")

        def log_model_artifacts(self, model: str, folder: str) -> None:
            files = [file for file in Path(folder).rglob("*") if file.is_file()]
            sent.update({file.relative_to(folder).as_posix(): file.read_bytes() for file in files})

    def not_allowed(*given: Any, **other: Any) -> None:
        raise OSError(1314, "A required privilege is not held by the client")

    monkeypatch.setattr(mlflow, "MlflowClient", Client)
    monkeypatch.setattr(Path, "symlink_to", not_allowed)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    exported._put(tmp_path / "model.safetensors", "m-1")
    assert sent == {"data/network/model.safetensors": b"weights"}


@pytest.mark.slow
def test_the_miniature_runs_without_what_only_unix_has(tmp_path: Path, elsewhere: dict[str, str]) -> None:
    (tmp_path / "project").mkdir()
    project = miniature.clone(tmp_path / "project")
    path = os.pathsep.join([elsewhere["PYTHONPATH"].partition(os.pathsep)[0], str(project)])
    surroundings = {**environment(), **elsewhere, "PYTHONPATH": path, "ATTNFD_WORKERS": "1"}
    done = subprocess.run(
        ["dvc", "repro"],
        cwd=project,
        env=surroundings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")
    assert (project / "reports/shapes/report.html").is_file()
