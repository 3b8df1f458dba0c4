"""A table in LaTeX, for `\\input` into a paper that has `\\usepackage{booktabs,multirow}`."""

from collections.abc import Iterator

from attnfd.report.layout import Table, Value

ALIGN = {"left": "l", "center": "c", "right": "r"}
WIDE = 7
"""A table of so many columns or more takes the full width of a two-column page, in small letters."""
MARKS = {"best": r"\textbf{%s}", "second": r"\underline{%s}"}
SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",  # At the beginning of a row it would be an option.
    "±": r"$\pm$",
    "−": r"$-$",
    "×": r"$\times$",
    "Δ": r"$\Delta$",
    "✓": r"$\bullet$",
    "–": "--",
    "…": r"\dots{}",
}


def write(table: Table, label: str) -> str:
    """The whole `table` environment, labelled `tab:<label>`. A name of several rows is written once."""
    rows = [" \\\\\n".join(_group(group, table.headed)) + " \\\\\n" for group in table.rows]
    wide = len(table.columns) >= WIDE
    environment = "table*" if wide else "table"
    return (
        "% \\usepackage{booktabs,multirow}\n"
        f"\\begin{{{environment}}}[t]\n"
        "\\centering\n"
        + "\\footnotesize\n\\setlength{\\tabcolsep}{4pt}\n"
        * wide
        + f"\\caption{{{escape(table.caption)}}}\n"
        f"\\label{{tab:{label}}}\n"
        f"\\begin{{tabular}}{{{''.join(ALIGN[column.align] for column in table.columns)}}}\n"
        "\\toprule\n"
        f"{' & '.join(escape(column.title) for column in table.columns)} \\\\\n"
        "\\midrule\n" + "\\midrule\n".join(rows) + "\\bottomrule\n"
        "\\end{tabular}\n"
        f"\\end{{{environment}}}\n"
    )


def escape(text: str) -> str:
    """Text that LaTeX prints as it is.

    Example:
        >>> print(escape("kd_weight: 39.90 ± 0.67 %"))
        kd\\_weight: 39.90 $\\pm$ 0.67 \\%
    """
    return "".join(SPECIAL.get(character, character) for character in text)


def _group(rows: list[list[Value]], headed: bool) -> Iterator[str]:
    """The lines of a group; in a headed table, the first column spans all of them."""
    for number, row in enumerate(rows):
        cells = [_cell(value) for value in row]
        if headed and len(rows) > 1:
            cells[0] = "" if number else f"\\multirow{{{len(rows)}}}{{*}}{{{cells[0]}}}"
        yield " & ".join(cells)


def _cell(value: Value) -> str:
    text = escape(value.text)
    return MARKS[value.mark] % text if text and value.mark in MARKS else text
