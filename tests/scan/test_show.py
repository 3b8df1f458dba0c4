"""The table and the warnings that a user sees."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from attnfd.data.prepared import Card, Split
from attnfd.scan.show import show, table
from tests.scan.trees import folder, mask, prepared


def card(classes: int, long: str = "") -> Card:
    names = tuple(f"{long}class{number}" for number in range(classes))
    pixels = {name: 100 * number for number, name in enumerate(names)}
    split = Split(images=3, height=(8, 8), width=(8, 8), void=0, pixels=pixels)
    return Card(
        name="mine", reader="folder", classes=names, palette=((0, 0, 0),) * classes, void=255, labels={0: 0},
        splits={"train": split, "val": split, "extra": split}, sha256="",
    )  # fmt: skip


def text(of: Card, width: int = 80) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width).print(table(of))
    return [line.rstrip() for line in file.getvalue().splitlines() if line.strip()]


def test_every_split_has_a_column_and_every_class_a_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = {str(number): mask(0, 1, 1, 255) for number in range(10)} | {"9": mask(0, 0, 0, 0)}
    prepared(folder(tmp_path / "mine", masks, val=["8", "9"]), classes={"[ground]": 0, "cat": 1})
    shown = capsys.readouterr()
    rows = [line.split() for line in shown.out.splitlines()]
    for row in (
        ["pixels", "in", "%", "train", "val"],
        ["images", "8", "2"],
        ["[ground]", "25.00", "62.50"],
        ["cat", "50.00", "25.00"],
        ["void", "25.00", "12.50"],
    ):
        assert row in rows
    assert shown.err == ""


def test_warnings_are_lines_on_the_error_stream(capsys: pytest.CaptureFixture[str]) -> None:
    long = "The split [val] has " + "no " * 40
    show(card(2), [long, "another"])
    assert capsys.readouterr().err == f"warning: {long}\nwarning: another\n"


def test_of_many_classes_the_rarest_are_shown() -> None:
    lines = text(card(150))
    assert len(lines) == 1 + 1 + 1 + 1 + 24 + 1 + 2
    assert lines[4].split() == ["class0", "none", "none", "none"]
    assert lines[27].split()[0] == "class23"
    assert "The 24 rarest of 150 classes; data/mine/card.json has all." in " ".join(
        map(str.strip, lines[-2:])
    )


def test_long_names_fit_into_eighty_columns() -> None:
    lines = text(card(5, "a name that is very long " * 5))
    assert max(map(len, lines)) <= 80
    assert len(lines) == 1 + 1 + 1 + 1 + 5 + 1
    *name, train, val, extra = lines[-2].split()
    assert name[-1].endswith("…")
    assert [train, val, extra] == ["40.00"] * 3
