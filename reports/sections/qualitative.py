"""Where do the networks succeed and fail? Figure 3 of the paper, with cases that a rule chose."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from reports import cells
from reports.document import Cell, Column, Section, Table
from reports.figures import Plot, save_figure
from reports.overlays import RULE
from reports.plots import overlay_grid
from reports.records import StudyRecords

_PLOT: Plot[StudyRecords] = Plot(
    name="overlays",
    title="Predictions",
    data=overlay_grid.overlay_scores,
    draw=overlay_grid.draw_overlay_grid,
    caption=lambda study, data: f"{overlay_grid.caption(study, data)} {RULE}",
    suffixes=(".png", ".pdf"),
)


def section(study: StudyRecords, folder: Path) -> Section | None:
    """Pictures of cases, and why each is shown; None where the study made no pictures.

    Args:
        study: whose records.
        folder: for the figure.
    """
    data = overlay_grid.overlay_scores(study)
    if data.empty:
        return None
    return Section(
        name="qualitative",
        title="Predictions",
        paragraphs=(
            RULE,
            (
                "A few cases show what kinds of mistakes there are, not how often: what is said of "
                "scores is said by the tables."
            ),
        ),
        tables=(case_table(study, data),),
        figures=(save_figure(_PLOT, study, folder),),
    )


def case_table(study: StudyRecords, data: pd.DataFrame) -> Table:
    """One row a case: why it is shown, and the Dice of every picture."""
    arms = list(data["arm"].unique())
    return Table(
        name="shown_cases",
        title="The cases that are shown",
        columns=(
            Column(title="Case", align="left"),
            Column(title="Chosen as", align="left"),
            *(Column(title=study.titles[arm], better="higher") for arm in arms),
        ),
        rows=tuple(
            _line(str(case), rows.set_index("arm"), arms)
            for case, rows in data.groupby("case", sort=False)
        ),
        notes=(
            (
                "Dice of the picture that is shown. Bold: the best of a row. Cases of one data set, "
                "picked by their scores: no test is made of them."
            ),
        ),
        data=data,
    )


def _line(case: str, rows: pd.DataFrame, arms: list[str]) -> tuple[Cell, ...]:
    values = [float(rows["dice"][arm]) for arm in arms]
    ranks = cells.places(values)
    return (
        cells.words(case),
        cells.words(str(rows["reason"].iloc[0])),
        *(
            Cell(text="both empty", value=math.nan)
            if math.isnan(value)
            else Cell(text=f"{value:.3f}", value=value, strong=rank == 1)
            for value, rank in zip(values, ranks, strict=True)
        ),
    )
