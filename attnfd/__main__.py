"""`python -m attnfd`: the code in the working directory, which is what a DVC stage must run."""

import atexit
import os
import sys

from attnfd.cli.main import main

status = 1


@atexit.register  # The first one that is registered is called last.
def leave() -> None:
    # Python would look through the millions of objects of the libraries once more: 1.5 s in a cell.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


try:
    main()
    status = 0
except SystemExit as ended:
    status = int(ended.code or 0)
