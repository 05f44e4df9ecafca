"""The curves of depth in sentences, and in one table over all data sets."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import pandas as pd

from reports import cells
from reports.document import Cell, Column, Table
from reports.pairs import within
from reports.scores import FORMULAS
from reports.writers import signed

_NONE = "n/a"
_Row = dict[Hashable, Any]


def curves_table(rows: pd.DataFrame, *, name: str) -> Table:
    """One row a data set and family: Dice at every depth, the best and the shallowest that is enough.

    Args:
        rows: of `reports.depth.depth_rows`.
        name: of its files.
    """
    digits = cells.num_decimals(rows)
    depths = sorted(rows["depth"].unique())
    lines = [
        _curve_line(str(data), str(family), curve, depths, digits)
        for (data, family), curve in rows.groupby(["data", "family"], sort=False)
    ]
    return Table(
        name=name,
        title="Dice at every depth on every data set",
        columns=(
            Column(title="Data", align="left"),
            Column(title="Network", align="left"),
            *(Column(title=f"L{depth} [95 %]", better="higher") for depth in depths),
            Column(title="Best"),
            Column(title="Shallow enough"),
            Column(title="Delta Dice [95 %]"),
        ),
        rows=tuple(lines),
        notes=_curve_notes(),
        data=rows,
    )


def _curve_line(
    data: str, family: str, curve: pd.DataFrame, depths: list[int], digits: int
) -> tuple[Cell, ...]:
    points = {row["depth"]: row for row in curve.to_dict("records")}
    best, enough = _marked(curve, "best"), _marked(curve, "shallow_enough")
    # Where the best is enough there is nothing to compare.
    apart = enough if enough and best and enough["depth"] != best["depth"] else None
    return (
        cells.words(data),
        cells.words(family),
        *(
            _point_cell(points[depth], digits) if depth in points else cells.blank()
            for depth in depths
        ),
        cells.words(_name(best)),
        cells.words(_name(enough)),
        cells.difference(
            apart["delta_best"],
            digits,
            limits=(apart["delta_low"], apart["delta_high"]),
            bound=1.0,
        )
        if apart
        else cells.blank(),
    )


def _point_cell(row: _Row, digits: int) -> Cell:
    limits = within(row["dice_low"], row["dice_high"])
    return cells.number(row["dice_mean"], digits, limits=limits, rank=1 if row["best"] else 0)


def _curve_notes() -> tuple[str, ...]:
    return (
        (
            "L1 to Ld: mean over the runs (each fold held out, under each seed) of the mean "
            f"{FORMULAS['dice']} per case, of networks of that depth, each trained on its own; at L1 "
            "the families are one network. Brackets: 95 % interval over runs, by the corrected "
            "resampled t, cut at 0 and 1; it shows the spread of runs and does not compare depths, "
            "which are paired."
        ),
        (
            "Best, in bold: largest mean of a row. Shallow enough: the shallowest depth whose "
            "difference from the best depth of its family, paired by run, cannot be told from zero "
            "(the 95 % interval of the corrected resampled t, Nadeau and Bengio 2003, holds zero; "
            "not corrected for the number of depths). Delta: Dice of that depth minus the best."
        ),
        (
            "Not told apart is not equal: the noisier the runs, the shallower the depth that cannot "
            "be told, so read it with its interval; and the best of several means is a little too "
            "good. Both depths are read off the same held-out folds; no test set selected a depth, "
            "and none tested one."
        ),
    )


def depth_verdict(rows: pd.DataFrame) -> list[str]:
    """The answer: one sentence a curve; with several data sets, one a family over all comes first."""
    digits = cells.num_decimals(rows)
    curves = [
        (str(data), str(family), curve)
        for (data, family), curve in rows.groupby(["data", "family"], sort=False)
    ]
    summary = [
        f"{family}, shallow enough: "
        f"{', '.join(_short(data, curve) for data, own, curve in curves if own == family)}."
        for family in rows["family"].unique()
    ]
    sentences = [_sentence(data, family, curve, digits) for data, family, curve in curves]
    # Of one data set the sentence of the curve says it, with what it rests on.
    return [*summary, *sentences] if len(set(rows["data"])) > 1 else sentences


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
