"""A table in LaTeX, for `\\input` into a paper that has `\\usepackage{booktabs,graphicx}`."""

from attnfd.report.layout import Table, Value

ALIGN = {"left": "l", "center": "c", "right": "r"}
FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"
MARKS = {"best": r"\textbf{%s}", "second": r"\underline{%s}"}
SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",  # after a line's end it would be an option
    "±": r"$\pm$",
    "−": r"$-$",
    "✓": r"$\bullet$",
    "–": "--",
    "…": r"\dots{}",
}


def write(table: Table, label: str) -> str:
    """The whole `table` environment, labelled `tab:<label>`, never wider than the line."""
    rows = [" \\\\\n".join(_row(row) for row in group) + " \\\\\n" for group in table.rows]
    return (
        "% \\usepackage{booktabs,graphicx}\n"
        "\\begin{table}\n"
        "\\centering\n"
        f"\\caption{{{escape(table.caption)}}}\n"
        f"\\label{{tab:{label}}}\n"
        f"{FIT}{{%\n"
        f"\\begin{{tabular}}{{{''.join(ALIGN[column.align] for column in table.columns)}}}\n"
        "\\toprule\n"
        f"{' & '.join(escape(column.title) for column in table.columns)} \\\\\n"
        "\\midrule\n" + "\\midrule\n".join(rows) + "\\bottomrule\n"
        "\\end{tabular}}\n"
        "\\end{table}\n"
    )


def escape(text: str) -> str:
    """Text that LaTeX prints as it is.

    Example:
        >>> print(escape("kd_weight: 39.90 ± 0.67 %"))
        kd\\_weight: 39.90 $\\pm$ 0.67 \\%
    """
    return "".join(SPECIAL.get(character, character) for character in text)


def _row(values: list[Value]) -> str:
    return " & ".join(
        MARKS[value.mark] % escape(value.text) if value.text and value.mark in MARKS else escape(value.text)
        for value in values
    )
