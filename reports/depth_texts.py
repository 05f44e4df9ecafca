"""The table of depths as text and Markdown, and its answer in sentences."""

from __future__ import annotations

import io
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports.scores import FORMULAS
from reports.tables import num_decimals
from reports.writers import TERMINAL_WIDTH, escape_markdown, markdown_table, signed

INTERVAL_LEGEND = (
    "Brackets beside a mean: its 95 % interval over runs, by the corrected resampled t; it shows "
    "the spread of runs and does not compare depths, which are paired."
)
_NONE = "n/a"
_Row = dict[Hashable, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthLine:
    """One curve in one row, as every writer prints it.

    Attributes:
        data, family: whose curve.
        scores: mean Dice at each depth of the table; "" where the family has no such depth.
        spreads: the interval of each of them; "" where there is none.
        best, enough: "L4", or "n/a".
        delta, interval: Dice of the shallow enough depth minus that of the best; "" where they are
            the same depth.
    """

    data: str
    family: str
    scores: tuple[str, ...]
    spreads: tuple[str, ...]
    best: str
    enough: str
    delta: str
    interval: str

    @property
    def comparison(self) -> str:
        """Difference and interval on one line."""
        return f"{self.delta} {self.interval}".strip()


def depth_lines(rows: pd.DataFrame) -> list[DepthLine]:
    """One line a curve, from the rows of `reports.depth.depth_rows`."""
    digits = num_decimals(rows)
    depths = sorted(rows["depth"].unique())
    lines: list[DepthLine] = []
    for (data, family), curve in rows.groupby(["data", "family"], sort=False):
        points = {row["depth"]: row for row in curve.to_dict("records")}
        best, enough = _marked(curve, "best"), _marked(curve, "shallow_enough")
        # Where the best is enough there is nothing to compare.
        apart = enough if enough and best and enough["depth"] != best["depth"] else None
        lines.append(
            DepthLine(
                data=str(data),
                family=str(family),
                scores=tuple(
                    _number(points[depth]["dice_mean"], digits) if depth in points else ""
                    for depth in depths
                ),
                spreads=tuple(
                    _spread(points[depth], digits) if depth in points else "" for depth in depths
                ),
                best=_name(best),
                enough=_name(enough),
                delta=signed(apart["delta_best"], digits) if apart else "",
                interval=_interval(apart, digits) if apart else "",
            )
        )
    return lines


def depth_heads(rows: pd.DataFrame) -> list[str]:
    """Headings of the columns of depths: L1, L2 and so on."""
    return [f"L{depth}" for depth in sorted(rows["depth"].unique())]


def depth_notes() -> list[str]:
    """The sentences below the table: what the numbers are, and by which rule a depth is enough."""
    return [
        (
            f"L1 to Ld: mean over the runs (each fold held out, under each seed) of the mean "
            f"{FORMULAS['dice']} per case, of "
            "networks of that depth, each trained on its own; at L1 the families are one network."
        ),
        (
            "Best: largest mean. Shallow enough: the shallowest depth whose difference from the best "
            "depth of its family, paired by run, cannot be told from zero (the 95 % interval of the "
            "corrected resampled t, Nadeau and Bengio 2003, holds zero; not corrected for the number "
            "of depths). Delta: Dice of that depth minus the best."
        ),
        (
            "Not told apart is not equal: the noisier the runs, the shallower the depth that cannot "
            "be told, so read it with its interval; and the best of several means is a little too "
            "good. Both depths are read off the same held-out folds; no test "
            "set selected a depth, and none tested one."
        ),
    ]


def depth_terminal(rows: pd.DataFrame) -> str:
    """Table and notes as plain text of at most 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("Data", overflow="fold")
    table.add_column("Network", no_wrap=True)
    for name in depth_heads(rows):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Best", justify="right", no_wrap=True)
    table.add_column("Shallow\nenough", justify="right", no_wrap=True)
    table.add_column("Delta Dice\n[95 %]", justify="right", no_wrap=True)
    for line in depth_lines(rows):
        # Text, not str: a folder named "[x]" is no markup.
        stacked = f"{line.delta}\n{line.interval}".strip()
        cells = (line.data, line.family, *line.scores, line.best, line.enough, stacked)
        table.add_row(*map(Text, cells))
    return terminal_page(table, depth_notes())


def terminal_page(table: Table, notes: Sequence[str]) -> str:
    """A table and sentences below it as plain text of at most 80 columns."""
    file = io.StringIO()
    console = Console(file=file, width=TERMINAL_WIDTH, force_terminal=False, color_system=None)
    console.print(table)
    console.print()
    for note in notes:
        console.print(Text(note), soft_wrap=False)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines()).lstrip("\n")


def depth_markdown(rows: pd.DataFrame) -> str:
    """Table and notes as Markdown."""
    head = ("Data", "Network", *depth_heads(rows), "Best", "Shallow enough", "Delta Dice [95 %]")
    body = [
        (
            escape_markdown(line.data),
            escape_markdown(line.family),
            *(
                escape_markdown(f"{score} {spread}".strip())
                for score, spread in zip(line.scores, line.spreads, strict=True)
            ),
            line.best,
            line.enough,
            line.comparison,
        )
        for line in depth_lines(rows)
    ]
    notes = " ".join(map(escape_markdown, (INTERVAL_LEGEND, *depth_notes())))
    return f"{markdown_table(head, body, left=2)}\n{notes}\n"


def depth_verdict(rows: pd.DataFrame) -> list[str]:
    """The answer: one sentence a family over all data sets, then one a curve."""
    digits = num_decimals(rows)
    curves = [
        (str(data), str(family), curve)
        for (data, family), curve in rows.groupby(["data", "family"], sort=False)
    ]
    summary = [
        f"{family}, shallow enough: "
        f"{', '.join(_short(data, curve) for data, own, curve in curves if own == family)}."
        for family in rows["family"].unique()
    ]
    return [*summary, *(_sentence(data, family, curve, digits) for data, family, curve in curves)]


def _short(data: str, curve: pd.DataFrame) -> str:
    enough = _marked(curve, "shallow_enough")
    if enough is None:
        return f"undecided on {data}"
    return f"{_name(enough)} on {data}"


def _sentence(data: str, family: str, curve: pd.DataFrame, digits: int) -> str:
    best, enough = _marked(curve, "best"), _marked(curve, "shallow_enough")
    if best is None:
        return f"On {data}, no run has all depths of {family} yet, so they cannot be compared."
    runs = int(best["curve_folds"])
    top = f"{_name(best)} ({_number(best['dice_mean'], digits)})"
    if enough is None:
        return f"On {data}, {family} has its best Dice at {top}; one run gives no interval."
    shallower = curve[curve["depth"] < best["depth"]].to_dict("records")
    if not shallower:
        return f"On {data}, {family} has its best Dice at its shallowest depth, {top}."
    if enough["depth"] == best["depth"]:
        near = max(shallower, key=lambda row: row["delta_best"])
        return (
            f"On {data}, {family} needs {top}, its best depth: every shallower one can be told "
            f"from it; the nearest, {_name(near)}, is {_below(near, digits)}."
        )
    share = 100 * enough["num_parameters"] / best["num_parameters"]
    return (
        f"On {data}, {family} has its best Dice at {top}, and {_name(enough)} is shallow enough: "
        f"it is {_below(enough, digits)}, which {runs} runs cannot tell from zero, though they do "
        f"not rule out a loss of {abs(enough['delta_low']):.{digits}f}; it has {share:.0f} % of the "
        "parameters."
    )


def _below(row: _Row, digits: int) -> str:
    size = f"{abs(row['delta_best']):.{digits}f} below"
    if math.isnan(row["delta_low"]):
        return f"{size}, the same in every run"
    low, high = signed(row["delta_low"], digits), signed(row["delta_high"], digits)
    return f"{size} it (95 % interval {low} to {high})"


def _marked(curve: pd.DataFrame, column: str) -> _Row | None:
    rows = curve[curve[column].astype(bool)].to_dict("records")
    return rows[0] if rows else None


def _name(row: _Row | None) -> str:
    return _NONE if row is None else f"L{row['depth']}"


def _number(value: float, digits: int) -> str:
    return _NONE if math.isnan(value) else f"{value:.{digits}f}"


def _interval(row: _Row, digits: int) -> str:
    return f"[{signed(row['delta_low'], digits)}, {signed(row['delta_high'], digits)}]"


def _spread(row: _Row, digits: int) -> str:
    if math.isnan(row["dice_low"]):
        return ""
    return f"[{row['dice_low']:.{digits}f}, {row['dice_high']:.{digits}f}]"
