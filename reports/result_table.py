"""The result table of one study as text: what `reports.assembly` and `reports.across` print.

Superseded by `reports.writers`; it goes when both print a `reports.document.Document`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports.escaping import escape_latex, escape_markdown
from reports.tables import num_decimals, ranks, tied
from reports.writers import TERMINAL_WIDTH, billions, markdown_table, millions, p_value, signed

_NONE = "n/a"
_TIE = "≈"
TIE_LEGEND = f"{_TIE}: not significantly different from the baseline (Holm p >= 0.05)."
RANK_LEGEND = {
    "terminal": "Bold: best mean.",
    "markdown": "Bold: best mean; italics: second.",
    "latex": "Bold: best mean; underlined: second.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A rounded mean with its spread ("" where there is none) and its place (1, 2 or 0)."""

    mean: str
    spread: str
    rank: int

    @property
    def line(self) -> str:
        """Mean and spread on one line."""
        return f"{self.mean} ± {self.spread}" if self.spread else self.mean


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultLine:
    """One row of the result table, as every writer prints it."""

    label: str
    deep_supervision: str
    parameters: str
    macs: str
    dice: Score
    iou: Score
    delta: str
    interval: str
    p_holm: str

    @property
    def comparison(self) -> str:
        """Difference and interval on one line."""
        return f"{self.delta} {self.interval}".strip()


def result_lines(rows: pd.DataFrame, baseline: str) -> list[ResultLine]:
    """Round the rows of `tables.result_rows`."""
    digits = num_decimals(rows)
    dice, iou = _scores(rows, "dice", digits), _scores(rows, "iou", digits)
    lines: list[ResultLine] = []
    for place, (row, tie) in enumerate(zip(rows.to_dict("records"), tied(rows), strict=True)):
        is_baseline = row["arm"] == baseline
        delta = signed(row["delta_dice"], digits)
        lines.append(
            ResultLine(
                label=row["label"],
                deep_supervision="yes" if row["deep_supervision"] else "no",
                parameters=millions(row["num_parameters"]),
                macs=billions(row["macs"]),
                dice=dice[place],
                iou=iou[place],
                delta="baseline" if is_baseline else f"{delta} {_TIE}" if tie else delta,
                interval="" if is_baseline else _interval(row, digits),
                p_holm="" if is_baseline else p_value(row["p_holm"]),
            )
        )
    return lines


def rich_table(lines: Sequence[ResultLine]) -> Table:
    """The result table for a terminal of 80 columns: spreads and intervals on a second line."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("Arm", overflow="fold")
    table.add_column("DS")
    for name in ("Params", "MACs", "Dice", "IoU"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Delta Dice\n[95 %]", justify="right", no_wrap=True)
    table.add_column("Holm p", justify="right", no_wrap=True)
    for line in lines:
        # Text, not str: a label like "[x]" is no markup.
        cells = (
            line.label,
            line.deep_supervision,
            line.parameters,
            line.macs,
            _stacked(line.dice),
            _stacked(line.iou),
            f"{line.delta}\n{line.interval}".strip(),
            line.p_holm,
        )
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))
    return table


def terminal_text(lines: Sequence[ResultLine], notes: Sequence[str]) -> str:
    """Table and notes as plain text of at most 80 columns, without colours."""
    file = io.StringIO()
    console = Console(file=file, width=TERMINAL_WIDTH, force_terminal=False, color_system=None)
    console.print(rich_table(lines))
    console.print()
    for note in (*_legend(lines, "terminal"), *notes):
        console.print(Text(note), soft_wrap=False)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines()).lstrip("\n")


def markdown(lines: Sequence[ResultLine], notes: Sequence[str]) -> str:
    """The result table as a Markdown table, its notes below."""
    head = ("Arm", "DS", "Params", "MACs", "Dice", "IoU", "Delta Dice [95 %]", "Holm p")
    body = [
        (
            escape_markdown(line.label),
            line.deep_supervision,
            line.parameters,
            line.macs,
            _ranked(line.dice, "**", "*"),
            _ranked(line.iou, "**", "*"),
            line.comparison,
            line.p_holm,
        )
        for line in lines
    ]
    text = markdown_table(head, body, left=2)
    below = " ".join((*_legend(lines, "markdown"), *map(escape_markdown, notes)))
    return f"{text}\n{below}\n"


def latex(lines: Sequence[ResultLine], notes: Sequence[str], *, label: str) -> str:
    """The result table for a paper: needs the package booktabs.

    Args:
        lines: the rows.
        notes: sentences of the caption.
        label: what follows `tab:` in the reference; letters, digits, dashes.
    """
    below = " ".join((*_legend(lines, "latex"), *notes))
    body = [
        " & ".join(
            (
                escape_latex(line.label),
                r"\checkmark" if line.deep_supervision == "yes" else "--",
                escape_latex(line.parameters),
                escape_latex(line.macs),
                _latex_score(line.dice),
                _latex_score(line.iou),
                escape_latex(line.comparison),
                escape_latex(line.p_holm),
            )
        )
        + r" \\"
        for line in lines
    ]
    head = "Arm & DS & Params & MACs & Dice $\\uparrow$ & IoU $\\uparrow$ & "
    return "\n".join(
        [
            r"% needs \usepackage{booktabs,amssymb}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(below)}}}",
            rf"\label{{tab:{label}}}",
            r"\begin{tabular}{lcrrcclr}",
            r"\toprule",
            head + r"$\Delta$ Dice [95\,\%] & Holm $p$ \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def heads_markdown(rows: pd.DataFrame, *, digits: int) -> str:
    """The table of heads; the judged output of each arm is in bold."""
    head = ("Arm", "Output", "Params", "MACs", "Dice", "IoU")
    return markdown_table(
        head,
        [
            (
                escape_markdown(line[0]),
                f"**{line[1]}**" if judged else line[1],
                *line[2:],
            )
            for line, judged in zip(head_lines(rows, digits=digits), rows["primary"], strict=True)
        ],
        left=2,
    )


def head_lines(rows: pd.DataFrame, *, digits: int) -> list[tuple[str, ...]]:
    """Arm, output, parameters, MACs, Dice, IoU of each row of `tables.head_rows`, rounded."""
    return [
        (
            row["label"],
            row["output"],
            millions(row["num_parameters"]),
            billions(row["macs"]),
            _score(row, "dice", digits, 0).line,
            _score(row, "iou", digits, 0).line,
        )
        for row in rows.to_dict("records")
    ]


def _scores(rows: pd.DataFrame, metric: str, digits: int) -> list[Score]:
    places = ranks(rows, f"{metric}_mean")
    return [
        _score(row, metric, digits, int(place))
        for row, place in zip(rows.to_dict("records"), places, strict=True)
    ]


def _score(row: dict, metric: str, digits: int, rank: int) -> Score:
    mean, spread = row[f"{metric}_mean"], row[f"{metric}_sd"]
    return Score(
        mean=_NONE if math.isnan(mean) else f"{mean:.{digits}f}",
        spread="" if math.isnan(spread) else f"{spread:.{digits}f}",
        rank=rank,
    )


def _interval(row: dict, digits: int) -> str:
    if math.isnan(row["delta_low"]):
        return f"[{_NONE}]"
    return f"[{signed(row['delta_low'], digits)}, {signed(row['delta_high'], digits)}]"


def _stacked(score: Score) -> Text:
    text = Text(score.mean, style="bold" if score.rank == 1 else "")
    return text.append(f"\n±{score.spread}", style="not bold") if score.spread else text


def _ranked(score: Score, best: str, second: str) -> str:
    mark = {1: best, 2: second}.get(score.rank, "")
    return f"{mark}{score.mean}{mark}{score.line.removeprefix(score.mean)}"


def _latex_score(score: Score) -> str:
    command = {1: r"\textbf", 2: r"\underline"}.get(score.rank)
    mean = f"{command}{{{score.mean}}}" if command else score.mean
    return mean + escape_latex(score.line.removeprefix(score.mean))


def _legend(lines: Sequence[ResultLine], writer: str) -> list[str]:
    legend = [RANK_LEGEND[writer]] if any(line.dice.rank for line in lines) else []
    return [*legend, TIE_LEGEND] if any(_TIE in line.delta for line in lines) else legend
