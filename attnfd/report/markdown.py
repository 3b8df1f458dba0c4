"""A page in Markdown, with its pictures in `figures/`."""

import re

from attnfd.report.layout import Finding, Page, Section, Table, Value

RULES = {"left": ":--", "center": ":-:", "right": "--:"}
MARKS = {"best": ("**", "**"), "second": ("*", "*")}


def write(page: Page) -> str:
    """The whole page."""
    link = "The same report in one file with every figure: [report.html](report.html)"
    parts = [f"# {escape(page.title)}", escape(page.subtitle), link, *map(_section, page.sections)]
    return "\n\n".join(parts) + "\n"


def table(found: Table) -> str:
    """A table with its caption above it. There are no rules between groups, because Markdown has none."""
    lines = [
        [escape(column.title) for column in found.columns],
        [RULES[column.align] for column in found.columns],
        *([_value(value) for value in row] for group in found.rows for row in group),
    ]
    return "\n".join([f"*{escape(found.caption)}*", "", *(f"| {' | '.join(line)} |" for line in lines)])


def escape(text: str) -> str:
    """Text that Markdown shows as it is.

    Example:
        >>> escape("kd_weight = 1 | *")
        'kd\\\\_weight = 1 \\\\| \\\\*'
    """
    return re.sub(r"([\\`*_~&\[\]<>|#])", r"\\\1", text)


def _section(section: Section) -> str:
    parts = [f"## {escape(section.title)}", *map(escape, section.text)]
    if section.findings:
        parts.append("\n".join(_finding(found) for found in section.findings))
    parts += map(table, section.tables)
    for picture in section.pictures:
        parts += [f"![{escape(picture.alt)}](figures/{picture.name}.svg)", f"*{escape(picture.caption)}*"]
    return "\n\n".join(parts)


def _finding(found: Finding) -> str:
    return f"- {'**Warning**: ' if found.kind == 'warning' else ''}{escape(found.sentence)}"


def _value(value: Value) -> str:
    before, after = MARKS.get(value.mark, ("", "")) if value.text else ("", "")
    return f"{before}{escape(value.text)}{after}"
