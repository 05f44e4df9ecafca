"""Means over cases and pooled ratios of every arm, with intervals over new cases, and their tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reports import cells, notes
from reports.case_table import CasePlaces
from reports.comparison import SEED
from reports.document import Cell, Column
from reports.records import StudyRecords
from reports.statistics import FEWEST_GROUPS
from reports.statistics.cases import DRAWS, Resampled, gaps, percentile, pooled_sums, resample
from reports.statistics.intervals import Interval

_Array = NDArray[np.float64]


def interval_rows(
    study: StudyRecords,
    places: CasePlaces,
    means: Mapping[str, _Array],
    ratios: Mapping[str, tuple[_Array, _Array]],
) -> pd.DataFrame:
    """One row an arm that has cases: every score, its interval, and its difference from the baseline.

    One bootstrap over groups serves all: the same groups are drawn for every score and arm.

    Args:
        study: whose records.
        places: of the cases.
        means: name -> [units, arms] scores whose mean over cases is wanted; NaN is left out. The
            difference is over the cases that both arms have a score of.
        ratios: name -> [units, arms] numerators and denominators that are summed over all cases.
            The difference is NaN where the arm was not scored on the baseline's cases.

    Returns:
        Columns: arm; for each score its name, `_low`, `_high`, and `_delta`, `_delta_low`,
        `_delta_high`; limits are NaN with fewer than six groups.
    """
    arms, base = places.arms, places.arms.index(study.manifest.baseline)
    blocks: list[tuple[_Array, _Array]] = []
    for scores in means.values():
        both = np.hstack([scores, scores - scores[:, base : base + 1]])
        known = ~np.isnan(both)
        blocks.append((np.where(known, both, 0.0), known.astype(np.float64)))
    blocks += ratios.values()
    above, below = (np.hstack([block[side] for block in blocks]) for side in (0, 1))
    drawn = resample(pooled_sums(above, below, places.groups), seed=SEED)
    recorded = places.sums(np.ones(len(places.places))) > 0
    frame, start = pd.DataFrame({"arm": arms}), 0
    for name in means:
        _put(frame, name, percentile(_columns(drawn, start, len(arms))))
        start += len(arms)
        _put(frame, f"{name}_delta", percentile(_columns(drawn, start, len(arms))))
        start += len(arms)
        frame.loc[base, [f"{name}_delta{end}" for end in ("", "_low", "_high")]] = np.nan
    for name in ratios:
        own = _columns(drawn, start, len(arms))
        start += len(arms)
        _put(frame, name, percentile(own))
        _put(frame, f"{name}_delta", percentile(gaps(own, base)))
        other = (recorded != recorded[:, base : base + 1]).any(axis=0)
        other[base] = True
        frame.loc[other, [f"{name}_delta{end}" for end in ("", "_low", "_high")]] = np.nan
    return frame.iloc[np.flatnonzero(recorded.any(axis=0))].reset_index(drop=True)


def _columns(drawn: Resampled, start: int, count: int) -> Resampled:
    kept = slice(start, start + count)
    return Resampled(
        values=drawn.values[kept],  # noqa: PD011 (no pandas)
        draws=drawn.draws[:, kept],
        without=drawn.without[:, kept],
        num_groups=drawn.num_groups[kept],
    )


def _put(frame: pd.DataFrame, name: str, intervals: tuple[Interval, ...]) -> None:
    frame[name] = [item.value for item in intervals]
    frame[f"{name}_low"] = [item.low for item in intervals]
    frame[f"{name}_high"] = [item.high for item in intervals]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """How one score of `interval_rows` is printed.

    Attributes:
        name: its column.
        title: of the printed column.
        better: which way.
        least, most: decimals; as many between them as the intervals allow.
        narrow: whether a terminal of 80 columns keeps it.
        compared: whether its difference from the baseline has a column.
    """

    name: str
    title: str
    better: Literal["higher", "lower"]
    least: int = 3
    most: int = 4
    narrow: bool = True
    compared: bool = False


def shown_columns(shown: tuple[Shown, ...]) -> list[Column]:
    """Heads of the scores with their intervals, then of the differences."""
    own = [
        Column(title=f"{item.title} [95 %]", better=item.better, narrow=item.narrow)
        for item in shown
    ]
    differences = [Column(title=f"Delta {item.title} [95 %]") for item in shown if item.compared]
    return [*own, *differences]


def shown_cells(
    study: StudyRecords, rows: pd.DataFrame, shown: tuple[Shown, ...], *, ranked: bool
) -> list[list[Cell]]:
    """The cells below `shown_columns`, a list a row of `interval_rows`.

    Args:
        study: whose records.
        rows: of `interval_rows`.
        shown: which scores.
        ranked: whether all arms were scored on the same cases, so that best and second are marked.
    """
    digits = {
        item.name: cells.decimals(
            (rows[f"{item.name}_high"] - rows[f"{item.name}_low"]) / 2,
            least=item.least,
            most=item.most,
        )
        for item in shown
    }
    places = {
        item.name: cells.places(rows[item.name], better=item.better, ranked=ranked)
        for item in shown
    }
    lines: list[list[Cell]] = []
    for place, row in enumerate(rows.to_dict("records")):
        own = [
            cells.number(
                row[item.name],
                digits[item.name],
                limits=(row[f"{item.name}_low"], row[f"{item.name}_high"]),
                rank=places[item.name][place],
            )
            for item in shown
        ]
        is_baseline = row["arm"] == study.manifest.baseline
        differences = [
            cells.baseline_cell()
            if is_baseline
            else cells.difference(
                row[f"{item.name}_delta"],
                digits[item.name],
                limits=(row[f"{item.name}_delta_low"], row[f"{item.name}_delta_high"]),
            )
            for item in shown
            if item.compared
        ]
        lines.append([*own, *differences])
    return lines


def interval_note(study: StudyRecords, *, compared: bool) -> str:
    """What the intervals of `interval_rows` are."""
    base, seeds = study.titles[study.manifest.baseline], study.manifest.num_seeds
    delta = f" Delta: less that of {base}, on the same draws." if compared else ""
    return (
        f"Brackets: 95 % interval of a bootstrap over groups (unit: {notes.unit_name(study)}; "
        f"{DRAWS:,} draws, seed {SEED}, percentile; none with fewer than {FEWEST_GROUPS} groups) of "
        f"these trained networks on new cases{', averaged over seeds' if seeds > 1 else ''}.{delta} "
        "These scores are not tested."
    )
