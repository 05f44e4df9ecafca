"""Cases one by one: how the scores are spread, and which cases all arms fail on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from reports import cells, notes
from reports.document import Cell, Column, Section, Table
from reports.figures import Plot, save_figure
from reports.plots import case_scores
from reports.records import StudyRecords
from reports.scores import primary_cases

NUM_WORST = 10
_PLOT: Plot[StudyRecords] = Plot(
    name="case_scores",
    title="Scores case by case",
    data=case_scores.case_scores_frame,
    draw=case_scores.draw_case_scores,
    caption=case_scores.caption,
)


def section(study: StudyRecords, folder: Path) -> Section | None:
    """The plot of all cases and the list of the worst; None without a scored case."""
    if study.cases.empty:
        return None
    chosen = worst_cases(study)
    return Section(
        name="cases",
        title="Cases",
        paragraphs=(
            (
                "Means hide which cases they are made of. The figure shows every case; the table "
                f"lists the {NUM_WORST} lowest, chosen by a rule and not by hand, with the median and "
                "the best for balance."
            ),
        ),
        tables=() if chosen is None else (_table(study, chosen),),
        figures=(save_figure(_PLOT, study, folder),),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChosenCases:
    """The cases that are listed.

    Attributes:
        rows: one row a case (and class), lowest first, then the median and the best: why, case,
            label, group, fold (from 0), reference (pixels), mean, worst_arm, lowest, best_arm, highest, then
            `dice_<arm>` for every arm.
        num_cases: that every arm has a score of; the others cannot be chosen.
    """

    rows: pd.DataFrame
    num_cases: int


def worst_cases(study: StudyRecords) -> ChosenCases | None:
    """The `NUM_WORST` lowest by mean Dice over the arms, the median and the best; None without any.

    Only cases that every arm with a run has a score of, so that their means compare. Ties go to
    the first name.
    """
    frame = case_scores.case_scores_frame(study)
    arms = [arm.name for arm in study.arms if frame[f"dice_{arm.name}"].notna().any()]
    columns = [f"dice_{arm}" for arm in arms]
    frame = frame.dropna(subset=columns) if arms else frame.head(0)
    if frame.empty:
        return None
    scores = frame[columns].to_numpy(dtype=float)
    frame = frame.assign(
        mean=scores.mean(axis=1),
        worst_arm=[arms[k] for k in scores.argmin(axis=1)],
        lowest=scores.min(axis=1),
        best_arm=[arms[k] for k in scores.argmax(axis=1)],
        highest=scores.max(axis=1),
    )
    # Rounded, as means of equal scores may differ in their last digits.
    order = np.lexsort((np.arange(len(frame)), frame["mean"].to_numpy().round(12)))
    places = {int(place): f"worst {rank + 1}" for rank, place in enumerate(order[:NUM_WORST])}
    for why, place in (("median", order[(len(order) - 1) // 2]), ("best", order[-1])):
        known = places.get(int(place))
        places[int(place)] = f"{known}, {why}" if known else why
    rows = frame.iloc[list(places)].assign(why=list(places.values()))
    rows = rows.merge(_references(study, rows), on=["case", "label"], how="left")
    named = ["why", "case", "label", "group", "fold", "reference", "mean"]
    named += ["worst_arm", "lowest", "best_arm", "highest"]
    return ChosenCases(rows=rows[[*named, *columns]], num_cases=len(frame))


def _references(study: StudyRecords, rows: pd.DataFrame) -> pd.DataFrame:
    """Pixels of the reference of these cases."""
    cases = primary_cases(study)
    kept = cases[cases["case"].isin(rows["case"])].drop_duplicates(["case", "label"])
    sizes = kept["tp"] + kept["fn"]
    return kept[["case", "label"]].astype({"case": object}).assign(reference=sizes)


def _table(study: StudyRecords, chosen: ChosenCases) -> Table:
    several, rows = notes.several_classes(study), chosen.rows
    grouped = bool((rows["case"] != rows["group"]).any())
    return Table(
        name="worst_cases",
        title=f"The {min(NUM_WORST, chosen.num_cases)} worst cases, the median and the best",
        columns=(
            Column(title="Which", align="left"),
            Column(title="Case", align="left"),
            *([Column(title="Class", align="left")] if several else []),
            *([Column(title="Group", align="left", narrow=False)] if grouped else []),
            Column(title="Fold", narrow=False),
            Column(title="Pixels", explained="pixels of the reference"),
            Column(title="Mean Dice", better="higher", explained="over the arms"),
            Column(title="Lowest", explained="of the arms"),
            Column(title="by", align="left", narrow=False, explained="the arm that has it"),
            Column(title="Highest", explained="of the arms"),
            Column(title="by", align="left", narrow=False),
        ),
        rows=tuple(
            _line(study, row, several=several, grouped=grouped) for row in rows.to_dict("records")
        ),
        notes=(
            (
                f"Rule: the {NUM_WORST} lowest by mean Dice over the arms among the "
                f"{chosen.num_cases:,} {'cases and classes' if several else 'cases'} that every arm "
                "has a score of, then the median and the best; ties go to the first name."
            ),
            notes.empty_masks(study),
            "The CSV holds the Dice of every arm.",
        ),
        data=rows,
    )


def _line(study: StudyRecords, row: dict, *, several: bool, grouped: bool) -> tuple[Cell, ...]:
    return (
        cells.words(row["why"]),
        cells.words(str(row["case"])),
        *([cells.words(notes.class_name(study, int(row["label"])))] if several else []),
        *([cells.words(str(row["group"]))] if grouped else []),
        cells.count(row["fold"] + 1),
        cells.count(row["reference"]),
        cells.number(row["mean"], 3),
        cells.number(row["lowest"], 3),
        cells.words(study.titles[row["worst_arm"]]),
        cells.number(row["highest"], 3),
        cells.words(study.titles[row["best_arm"]]),
    )
