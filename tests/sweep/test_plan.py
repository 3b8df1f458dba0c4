"""The cost model: time by work, from the nearest training that was measured, marked if it is another."""

import io

import pytest
from rich.console import Console

from attnfd.paths import Cell
from attnfd.sweep import plan
from attnfd.sweep.graph import Job
from attnfd.sweep.plan import Expected, Measured, Stale


def student(
    method: str, *, stage: str = "distill", network: str = "resnet18", seed: int | None = None
) -> Cell:
    return Cell(stage=stage, dataset="shapes", student=network, method=method, seed=seed)


TEACHER = Cell(stage="train_teacher", dataset="shapes")
NONE = Measured(student("none"), seconds=100, work=10, here=True)
ATTNFD = Measured(student("attnfd"), seconds=300, work=10, here=True)


@pytest.mark.parametrize(
    ("cell", "work", "expected"),
    [
        (student("none", seed=7), 10, Expected(100, measured=True)),  # Any seed costs the same.
        (student("none", seed=7), 25, Expected(250, measured=True)),  # 2.5 times the work.
        (student("attnfd", stage="ablate"), 10, Expected(300, measured=False)),  # Its method, as distill.
        (student("kd"), 10, Expected(200, measured=False)),  # No kd: the mean of none and attnfd.
        (student("kd", network="mobilenetv2"), 10, Expected(200, measured=False)),
        (TEACHER, 10, None),  # Students are no measure for a teacher.
        (Cell(stage="distill", dataset="voc", student="resnet18", method="none"), 10, None),
    ],
)
def test_the_nearest_kind_is_the_measure(cell: Cell, work: float, expected: Expected | None) -> None:
    assert plan.expect(cell, work, [NONE, ATTNFD]) == expected


def test_this_machine_goes_before_others() -> None:
    other = NONE._replace(seconds=7, here=False)
    assert plan.expect(student("none"), 10, [other, NONE]) == Expected(100, measured=True)
    assert plan.expect(student("none"), 10, [other]) == Expected(7, measured=False)


def test_hours_per_stage_and_in_all() -> None:
    def stale(name: str, why: str, expected: Expected | None) -> Stale:
        return Stale(Job(name=name, command="", upstream=()), why, expected)

    found = [
        stale("train_teacher@shapes", "training.lr", Expected(7200, measured=True)),
        stale("distill@shapes-a", "never ran", Expected(1800, measured=True)),
        stale("distill@shapes-b", "never ran", Expected(3600, measured=False)),
        stale("distill@voc-a", "never ran", None),
        stale("report@shapes", "after distill@shapes-a", None),
    ]
    console = Console(width=120, file=io.StringIO())
    plan.show(found, console)
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    for line in (
        "train_teacher@shapes training.lr 2.0 h",
        "distill@shapes-a never ran 30.0 min",
        "distill@shapes-b never ran ≈ 1.0 h",
        "distill@voc-a never ran unknown",
        "report@shapes after distill@shapes-a –",
        "train_teacher 1 2.0 h",
        "distill 3 ≈ 1.5 h + unknown",
        "report 1 –",
        "all 5 ≈ 3.5 h + unknown",
    ):
        assert line in lines


def test_nothing_of_a_cell_is_cut_off_at_80_columns() -> None:
    name = "distill@shapes-mobilenetv3_large-attnfd-0"
    job = Job(name=name, command="", upstream=())
    console = Console(width=80, file=io.StringIO())
    plan.show([Stale(job, "methods.attnfd.weight, recipes.shapes.distill", None)], console)
    shown = console.file.getvalue()
    assert "…" not in shown
    rows = [line[1:].split("  ")[0].strip() for line in shown.splitlines()]
    assert name in "".join(rows)
