"""A table as text for a terminal, Markdown, LaTeX and CSV, and how numbers are written in all.

CSV alone holds the raw numbers. Nothing here computes or decides what a table holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from reports.document import Cell, Column, Document, Table
from reports.escaping import csv_text, escape_latex, escape_markdown, plain
from reports.terminal import TERMINAL_WIDTH, Strip, text_page

__all__ = [
    "TERMINAL_WIDTH", "billions", "counted", "csv", "csv_text", "escape_latex", "escape_markdown", "latex",
    "legend", "markdown", "markdown_table", "millions", "p_value", "printed_width", "signed", "table_files",
    "terminal",
]  # fmt: skip

_NONE = "n/a"
_ARROWS = {"": "", "higher": "↑", "lower": "↓"}
MARKS = {"": "", "tie": "≈", "worse": "†"}
# What the marks stand for; also the titles of the marks on the page.
MEANINGS = {
    "tie": "not significantly different from the best",
    "worse": "worse than the baseline after Holm's correction (p < 0.05)",
}
# A table that is wider than this many characters does not fit between the margins of a paper.
_PAPER_WIDTH, _LONG_TEXT, _LONG_WORD = 85, 40, 16


def millions(count: float) -> str:
    """Parameters: 0.57 M, 9.04 M, 36.6 M; "n/a" for NaN."""
    return _NONE if math.isnan(count) else f"{_three(count / 1e6)} M"


def billions(count: float) -> str:
    """Multiply-accumulates: 0.31 G; "n/a" for NaN."""
    return _NONE if math.isnan(count) else f"{_three(count / 1e9)} G"


def p_value(p: float) -> str:
    """0.031, <0.001, or "n/a" for NaN."""
    return _NONE if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def counted(number: int, noun: str) -> str:
    """1 group, 1,204 groups; the plural of `noun` takes an s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def signed(value: float, digits: int) -> str:
    """With its sign; "n/a" for NaN."""
    if math.isnan(value):
        return _NONE
    # Rounded first: -0.00004 is written +0.000, not -0.000.
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def _three(value: float) -> str:
    """Three significant digits for 1 to 999; two decimals below, three below 0.1."""
    if 0 < value < 0.1:
        return f"{value:.3f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def legend(table: Table, *, best: str = "Bold", second: str = "underlined") -> list[str]:
    """The sentences that explain the marks and abbreviations that occur in the table.

    Args:
        table: whose cells are looked at; only the columns that are printed.
        best: how the writer marks the best of a column.
        second: how it marks the second.
    """
    cells = [cell for row in table.rows for cell in row]
    ranks, marks = {cell.rank for cell in cells}, {cell.mark for cell in cells}
    lines: list[str] = []
    if 1 in ranks:
        lines.append(f"{best}: best of its column{f'; {second}: second' if 2 in ranks else ''}.")
    lines += [f"{MARKS[mark]}: {meaning}." for mark, meaning in MEANINGS.items() if mark in marks]
    explained = (f"{c.title}: {c.explained}." for c in table.columns if c.explained)
    return list(dict.fromkeys((*lines, *explained)))


def terminal(table: Table) -> str:
    """Title, table and notes as plain text of at most 80 columns, without colours.

    A spread stands on a second line where it would not fit beside its number, columns that are not
    `narrow` are left out, long names are folded, and a table that is still too wide is printed in
    parts that repeat its first column. No digit is ever cut.
    """
    shown = _narrow(table)
    strips = [
        _strip(column, [row[k] for row in shown.rows]) for k, column in enumerate(shown.columns)
    ]
    # Nothing is bold here: what a note calls so bears a star.
    notes = [re.sub(r"\bBold:", "*:", note) for note in table.notes]
    notes = [re.sub(r"\bin bold\b", "with a star", note) for note in notes]
    lines = (*legend(shown, best="*", second="°"), *notes)
    return text_page(plain(table.title), strips, [plain(line) for line in lines])


def _narrow(table: Table) -> Table:
    """The table with the columns that 80 letters have room for, so that no other is explained."""
    kept = [k for k, column in enumerate(table.columns) if k == 0 or column.narrow]
    return replace(
        table,
        columns=tuple(table.columns[k] for k in kept),
        rows=tuple(tuple(row[k] for k in kept) for row in table.rows),
    )


def _strip(column: Column, cells: Sequence[Cell]) -> Strip:
    """A column for the terminal; marks have a place of their own, so that digits stay aligned."""
    marks = [
        f"{'*' if cell.rank == 1 or cell.strong else '°' if cell.rank == 2 else ''}{MARKS[cell.mark]}"
        for cell in cells
    ]
    width = max(map(len, marks), default=0) if column.align == "right" else 0
    return Strip(
        title=plain(_title(column)),
        right=column.align == "right",
        texts=tuple(
            f"{plain(cell.text)}{mark.ljust(width)}"
            for cell, mark in zip(cells, marks, strict=True)
        ),
        spreads=tuple(plain(cell.spread) for cell in cells),
    )


def markdown(table: Table) -> str:
    """Title, table and notes as Markdown; the best of a column is bold, the second underlined."""
    head = [escape_markdown(_title(column)) for column in table.columns]
    rule = ["---:" if column.align == "right" else "---" for column in table.columns]
    body = [[_markdown_cell(cell) for cell in row] for row in table.rows]
    notes = " ".join(map(escape_markdown, (*legend(table), *table.notes)))
    # A paragraph that begins like a heading, a list or a quotation is none.
    notes = re.sub(r"^(?:([#+=>-])|(\d+)([.)]))", r"\2\\\1\3", notes)
    lines = "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *body))
    return f"**{escape_markdown(table.title)}**\n\n{lines}" + (f"\n{notes}\n" if notes else "")


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    if text.strip() and (cell.rank == 1 or cell.strong):
        text = f"**{text}**"
    elif cell.rank == 2:
        text = f"<u>{text}</u>"
    return f"{text}{MARKS[cell.mark]} {escape_markdown(cell.spread)}".strip()


def markdown_table(head: Sequence[str], body: Sequence[Sequence[str]], *, left: int) -> str:
    """Cells that are Markdown already; all columns but the first `left` are numbers."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *body))


def latex(table: Table, *, label: str) -> str:
    """A table for a paper: pdflatex with booktabs and amssymb sets it as it stands.

    One that is wider than the text is shrunk to it where graphicx is loaded, and set in small type
    where not.

    Args:
        table: title and notes become the caption.
        label: what follows `tab:` in a reference; other characters than letters, digits and dashes
            become dashes.
    """
    caption = " ".join(map(escape_latex, (_sentence(table.title), *legend(table), *table.notes)))
    tabular = [
        rf"\begin{{tabular}}{{@{{}}{''.join(_latex_columns(table))}@{{}}}}",
        r"\toprule",
        _latex_row([escape_latex(_title(column)) for column in table.columns]),
        r"\midrule",
        *(_latex_row([_latex_cell(cell) for cell in row]) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if printed_width(table) > _PAPER_WIDTH:
        tabular = [
            r"\footnotesize\setlength{\tabcolsep}{3pt}",
            r"\providecommand{\resizebox}[3]{#3}%",
            r"\resizebox{\textwidth}{!}{%",
            *tabular[:-1],
            rf"{tabular[-1]}%",
            "}",
        ]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs,amssymb}; with graphicx a wide table shrinks to the text",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:{re.sub(r'[^A-Za-z0-9]+', '-', label).strip('-')}}}",
            *tabular,
            r"\end{table}",
            "",
        ]
    )


def _latex_columns(table: Table) -> Iterator[str]:
    for k, column in enumerate(table.columns):
        longest = max((len(row[k].text) for row in table.rows), default=0)
        if column.align == "right":
            yield "r"
        else:
            yield r"p{0.3\textwidth}" if longest > _LONG_TEXT else "l"


def _latex_row(cells: Sequence[str]) -> str:
    line = " & ".join(cells)
    # The row before ends in \\, which would take a star or a bracket for its own.
    return f"{'{}' if line.startswith(('[', '*')) else ''}{line} \\\\"


def _latex_cell(cell: Cell) -> str:
    long = len(cell.text) > _LONG_TEXT
    # A word without an end may be broken, so that it stays in its column.
    pieces = re.findall(rf"\S{{1,{_LONG_WORD}}}|\s+", cell.text) if long else [cell.text]
    text = "".join(
        escape_latex(piece) + (r"\allowbreak{}" if len(piece) == _LONG_WORD else "")
        for piece in pieces
    )
    if cell.rank == 1 or cell.strong:
        text = rf"\textbf{{{text}}}"
    elif cell.rank == 2:
        text = rf"\underline{{{text}}}"
    mark = {"": "", "tie": r"$^{\approx}$", "worse": r"$^{\dagger}$"}[cell.mark]
    # Ragged lines take the end of a row for an end of a line, unless they are told.
    start = r"\raggedright\let\\\tabularnewline " if long else ""
    return f"{start}{text}{mark} {escape_latex(cell.spread)}".rstrip()


def printed_width(table: Table) -> int:
    """Characters of the widest row, long words folded, with a gap of two between columns."""
    columns = [
        [_title(column), *(f"{row[k].text} {row[k].spread}" for row in table.rows)]
        for k, column in enumerate(table.columns)
    ]
    return sum(min(_LONG_TEXT, max(map(len, texts))) + 2 for texts in columns)


def csv(table: Table) -> str:
    """The raw numbers: they read back exactly; no text is run as a formula."""
    return csv_text(table.data)


def table_files(document: Document) -> dict[str, str]:
    """Path below the report's folder -> content, of the four files of every table."""
    return {
        f"{chapter.name}/{table.name}{suffix}".lstrip("/"): text
        for chapter in document.chapters
        for section in chapter.sections
        for table in section.tables
        for suffix, text in (
            (".txt", terminal(table)),
            (".md", markdown(table)),
            (".csv", csv(table)),
            (".tex", latex(table, label=f"{chapter.name}-{table.name}")),
        )
    }


def _title(column: Column) -> str:
    return f"{column.title} {_ARROWS[column.better]}".rstrip()


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."
