"""The result of a study: every arm against the baseline, trained again and on new cases."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd

from reports import cells, notes
from reports.case_table import case_table
from reports.comparison import (
    ALPHA,
    ROPE,
    best_arm,
    comparable,
    empty_reference_rows,
    result_rows,
)
from reports.document import Cell, Column, Section, Table
from reports.figures import Plot, save_figure
from reports.new_case_table import new_cases_table
from reports.plots import paired_differences
from reports.records import StudyRecords

_Row = dict[Hashable, Any]
_PLOT: Plot[StudyRecords] = Plot(
    name="paired_differences",
    title="Differences from the baseline",
    data=paired_differences.paired_differences,
    draw=paired_differences.draw_paired_differences,
    caption=paired_differences.caption,
)


def section(study: StudyRecords, folder: Path) -> Section | None:
    """The result tables and the differences from the baseline; None without finished runs."""
    if study.runs.empty:
        return None
    rows = result_rows(study)
    single = len(study.arms) == 1
    tables = [result_table(study, rows)]
    if not single:
        new_cases = new_cases_table(study, case_table(study))
        tables += [table for table in (new_cases, posterior_table(study, rows)) if table]
    return Section(
        name="result",
        title="Result",
        paragraphs=() if single else _paragraphs(study),
        tables=tuple(tables),
        figures=() if single else (save_figure(_PLOT, study, folder),),
    )


def _paragraphs(study: StudyRecords) -> tuple[str, ...]:
    unit = notes.unit_name(study)
    return (
        (
            "Two questions are answered apart. Would an architecture do better if it were trained "
            "again? The unit is then the run, one fold under one seed. Would these very networks do "
            f"better on new cases? The unit is then the {unit}, and nothing is said of training "
            "again: all cases of a fold share one network, so that chance in its training is in "
            "every one of them. Where the answers part, the gain belongs to the networks at hand and "
            "not yet to the architecture."
        ),
        (
            "A difference that cannot be told from zero is not shown to be zero; how large it may "
            "still be is read off its interval."
        ),
    )


def result_table(study: StudyRecords, rows: pd.DataFrame) -> Table:
    """One row an arm: its price, Dice and IoU, and the difference if it were trained again.

    Args:
        study: whose records.
        rows: of `result_rows`.
    """
    empty = empty_reference_rows(study)
    supervised = bool(rows["deep_supervision"].any())
    columns = (
        Column(title="Arm", align="left"),
        *([_DS] if supervised else []),
        Column(title="Params", better="lower"),
        Column(title="MACs", better="lower", explained="multiply-accumulates of one image"),
        Column(title="Memory", better="lower", narrow=False, explained=_MEMORY),
        Column(title="Hours", narrow=False, explained="training and scoring, sum over runs"),
        Column(title="Dice", better="higher"),
        Column(title="IoU", better="higher"),
        Column(title="Delta Dice [95 %]"),
        Column(title="Holm p"),
        *(_EMPTY_COLUMNS if len(empty) else ()),
    )
    return Table(
        name="result",
        title="Trained again: mean over runs, and the difference from the baseline",
        columns=columns,
        rows=tuple(_result_cells(study, rows, empty)),
        notes=(
            notes.definitions(study),
            notes.empty_masks(study),
            *_empty_notes(empty),
            f"{notes.judged_output(study)} Dice and IoU: {notes.averaging(study, rows)}",
            *notes.retraining_notes(study, rows),
            *_tie_notes(study, rows),
        ),
        data=rows.merge(empty, on="arm", how="left") if len(empty) else rows,
    )


_DS = Column(title="DS", align="left", explained="deep supervision")
_MEMORY = "what one step of training must hold at least"
_EMPTY_COLUMNS = (
    Column(
        title="FP rate", better="lower", narrow=False,
        explained="share of empty references with any predicted pixel",
    ),
    Column(
        title="FP pixels", better="lower", narrow=False,
        explained="mean number of pixels predicted on an empty reference",
    ),
)  # fmt: skip


def _result_cells(
    study: StudyRecords, rows: pd.DataFrame, empty: pd.DataFrame
) -> list[tuple[Cell, ...]]:
    digits = cells.num_decimals(rows)
    ranked = comparable(rows)
    dice_places = cells.places(rows["dice_mean"], ranked=ranked)
    iou_places = cells.places(rows["iou_mean"], ranked=ranked)
    supervised = bool(rows["deep_supervision"].any())
    false: list[_Row] = empty.to_dict("records") if len(empty) else [{}] * len(rows)
    lines: list[tuple[Cell, ...]] = []
    for row, dice_place, iou_place, wrong in zip(
        rows.to_dict("records"), dice_places, iou_places, false, strict=True
    ):
        tie: cells.Mark = "tie" if row["p_best"] >= ALPHA else ""
        lines.append(
            (
                cells.words(row["label"]),
                *([cells.words("yes" if row["deep_supervision"] else "no")] if supervised else []),
                cells.parameters(row["num_parameters"]),
                cells.macs(row["macs"]),
                cells.memory(row["training_memory"]),
                cells.number(row["train_hours"], 2),
                cells.number(
                    row["dice_mean"], digits, sd=row["dice_sd"], rank=dice_place, mark=tie
                ),
                cells.number(row["iou_mean"], digits, sd=row["iou_sd"], rank=iou_place),
                *_difference(study, row, digits),
                *(_false_positives(wrong) if wrong else []),
            )
        )
    return lines


def _difference(study: StudyRecords, row: _Row, digits: int) -> tuple[Cell, Cell]:
    """Difference from the baseline and its Holm p."""
    if row["arm"] == study.manifest.baseline:
        return cells.baseline_cell(), cells.blank()
    worse: cells.Mark = "worse" if row["p_holm"] < ALPHA and row["delta_dice"] < 0 else ""
    limits = (row["delta_low"], row["delta_high"])
    delta = cells.difference(row["delta_dice"], digits, limits=limits, bound=1, mark=worse)
    return delta, cells.probability(row["p_holm"])


def _false_positives(row: _Row) -> list[Cell]:
    return [cells.share(row["false_positive_rate"]), cells.number(row["mean_false_pixels"], 1)]


def _empty_notes(empty: pd.DataFrame) -> list[str]:
    if empty.empty:
        return []
    fewest, most = empty["num_empty"].min(), empty["num_empty"].max()
    number = f"{most}" if fewest == most else f"{fewest} to {most}"
    return [
        (
            f"False positives on empty references: over {number} (case, class and run) per arm. The "
            "two columns say what a mean of Dice hides under any rule for empty masks."
        )
    ]


def _tie_notes(study: StudyRecords, rows: pd.DataFrame) -> list[str]:
    compared = rows.loc[rows["p_best"].notna()]
    if compared.empty or not (compared["p_best"] >= ALPHA).any():
        return []
    best = study.titles[best_arm(rows)]
    return [
        (
            f"≈ compares with {best}, the best mean Dice, paired by run, by the same test, Holm over "
            f"{len(compared)} comparison{'s' if len(compared) > 1 else ''} with it, p >= {ALPHA:g}. The best was picked by these "
            "scores, so that its lead is a little too large and a tie is missed rather than invented."
        )
    ]


def posterior_table(study: StudyRecords, rows: pd.DataFrame) -> Table | None:
    """Probabilities of worse, equal and better if trained again; None where no arm has them.

    Args:
        study: whose records.
        rows: of `result_rows`.
    """
    kept = rows[rows["p_equal"].notna()]
    if kept.empty:
        return None
    ratio = study.test_train_ratio
    names = ["arm", "delta_runs", "p_worse", "p_equal", "p_better"]
    return Table(
        name="posterior",
        title="Trained again: how probable is it that the arm is worse, equal, better?",
        columns=(
            Column(title="Arm", align="left"),
            Column(title="Runs"),
            Column(title="P(worse)", better="lower"),
            Column(title="P(equal)", explained=f"difference within ±{ROPE:g} Dice"),
            Column(title="P(better)", better="higher"),
        ),
        rows=tuple(
            (
                cells.words(study.titles[row["arm"]]),
                cells.count(row["delta_runs"]),
                *(cells.number(row[name], 3) for name in names[2:]),
            )
            for row in kept.to_dict("records")
        ),
        notes=(
            (
                f"Bayesian correlated t (Corani and Benavoli 2015; Benavoli et al. 2017): posterior of the "
                f"mean difference in Dice from {study.titles[study.manifest.baseline]}, rho = "
                f"{ratio / (1 + ratio):.3f}. Equal stands for a difference within ±{ROPE:g} Dice, a "
                "width fixed in the program. These are no p values, and no family is corrected for."
            ),
        ),
        data=kept[names],
    )
