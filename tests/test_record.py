"""The animated picture of a command's output."""

import runpy
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

SCRIPT = runpy.run_path(str(Path(__file__).parents[1] / "docs/record.py"))


def test_each_line_appears_when_it_was_printed() -> None:
    speed, pause, rows, line = (SCRIPT[name] for name in ("SPEED", "PAUSE", "ROWS", "LINE"))
    picture = SCRIPT["draw"]([(0.0, "$ make x"), (pause * speed, "a < b"), (3 * pause * speed, "done")])
    texts = [part.text for part in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["$ make x", "a < b", "done"]
    # It lasts 3 + 1 pauses: the second line is there after a quarter, in the last row.
    assert f"25.000% {{transform: translateY({(rows - 2) * line}px)}}" in picture
    assert f"75.000% {{transform: translateY({(rows - 3) * line}px)}}" in picture


def test_a_command_is_recorded_and_its_failure_is_ours() -> None:
    command = [sys.executable, "-c", r"print('1 %'); print('end')"]
    assert [line for _, line in SCRIPT["record"](command)] == [" ".join(["$", *command]), "1 %", "end"]
    with pytest.raises(SystemExit, match="3"):
        SCRIPT["record"]([sys.executable, "-c", "raise SystemExit(3)"])
