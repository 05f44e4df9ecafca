"""The tables of a search as text for a terminal and as Markdown: one rounding for both.

CSV alone holds the raw numbers. Nothing here computes: see `reports.search_tables`.
"""

from __future__ import annotations

import io
import math

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports.scores import FORMULAS
from reports.search_records import SearchRecords, incomplete_lines
from reports.search_tables import STATES, amount
from reports.writers import TERMINAL_WIDTH, escape_latex

_SHOWN = 10
_NONE = "n/a"
MOVED = "~"

TRIAL_HEAD = ("No.", "Trial", "Depth", "Params", "MACs", "Folds", "Score", "State", "Reason")
AGAIN_HEAD = ("No.", "Trial", "Selection", "Fresh folds", "Delta [95 %]", "Test")


def trial_cells(search: SearchRecords, rows: pd.DataFrame) -> list[tuple[str, ...]]:
    """The rows of `search_tables.trial_rows`, rounded, in the order of `TRIAL_HEAD`."""
    return [
        (
            str(row["number"]),
            row["trial"],
            f"L{row['depth']}",
            amount(row["parameters"]),
            amount(row["macs"]),
            f"{row['folds_done']}/{search.num_folds}",
            _score(row),
            _state(row),
            row["reason"],
        )
        for row in rows.to_dict("records")
    ]


def again_cells(rows: pd.DataFrame, *, between: str = " ") -> list[tuple[str, ...]]:
    """The rows of `search_tables.confirmation_rows`, rounded, in the order of `AGAIN_HEAD`.

    Args:
        rows: as they are.
        between: a difference and its interval.
    """
    return [
        (
            str(row["number"]),
            row["trial"],
            number(row["selection"]),
            number(row["fresh"]),
            "baseline" if row["baseline"] else difference(row, between=between),
            "" if math.isnan(row["test"]) else number(row["test"]),
        )
        for row in rows.to_dict("records")
    ]


def depth_cells(rows: pd.DataFrame) -> list[tuple[str, ...]]:
    """The rows of `search_tables.depth_rows`, rounded: depth, trial, score, difference."""
    return [
        (
            f"L{row['depth']}",
            f"{row['number']}: {row['trial']}",
            number(row["score"]),
            "best" if row["best"] else difference(row),
        )
        for row in rows.to_dict("records")
    ]


def notes(search: SearchRecords, rows: pd.DataFrame) -> list[str]:
    """The sentences below the table of trials: definitions, and what ± and the mark are."""
    lines = [
        (
            f"Score: {FORMULAS[search.manifest.metric]} per case, mean over the cases of a held-out "
            f"fold, then mean ± standard deviation over folds. A case whose reference and "
            "prediction are both empty is left out; an empty reference with any prediction scores 0."
        ),
        "These are the scores that choose: the best of them is too high for having been chosen.",
    ]
    if rows["moved"].any():
        lines.append(
            f"{MOVED}: given up before all folds; the score is the rival's mean, moved by the "
            "paired difference from it so far, and is not comparable with the others."
        )
    return lines


def terminal_text(search: SearchRecords, rows: pd.DataFrame, again: pd.DataFrame) -> str:
    """The best trials and what was trained again, as plain text of at most 80 columns."""
    file = io.StringIO()
    console = Console(file=file, width=TERMINAL_WIDTH, force_terminal=False, color_system=None)
    # Text, not str: a name like "[x]" is no markup.
    cells = [cell[:8] for cell in trial_cells(search, rows)[:_SHOWN]]
    console.print(_table(TRIAL_HEAD[:8], cells, left=(1, 7)))
    rest = len(rows) - _SHOWN
    if rest > 0:
        console.print(Text(f"... and {rest} more, in table.csv"))
    if len(again):
        console.print()
        console.print(Text("Trained again, on fresh folds from fresh seeds"))
        console.print(_table(AGAIN_HEAD, again_cells(again, between="\n"), left=(1,)))
    console.print()
    for note in (*map(_capital, incomplete_lines(search)), *notes(search, rows)):
        console.print(Text(note), soft_wrap=False)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines()).lstrip("\n")


def markdown(search: SearchRecords, rows: pd.DataFrame, again: pd.DataFrame) -> str:
    """All trials and what was trained again as Markdown tables, notes below."""
    tables = [_markdown_table(TRIAL_HEAD, trial_cells(search, rows))]
    if len(again):
        tables.append(_markdown_table(AGAIN_HEAD, again_cells(again)))
    below = (*map(_capital, incomplete_lines(search)), *notes(search, rows))
    return "\n".join([*tables, " ".join(map(_escape, below))]) + "\n"


def latex(search: SearchRecords, rows: pd.DataFrame, *, label: str) -> str:
    """The best trials as a table for a paper: needs the package booktabs.

    Args:
        search: whose trials.
        rows: of `search_tables.trial_rows`.
        label: what follows `tab:` in the reference; letters, digits, dashes.
    """
    shown = rows.head(_SHOWN)
    cells = [cell[:8] for cell in trial_cells(search, shown)]
    rest = len(rows) - len(shown)
    more = [f"{rest} more trials are in table.csv."] if rest > 0 else []
    below = " ".join((*map(_capital, incomplete_lines(search)), *notes(search, shown), *more))
    body = [f"{' & '.join(map(escape_latex, row))} \\\\" for row in cells]
    head = f"{' & '.join(map(escape_latex, TRIAL_HEAD[:8]))} \\\\"
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(below)}}}",
            rf"\label{{tab:{label}}}",
            r"\begin{tabular}{rlrrrrrl}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def number(value: float) -> str:
    """0.512, or "n/a" for NaN."""
    return _NONE if math.isnan(value) else f"{value:.3f}"


def difference(row: dict, *, between: str = " ") -> str:
    """+0.012 [-0.003, +0.027] of the columns delta, delta_low and delta_high."""
    if math.isnan(row["delta"]):
        return _NONE
    interval = (
        f"[{_NONE}]"
        if math.isnan(row["delta_low"])
        else f"[{_signed(row['delta_low'])}, {_signed(row['delta_high'])}]"
    )
    return f"{_signed(row['delta'])}{between}{interval}"


def _score(row: dict) -> str:
    if math.isnan(row["score"]):
        return ""
    if row["moved"]:
        return f"{MOVED}{number(row['score'])}"
    spread = "" if math.isnan(row["sd"]) else f" ± {number(row['sd'])}"
    return number(row["score"]) + spread


def _state(row: dict) -> str:
    state = "winner" if row["winner"] else row["state"].replace("_", " ")
    assert row["state"] in STATES
    return f"{state}, {row['proposed']} x" if row["proposed"] > 1 else state


def _signed(value: float) -> str:
    # Rounded first: -0.00004 is written +0.000, not -0.000.
    return f"{round(value, 3) + 0.0:+.3f}"


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"


def _table(head: tuple[str, ...], cells: list[tuple[str, ...]], *, left: tuple[int, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for place, name in enumerate(head):
        aligned = "left" if place in left else "right"
        table.add_column(name, justify=aligned, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    return table


def _markdown_table(head: tuple[str, ...], cells: list[tuple[str, ...]]) -> str:
    lines = [head, ["---"] * len(head), *(tuple(map(_escape, row)) for row in cells)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _escape(text: str) -> str:
    one_line = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\`*_|<[" else letter for letter in one_line)
