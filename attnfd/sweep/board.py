"""What a sweep shows in the terminal."""

from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from attnfd.paths import main_root
from attnfd.sweep import engine

LOGS = Path(".attnfd", "sweep")


class Board:
    """Shows a line for all jobs, and a line for each running job: its time and its last output."""

    def __init__(self, console: Console, jobs: int) -> None:
        name = TextColumn("{task.description}", markup=False)
        note = TextColumn("{task.fields[note]}", markup=False)
        self._progress = Progress(SpinnerColumn(), TimeElapsedColumn(), name, note, console=console)
        self._all = self._progress.add_task("all cells", total=jobs, note=f"0/{jobs}")
        self._shown: dict[str, tuple[TaskID, Path]] = {}

    def __enter__(self) -> "Board":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def start(self, name: str, log: Path) -> None:
        """Show a job that has started."""
        self._shown[name] = self._progress.add_task(name, note=""), log

    def update(self) -> None:
        """Show the last output of every job."""
        for task, log in self._shown.values():
            self._progress.update(task, note=engine.last_line(log))

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(line, markup=False)

    def end(self, name: str, word: str = "") -> None:
        """Count a job as done; if it ran, print its result."""
        if name in self._shown:
            task, _ = self._shown.pop(name)
            seconds = self._progress.tasks[self._progress.task_ids.index(task)].elapsed or 0
            self._progress.remove_task(task)
            self._progress.console.print(f"{word} {name} ({seconds:.0f} s)")
        self._progress.advance(self._all)
        everything = self._progress.tasks[0]
        self._progress.update(self._all, note=f"{everything.completed:.0f}/{everything.total:.0f}")


def logfile(name: str) -> Path:
    """The file for the output of a job."""
    return (main_root() / LOGS / f"{name}.log").absolute()
