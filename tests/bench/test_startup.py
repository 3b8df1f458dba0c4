"""The shortest time of each command: each stage is timed once and compared with the last figures."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from attnfd.bench import startup
from attnfd.errors import UserError
from attnfd.paths import Cell


def test_every_command_is_timed_and_compared_with_the_last_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    startup.RECORD.write_text(json.dumps({"seconds": {"freeze": 4.0}}))
    ran: list[tuple[str, ...]] = []

    def run(*command: str) -> str:
        ran.append(command)
        return "{}"

    monkeypatch.setattr(startup, "_run", run)
    clock = iter(range(1000))
    monkeypatch.setattr(startup.time, "perf_counter", lambda: float(next(clock)))
    cells = {"freeze": Cell.teacher("toy"), "ablate": Cell.ablated("toy", "r18", "b", 3)}
    startup.startup(cells, 2, Console(width=100), record=tmp_path / "found.json")

    written = json.loads((tmp_path / "found.json").read_text())
    names = ["attnfd --help", "dvc repro, nothing to do", "freeze", "ablate"]
    assert written["seconds"] == dict.fromkeys(names, 1.0)
    assert [" ".join(command).partition("attnfd ")[2] for command in ran if command[-1] == "3"] == [
        "ablate --dataset toy --student r18 --variant b --seed 3"
    ] * 2
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("freeze")]
    assert line.split() == ["freeze", "1.00", "4.00", "0.25"]


def test_stale_stages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "_run", lambda *command: '{"prepare@toy": ["changed deps"]}')
    with pytest.raises(UserError, match="found stale stages"):
        startup.startup({}, 1, Console(), record=None)
