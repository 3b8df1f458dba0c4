"""The entry point: runs a command, and prints an error as one line."""

import gc
import sys
from typing import NoReturn

from attnfd.cli import pipeline, tools  # noqa: F401 - they add their commands to the app
from attnfd.cli.app import app
from attnfd.cli.messages import plain, tell
from attnfd.errors import StoppedError, UserError


def main() -> None:
    """Run a command; what the user can mend is told in a line, with exit status 2."""
    # The libraries make millions of objects that stay. As it is set, Python looks through them over and over
    # while they are imported: a sixth of what a small cell takes.
    gc.set_threshold(100_000, 50, 50)
    try:
        app()
    except StoppedError as interrupted:
        tell(plain(interrupted))
        sys.exit(interrupted.status)
    except UserError as error:
        _fail(error)
    except OSError as error:
        if error.errno is None:
            raise
        what = f"{error.filename or 'a file'}: {error.strerror}"
        _fail(UserError(f"{what}; see that it may be read and written, and that its disk has room"))
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        hint = "if memory is short, ATTNFD_WORKERS=0 does without such processes"
        _fail(UserError(f"a loader's process was killed; start the same again, and it goes on; {hint}"))


def _fail(error: UserError) -> NoReturn:
    tell(f"[bold red]error:[/] {plain(error)}")
    sys.exit(error.status)
