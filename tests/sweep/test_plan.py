"""The cost model: time by work, from the most similar measured training; marked if it is another one."""

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
        (student("none", seed=7), 10, Expected(100, measured=True)),  # Seeds do not change the time.
        (student("none", seed=7), 25, Expected(250, measured=True)),  # 2.5 times the work.
        (
            student("attnfd", stage="ablate"),
            10,
            Expected(300, measured=False),
        ),  # The method's time in distill.
        (student("kd"), 10, Expected(200, measured=False)),  # No kd: the mean of none and attnfd.
        (student("kd", network="mobilenetv2"), 10, Expected(200, measured=False)),
        (TEACHER, 10, None),  # Students do not predict a teacher's time.
        (Cell(stage="distill", dataset="voc", student="resnet18", method="none"), 10, None),
    ],
)
def test_the_nearest_kind_is_the_measure(cell: Cell, work: float, expected: Expected | None) -> None:
    assert plan.expect(cell, work, [NONE, ATTNFD]) == expected


def test_this_machine_goes_before_others() -> None:
    other = NONE._replace(seconds=7, here=False)
    assert plan.expect(student("none"), 10, [other, NONE]) == Expected(100, measured=True)
    assert plan.expect(student("none"), 10, [other]) == Expected(7, measured=False)


def stale(job: str, why: str, expected: Expected | None = None, **options: object) -> Stale:
    command = " ".join(f"--{key} {value}" for key, value in options.items())
    return Stale(Job(name=job, command=command, upstream=()), why, expected)


def shown(*found: Stale, width: int = 80) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    plan.show(found, console)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_cells_by_cause_and_time_per_stage_and_in_all() -> None:
    student = {"dataset": "shapes", "student": "resnet18"}
    found = [
        stale("train_teacher@shapes", "training.lr", Expected(7200, measured=True), dataset="shapes"),
        stale("distill@shapes-a", "never ran", Expected(1790, measured=True), **student, method="kd", seed=0),
        stale(
            "distill@shapes-b", "never ran", Expected(3600, measured=False), **student, method="at", seed=1
        ),
        stale("ablate@voc-b", "training.lr", dataset="voc", student="resnet18", variant="be", seed=0),
        stale("evaluate@shapes-a", plan.CACHED, Expected(0, measured=True), **student, method="kd", seed=0),
        stale("report@shapes", "after distill@shapes-a, distill@shapes-b, ablate@voc-b", dataset="shapes"),
    ]
    lines = [" ".join(line.split()) for line in shown(*found)]
    assert lines[: lines.index("")] == [
        "stage dataset student method seed h:mm",
        "training.lr",
        "train_teacher shapes 2:00",
        "ablate voc resnet18 be 0 unknown",
        "never ran",
        "distill shapes resnet18 kd 0 0:30",
        "distill shapes resnet18 at 1 ≈ 1:00",
        "in the run-cache",
        "evaluate shapes resnet18 kd 0 0:00",
        "after distill, ablate",
        "report shapes –",
    ]
    for line in (
        "train_teacher 1 2:00",
        "distill 2 ≈ 1:30",
        "ablate 1 unknown",
        "report 1 –",
        "all 6 ≈ 3:30 + unknown",
    ):
        assert line in lines


def test_nothing_of_a_cell_is_cut_off_or_folded_at_80_columns() -> None:
    longest = {"dataset": "camvid_small", "student": "mobilenetv3_large", "variant": "connector_after"}
    teacher = stale("evaluate_teacher@camvid_small", "never ran", dataset="camvid_small")
    lines = shown(
        teacher, stale("ablate@a", "never ran", Expected(9e5, measured=False), **longest, seed=1000)
    )
    assert lines[2].split() == ["evaluate_teacher", "camvid_small", "–"]
    assert lines[3].split() == ["ablate", *longest.values(), "1000", "≈", "250:00"]
    assert max(map(len, lines)) <= 80


def test_what_a_user_named_in_brackets_is_shown_as_it_is() -> None:
    assert "data/[bold]x" in shown(stale("data/[bold]x.dvc", "data/[bold]x"), width=200)
