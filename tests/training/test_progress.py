"""The progress of a training: epoch, loss, mIoU and minutes; without a terminal a few plain lines."""

import io

from rich.console import Console

from attnfd.training import progress
from attnfd.training.progress import Bar, described


def shown(*, terminal: bool, alone: bool = True) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80, soft_wrap=True)
    with Bar(alone=alone, console=console) as bar:
        task = bar.add("resnet18-attnfd-0", steps=600, done=0)
        for epoch in range(1, 61):
            for _ in range(10):
                bar.advance(task)
            terms = {"loss": 6.2, "ce": 0.9, "attnfd": 5.3}
            bar.end_epoch(task, described(epoch, 60, terms, None if epoch < 30 else 0.407), epoch, 60)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_without_a_terminal_a_line_at_every_tenth() -> None:
    lines = shown(terminal=False).splitlines()
    assert len(lines) == 10
    assert lines[0] == "epoch 6/60 · loss 6.2 (ce 0.9, attnfd 5.3) · mIoU – · 1 s left"
    assert lines[-1] == "epoch 60/60 · loss 6.2 (ce 0.9, attnfd 5.3) · mIoU 40.7"
    assert shown(terminal=False, alone=False).startswith("resnet18-attnfd-0: epoch 6/60")


def test_on_a_terminal_the_line_fits_80_columns() -> None:
    assert "epoch 60/60 · loss 6.2 (ce 0.9, attnfd 5.3) · mIoU 40.7" in shown(terminal=True)
    bar, left = 7, len(" · 59 min left")
    assert bar + len(described(100, 120, {"loss": 6.22, "ce": 0.91, "attnfd": 5.31}, 0.4)) + left <= 80


def test_the_time_left_is_that_of_the_steps_to_come() -> None:
    bar = Bar(alone=True, console=Console(file=io.StringIO(), force_terminal=False))
    task = bar.add("x", steps=100, done=40)  # Resumed: another process took 40 steps.
    bar._live.tasks[0].start_time = 0.0
    bar._live.tasks[0]._get_time = lambda: 300.0
    for _ in range(30):
        bar.advance(task)
    assert (
        progress.TimeLeft().render(bar._live.tasks[0]).plain == "· 5 min left"
    )  # 30 steps in 5 min, and 30 steps are left
