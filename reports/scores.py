"""From pixel counts to scores: per case, per run, and pooled, under a rule for empty masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from reports.records import StudyRecords
from unetpp.metrics.overlap import METRICS, EmptyPolicy, score

Metric = Literal["dice", "iou", "precision", "recall", "specificity"]
FORMULAS = {name: f"{metric.label} = {metric.formula}" for name, metric in METRICS.items()}


def primary_cases(study: StudyRecords) -> pd.DataFrame:
    """The rows of `study.cases` under the output by which each run is judged."""
    return study.cases[study.cases["judged"]].reset_index(drop=True)


def output_cases(study: StudyRecords, arm: str, output: str) -> pd.DataFrame:
    """The rows of `study.cases` of one output of one arm."""
    cases = study.cases
    return cases[(cases["arm"] == arm) & (cases["output"] == output)]


def case_scores(cases: pd.DataFrame, metric: Metric, *, empty: EmptyPolicy) -> pd.Series:
    """One score per row of counts, on the same index; NaN where the rule for empty masks says so."""
    counts = (cases[name].to_numpy() for name in ("tp", "fp", "fn", "tn"))
    return pd.Series(score(metric, *counts, empty=empty), index=cases.index, name=metric)


def fold_scores(cases: pd.DataFrame, metric: Metric, *, empty: EmptyPolicy) -> pd.DataFrame:
    """Mean over the cases of each held-out fold.

    Args:
        cases: rows of one output a run, see `primary_cases`; with several classes, every (case,
            class) counts once.
        metric: which score.
        empty: the rule for empty masks.

    Returns:
        Frame [arm, (seed, fold)]; NaN where the run is missing or none of its cases has a score.
    """
    scored = cases[["arm", "seed", "fold"]].assign(score=case_scores(cases, metric, empty=empty))
    frame = scored.pivot_table(
        index="arm", columns=["seed", "fold"], values="score", aggfunc="mean", observed=True
    )
    return frame.set_axis(frame.index.astype(object), axis="index")


def judged_scores(study: StudyRecords, metric: Metric) -> pd.DataFrame:
    """`fold_scores` of the output by which each run is judged."""
    return fold_scores(primary_cases(study), metric, empty=study.empty)


def scored_folds(scores: pd.DataFrame, arm: str) -> pd.Series:
    """Scores of one arm by (seed, fold), from `fold_scores`, without the runs that have none."""
    if arm not in scores.index:
        # With the levels of the others, so that it can be subtracted from them.
        return pd.Series(dtype="float64", index=scores.columns[:0])
    return scores.transpose()[arm].dropna()


@dataclass(frozen=True, slots=True, kw_only=True)
class EmptyCount:
    """How the rule for empty masks bore on this study.

    Attributes:
        num_cases: cases that were scored by at least one run.
        num_empty: of these, cases without foreground in the reference.
        left_out: fewest and most (case, class, run) that an arm leaves out.
    """

    num_cases: int
    num_empty: int
    left_out: tuple[int, int]


def count_empty(cases: pd.DataFrame, *, empty: EmptyPolicy) -> EmptyCount:
    """Count over rows of one output a run, see `primary_cases`."""
    reference = cases["tp"] + cases["fn"]
    unscored = case_scores(cases, "dice", empty=empty).isna()
    per_arm = unscored.groupby(cases["arm"], observed=True).sum()
    return EmptyCount(
        num_cases=int(cases["case"].nunique()),
        num_empty=int(cases.loc[reference.eq(0), "case"].nunique()),
        left_out=(int(per_arm.min()), int(per_arm.max())),
    )
