"""The default pipeline under random kills: `python -m tests.soak FOLDER --minutes 60`.

Runs the pipeline once without kills, then in new clones, one after another. In each clone, `dvc repro` and
all its processes are killed at random moments and started again. Every clone must end with the `dvc.lock` of
the first run.
The log goes to standard output.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests import miniature

PAUSE = (5.0, 150.0)
"""Seconds between a start and its kill, drawn evenly between the logarithms of these."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    random.seed(given.seed)
    head = subprocess.check_output(
        ["git", "-C", miniature.PROJECT, "rev-parse", "--short", "HEAD"], text=True
    )
    say(f"commit {head.strip()}, seed {given.seed}")

    reference = clone(miniature.PROJECT, given.folder / "reference")
    start = time.monotonic()
    assert repro(reference, None)
    say(f"reference: {time.monotonic() - start:.0f} s undisturbed")
    expected = (reference / "dvc.lock").read_bytes()

    end = time.monotonic() + 60 * given.minutes
    rounds = kills = 0
    while time.monotonic() < end:
        rounds += 1
        folder = clone(reference, given.folder / f"round-{rounds}")  # always of the same commit
        start, disturbed = time.monotonic(), 0
        while not repro(folder, pause()):
            disturbed += 1
        kills += disturbed
        same = (folder / "dvc.lock").read_bytes() == expected
        say(f"round {rounds}: {disturbed} kills, {time.monotonic() - start:.0f} s, same dvc.lock: {same}")
        if not same:
            return 1
    say(f"passed: {rounds} rounds, {kills} kills")
    return 0


def pause() -> float:
    low, high = PAUSE
    return low * (high / low) ** random.random()


def repro(folder: Path, seconds: float | None) -> bool:
    """Whether `dvc repro` succeeded within this many seconds; if it takes longer, it is killed.

    Raises:
        RuntimeError: it failed without a kill.
    """
    environment = {**miniature.environment(), "ATTNFD_CHECKPOINT_SECONDS": "5"}
    del environment["OMP_NUM_THREADS"]  # The default pipeline uses all cores.
    log = folder / "repro.log"
    with log.open("a") as file:
        process = subprocess.Popen(
            ["dvc", "repro"], cwd=folder, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        say(f"  killed after {seconds:.0f} s, in {cell(log)}")
        return False
    if status:
        raise RuntimeError(f"dvc repro failed, see {log}")
    return True


def cell(log: Path) -> str:
    """The last cell that ran."""
    lines = log.read_text(errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.startswith("Running stage")), "none")


def clone(source: Path, folder: Path) -> Path:
    command = ["git", "clone", "--quiet", str(source), str(folder)]
    subprocess.run(command, check=True)
    return folder


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
