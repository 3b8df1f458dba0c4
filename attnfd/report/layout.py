"""The parts of a page; `markdown`, `html` and `latex` write the same objects, each in its format.

All text is plain, and the writers escape it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Align = Literal["left", "center", "right"]


class Value(NamedTuple):
    """A cell of a table. `best` and `second` rank it in its group, `better` and `worse` are verdicts."""

    text: str
    mark: Literal["", "best", "second", "better", "worse"] = ""


class Column(NamedTuple):
    """A column of a table: its title, its alignment, and its values from top to bottom."""

    title: str
    align: Align
    values: Sequence[Value]


@dataclass(frozen=True)
class Table:
    """A table; `name` is the name of its files, and `groups` has the numbers of rows between the rules."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    groups: tuple[int, ...]

    @property
    def rows(self) -> list[list[list[Value]]]:
        """The values of every row, by group."""
        rows = iter(zip(*(column.values for column in self.columns), strict=True))
        return [[list(next(rows)) for _ in range(count)] for count in self.groups]

    @property
    def headed(self) -> bool:
        """Whether the first column names the groups: one text in each group."""
        first = [{row[0].text for row in group} for group in self.rows]
        return max(self.groups, default=0) > 1 and all(len(texts) == 1 for texts in first)


class Picture(NamedTuple):
    """`figures/<name>.svg` and its caption; a folded one is visible only after the reader opens it."""

    name: str
    caption: str
    folded: bool = False

    @property
    def alt(self) -> str:
        """The first sentence of the caption."""
        return re.split(r"(?<=[.:]) ", self.caption, maxsplit=1)[0].rstrip(".:")


class Finding(NamedTuple):
    """A sentence, and its kind."""

    kind: Literal["better", "worse", "not significant", "note", "warning"]
    sentence: str


@dataclass(frozen=True)
class Section:
    """A heading and the content below it, in this order."""

    title: str
    text: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Page:
    """The report of a dataset."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
