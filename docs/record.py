"""Run a command and draw its output as an animated picture of a terminal.

python docs/record.py docs/images/repro.svg make repro
"""

import subprocess
import sys
import time
from html import escape
from pathlib import Path

SPEED = 12
"""How many times faster than the command the picture is."""

PAUSE = 6
"""Seconds that the last lines stay."""

ROWS, COLUMNS, LINE, CHARACTER, MARGIN = 22, 96, 18, 8, 14
"""Of the terminal; the last three in pixels."""


def record(command: list[str]) -> list[tuple[float, str]]:
    """Every line that a command prints, and the seconds until then."""
    start = time.monotonic()
    lines = [(0.0, "$ " + " ".join(command))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="")
            lines.append((time.monotonic() - start, line.rstrip("\n")))
    if process.returncode:
        raise SystemExit(process.returncode)
    return lines


def draw(lines: list[tuple[float, str]]) -> str:
    """The picture: the lines move up, and each appears in the last row when it was printed."""
    seconds = lines[-1][0] / SPEED + PAUSE
    steps = "".join(
        f"{100 * moment / SPEED / seconds:.3f}% {{transform: translateY({(ROWS - 1 - row) * LINE}px)}}"
        for row, (moment, _) in enumerate(lines)
    )
    final = f"transform: translateY({(ROWS - len(lines)) * LINE}px)"
    texts = "".join(
        f'<text y="{(row + 1) * LINE - 5}">{escape(line[:COLUMNS])}</text>'
        for row, (_, line) in enumerate(lines)
        if line.strip()
    )
    width, height = COLUMNS * CHARACTER + 2 * MARGIN, ROWS * LINE + 2 * MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">'
        f"<style>@keyframes up {{{steps}100% {{{final}}}}}"
        f" .lines {{animation: up {seconds:.1f}s step-end infinite}}"
        " @media (prefers-reduced-motion) {.lines {animation: none; " + final + "}}"
        " text {font: 13px monospace; fill: #e6e6e6; white-space: pre}</style>"
        f'<rect width="{width}" height="{height}" rx="8" fill="#1e1e24"/>'
        f'<svg x="{MARGIN}" y="{MARGIN}" width="{COLUMNS * CHARACTER}" height="{ROWS * LINE}">'
        f'<g class="lines">{texts}</g></svg></svg>\n'
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(record(sys.argv[2:])), encoding="utf-8")
