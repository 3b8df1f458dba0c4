"""Commands of a sweep end with it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Ray cancels a task like this: another thread interrupts the main one, which notices it at the next output.
CANCELLED = """
import _thread, pathlib, sys, threading, time
from attnfd.sweep.engine import Task, execute

log = pathlib.Path(sys.argv[1])

def cancel():
    while not (log.exists() and log.read_text()):
        time.sleep(0.01)
    _thread.interrupt_main()

threading.Thread(target=cancel, daemon=True).start()
command = "echo $$; while sleep 0.1; do echo; done"
try:
    execute(Task(command=command, folder=log.parent, environment={}, log=log), {})
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN], ids=["terminal", "job of a script"])
def test_a_command_ends_when_its_task_is_cancelled(handler: signal.Handlers, tmp_path: Path) -> None:
    """A script's background jobs, such as `nohup attnfd sweep &`, ignore SIGINT."""
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", CANCELLED, str(log)],
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
        timeout=40,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "interrupted\n"
    with pytest.raises(ProcessLookupError):
        os.killpg(int(log.read_text()), 0)
