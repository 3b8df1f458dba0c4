"""The entry point: runs a command, and prints an error as one line."""

import gc
import os
import sys
import traceback
from io import TextIOWrapper
from pathlib import Path

from attnfd.cli import benchmarks, pipeline, tools  # noqa: F401 - they add their commands to the app
from attnfd.cli.app import app
from attnfd.cli.messages import plain, say, say_error
from attnfd.errors import StoppedError, UserError, full_disk
from attnfd.paths import main_root


def main() -> None:
    """Run a command. An error that the user can fix is printed in one line, with exit status 2."""
    # The libraries make millions of objects that are never freed. By default, the garbage collector scans
    # them again and again during the imports, which takes a sixth of the time of a small cell.
    gc.set_threshold(100_000, 50, 50)
    # A pipe on Windows cannot encode → and ≈: a question mark is better than a traceback.
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")
    try:
        app()
    except StoppedError as interrupted:
        say(plain(interrupted))
        sys.exit(interrupted.status)
    except Exception as error:
        explained = _explained(error)
        if explained is None:
            raise
        say_error(explained)
        sys.exit(explained.status)


def _explained(error: Exception) -> UserError | None:
    """The error as a `UserError`; None if it is a fault of the program."""
    if isinstance(error, UserError):
        return error
    if full := full_disk(error, *_written(error)):
        return UserError(full)
    if _loader_died(error):
        hint = "if memory is short, set ATTNFD_WORKERS=0, which starts no such process"
        return UserError(f"a data loader's process was killed; run the same command again to resume; {hint}")
    if isinstance(error, OSError) and error.errno is not None:
        what = f"{error.filename or 'a file'}: {error.strerror}"
        return UserError(f"{what}; check that you can read and write it, and that its disk has room")
    return None


def _loader_died(error: Exception) -> bool:
    """Whether a process of a `DataLoader` died. Sometimes its connection breaks before torch notices."""
    if isinstance(error, RuntimeError):
        return "DataLoader worker" in str(error)
    loader = os.path.join("torch", "utils", "data", "dataloader.py")
    frames = traceback.walk_tb(error.__traceback__)
    broken = isinstance(error, (ConnectionError, EOFError))
    return broken and any(frame.f_code.co_filename.endswith(loader) for frame, _ in frames)


def _written(error: Exception) -> list[Path]:
    """Folders that a command may have written to, or the one that the error names."""
    if isinstance(error, OSError) and error.filename:
        return [Path(os.fsdecode(error.filename)).parent]
    given = [Path(word) for word in sys.argv[1:] if os.sep in word]
    return [Path.cwd(), main_root(), Path(os.environ.get("TMPDIR", "/tmp")), *given]
