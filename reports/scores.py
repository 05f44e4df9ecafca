"""From pixel counts to scores: Dice and IoU per case, per fold, and pooled.

One rule for empty masks, printed with every table: a case whose reference *and* prediction are
empty has no score (NaN) and leaves the mean; an empty reference with a false positive scores 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from reports.records import StudyRecords
from unetpp.metrics.overlap import dice, iou

Metric = Literal["dice", "iou"]
FORMULAS: dict[Metric, str] = {
    "dice": "Dice = 2 TP / (2 TP + FP + FN)",
    "iou": "IoU = TP / (TP + FP + FN)",
}


_METRICS = {"dice": dice, "iou": iou}


def primary_cases(study: StudyRecords) -> pd.DataFrame:
    """The rows of `study.cases` under the output by which each run is judged."""
    primary = study.runs[["arm", "fold", "primary_output"]]
    joined = study.cases.merge(primary, on=["arm", "fold"])
    kept = joined[joined["output"] == joined["primary_output"]]
    return kept.drop(columns="primary_output").reset_index(drop=True)


def case_scores(cases: pd.DataFrame, metric: Metric) -> pd.Series:
    """One score per row of counts, on the same index; NaN under the rule for empty masks."""
    values = _METRICS[metric](cases["tp"], cases["fp"], cases["fn"])
    return pd.Series(values, index=cases.index, name=metric)


def fold_scores(cases: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Mean over the cases of each held-out fold.

    Args:
        cases: rows of one output a run, see `primary_cases`; with several classes, every (case,
            class) counts once.
        metric: which score.

    Returns:
        Frame [arm, fold]; NaN where the fold is missing or none of its cases has a score.
    """
    scored = cases.assign(score=case_scores(cases, metric))
    return scored.pivot_table(
        index="arm", columns="fold", values="score", aggfunc="mean", dropna=False
    )


def scored_folds(scores: pd.DataFrame, arm: str) -> pd.Series:
    """Scores of one arm by fold, from `fold_scores`, without the folds that have none."""
    if arm not in scores.index:
        return pd.Series(dtype="float64")
    return scores.transpose()[arm].dropna()


@dataclass(frozen=True, slots=True, kw_only=True)
class EmptyCount:
    """How the rule for empty masks bore on this study.

    Attributes:
        num_cases: cases that were scored by at least one run.
        num_empty: of these, cases without foreground in the reference.
        left_out: fewest and most cases that an arm leaves out (empty prediction too).
    """

    num_cases: int
    num_empty: int
    left_out: tuple[int, int]


def count_empty(cases: pd.DataFrame) -> EmptyCount:
    """Count over rows of one output a run, see `primary_cases`."""
    reference = cases["tp"] + cases["fn"]
    unscored = (reference + cases["fp"]).eq(0)
    per_arm = unscored.groupby(cases["arm"]).sum()
    return EmptyCount(
        num_cases=int(cases["case"].nunique()),
        num_empty=int(cases.loc[reference.eq(0), "case"].nunique()),
        left_out=(int(per_arm.min()), int(per_arm.max())),
    )
