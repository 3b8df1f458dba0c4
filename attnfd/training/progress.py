"""The progress of a training: epoch, loss with its terms, mIoU, and the remaining time."""

from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from attnfd.runtime import processes

LINES = 10
"""How many lines a training prints if there is no terminal for a bar."""


class TimeLeft(ProgressColumn):
    """`9 min left`, computed from the steps of this process."""

    def render(self, task: Task) -> Text:
        taken = task.completed - task.fields["first"]
        if not taken or task.total is None or task.finished:
            return Text("")
        return Text(f"· {spelled((task.elapsed or 0) / taken * (task.total - task.completed))} left")


class Bar:
    """The progress bars of trainings that run together; each has a title if there are several.

    Without a terminal it prints a line after every tenth of a training instead.
    """

    def __init__(self, *, alone: bool, console: Console | None = None) -> None:
        title = () if alone else (TextColumn("{task.description}", markup=False),)
        columns = (
            *title,
            BarColumn(bar_width=6),
            TextColumn("{task.fields[note]}", markup=False),
            TimeLeft(),
        )
        quiet = processes.rank() > 0
        console = console or Console(highlight=False, soft_wrap=True)
        self._alone, self._quiet = alone, quiet
        self._live = Progress(*columns, console=console, disable=quiet or not console.is_terminal)

    def __enter__(self) -> "Bar":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def add(self, title: str, *, steps: int, done: int) -> TaskID:
        """Show a training with `steps` steps, of which `done` are done."""
        return self._live.add_task(title, total=steps, completed=done, first=done, note="")

    def advance(self, task: TaskID) -> None:
        self._live.advance(task)

    def note(self, task: TaskID, note: str) -> None:
        self._live.update(task, note=note)

    def end_epoch(self, task: TaskID, note: str, epoch: int, epochs: int) -> None:
        """Show the result of an epoch; without a terminal, only after every tenth of all epochs."""
        self.note(task, note)
        tenth = epoch * LINES // epochs > (epoch - 1) * LINES // epochs
        if not self._live.console.is_terminal and not self._quiet and tenth:
            shown = self._live.tasks[self._live.task_ids.index(task)]
            left = TimeLeft().render(shown).plain
            title = "" if self._alone else f"{shown.description}: "
            self._live.console.print(f"{title}{note} {left}".rstrip(), markup=False)


def described(epoch: int, epochs: int, terms: Mapping[str, float] | None, best: float | None) -> str:
    """The progress of a training in one line.

    Args:
        terms: means of the last complete epoch, `loss` first; None: no epoch is complete.
        best: mIoU of the best validation, from 0 to 1; None: there was no validation yet.

    Example:
        >>> described(25, 60, {"loss": 6.22, "ce": 0.91, "attnfd": 5.31}, None)
        'epoch 25/60 · loss 6.22 (ce 0.91, attnfd 5.3) · mIoU –'
        >>> described(1, 60, None, 0.4071)
        'epoch 1/60 · loss – · mIoU 40.7'
    """
    if terms is None:
        loss = "–"
    else:
        parts = [f"{name} {value:.2g}" for name, value in terms.items() if name != "loss"]
        loss = f"{terms['loss']:.3g}" + (f" ({', '.join(parts)})" if len(parts) > 1 else "")
    miou = "–" if best is None else f"{100 * best:.1f}"
    return f"epoch {epoch}/{epochs} · loss {loss} · mIoU {miou}"


def spelled(seconds: float) -> str:
    """A duration in minutes or hours.

    Example:
        >>> spelled(20), spelled(580), spelled(5400), spelled(36000)
        ('20 s', '10 min', '1.5 h', '10 h')
    """
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes / 60:.1f} h" if minutes < 600 else f"{minutes / 60:.0f} h"
