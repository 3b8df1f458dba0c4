"""`python -m attnfd` runs the code in the working directory; DVC stages must run that code."""

import atexit
import os
import sys

from attnfd.cli.main import main

status = 1


@atexit.register  # The first registered function is called last.
def leave() -> None:
    # A normal exit visits the millions of objects of the libraries once more: 1.5 s in a cell.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


try:
    main()
    status = 0
except SystemExit as ended:
    status = int(ended.code or 0)
