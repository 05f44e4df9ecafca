"""How do the networks learn? Figure 9 of the paper, and whether training had ended."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from reports import cells
from reports.comparison import ALPHA
from reports.document import Cell, Column, Section, Table
from reports.figures import Plot, save_figure
from reports.learning import curve_rows, ending_rows
from reports.pairs import interval_words, run_words, within
from reports.plots import learning_curves
from reports.records import StudyRecords

_COLUMNS = (
    Column(title="Network", align="left"),
    Column(title="Pooled Dice at the end [95 %]"),
    Column(title="Change, last quarter [95 %]"),
    Column(title="Holm p"),
    Column(title="sd of folds"),
    Column(title="sd of seeds", explained="between the seeds of one fold, pooled over folds"),
)
_UNTESTED = (
    "No test of whether the curves still move: it needs two runs of an arm, each looked at twice in "
    "the last quarter of its epochs, and there are fewer."
)
_PLOT: Plot[StudyRecords] = Plot(
    name="learning_curves",
    title="Learning curves",
    data=learning_curves.learning_curves,
    draw=learning_curves.draw_learning_curves,
    caption=learning_curves.caption,
)


def section(study: StudyRecords, folder: Path) -> Section | None:
    """Figure of the curves, and a table of how they end; None without curves.

    Args:
        study: whose records.
        folder: for the figure.
    """
    if curve_rows(study).empty:
        return None
    rows = ending_rows(study)
    return Section(
        name="learning_curves",
        title="Learning curves",
        paragraphs=(_ABOUT,),
        answer=_answer(study, rows),
        tables=(ending_table(study, rows),) if len(rows) else (),
        figures=(save_figure(_PLOT, study, folder),),
    )


_ABOUT = (
    "The learning rate of these trainings falls to almost nothing at their end, which flattens any "
    "curve: a flat end does not show that a longer training would gain nothing. A rising end shows "
    "that it well might."
)


def _answer(study: StudyRecords, rows: pd.DataFrame) -> tuple[str, ...]:
    lines: list[str] = []
    if len(rows) and rows["p"].notna().any():
        span = f"epochs {rows['first_epoch'].iloc[0]} to {rows['last_epoch'].iloc[0]}"
        lines += [
            f"Over the last quarter of the training ({span}) the held-out Dice {words} "
            f"{', '.join(study.titles[arm] for arm in rows.loc[chosen, 'arm'])}."
            for words, chosen in _endings(rows).items()
            if chosen.any()
        ]
    return tuple(lines)


def _endings(rows: pd.DataFrame) -> dict[str, pd.Series]:
    told = rows["p_holm"] < ALPHA
    return {
        "still rises (Holm p < 0.05) for": told & (rows["change"] > 0),
        "falls (Holm p < 0.05) for": told & (rows["change"] < 0),
        "neither rises nor falls by more than the test can tell for": rows["p_holm"] >= ALPHA,
        "was not tested for": rows["p_holm"].isna(),
    }


def ending_table(study: StudyRecords, rows: pd.DataFrame) -> Table:
    """How high each curve ends, whether it still moves, and what its runs differ by."""
    named = rows.rename(columns={"change_low": "delta_low", "change_high": "delta_high"})
    digits = cells.num_decimals(named)
    family = int(rows["p"].notna().sum())
    # One seed has no spread: its column, the last, would be empty.
    seeds = study.manifest.num_seeds > 1
    kept = len(_COLUMNS) if seeds else len(_COLUMNS) - 1
    test = (
        "Change: least-squares slope of the held-out Dice over the last quarter of the epochs, run "
        f"by run, times the length of that quarter. Brackets: {interval_words(study)}. Holm p: "
        f"two-sided p of the change over {family} networks."
    )
    return Table(
        name="learning_curves",
        title="How the curves end",
        columns=_COLUMNS[:kept],
        rows=tuple(_line(study, row, digits)[:kept] for row in rows.to_dict("records")),
        notes=(
            (
                "Dice of the counts of all pixels of a held-out fold, at the last epoch, then the "
                f"mean over {run_words(study)}; it is for watching and is not the mean per case of "
                "the other tables."
            ),
            test if family else _UNTESTED,
            (
                "sd of folds: between the folds, each the mean over its seeds; mostly how much the "
                "held-out cases differ."
                + (" sd of seeds: what chance in a training does to one fold." if seeds else "")
            ),
        ),
        data=rows,
    )


def _line(study: StudyRecords, row: Mapping[Hashable, Any], digits: int) -> tuple[Cell, ...]:
    limits = (row["change_low"], row["change_high"])
    change = (
        cells.words(cells.NONE)
        if math.isnan(row["change"])
        else cells.difference(row["change"], digits, limits=limits)
    )
    return (
        cells.words(study.titles[row["arm"]]),
        cells.number(row["dice_mean"], digits, limits=within(row["dice_low"], row["dice_high"])),
        change,
        cells.probability(row["p_holm"]),
        cells.number(row["sd_folds"], digits),
        cells.number(row["sd_seeds"], digits),
    )
