"""Would the order of the arms be the same with other cases, or under another rule, in numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reports.case_table import case_table
from reports.comparison import SEED
from reports.records import StudyRecords
from reports.scores import judged_scores
from reports.statistics.cases import mean_sums, resample
from reports.statistics.stability import rank_stability, rankings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stability:
    """The ranking of the arms by mean Dice and what becomes of it.

    Attributes:
        rows: one row an arm, best first: arm, by_mean (rank of the mean over cases), low, high
            (95 % of the draws), first (share of the draws in which the arm is best), by_median,
            by_mean_rank (rank within each case, then mean). 1 is best, ties share their mean.
        tau: mean over the draws of Kendall's tau-b with the full ranking, and the value that 95 % of
            the draws exceed; NaN where all arms tie.
        num_cases: with a score of every arm; no other counts.
        num_groups: that were drawn from.
    """

    rows: pd.DataFrame
    tau: tuple[float, float]
    num_cases: int
    num_groups: int


def stability(study: StudyRecords) -> Stability | None:
    """Ranks under a bootstrap over groups and two other rules; None with fewer than two arms.

    Arms without a single score are left out, then cases that lack a score of an arm.
    """
    table = case_table(study)
    scored = np.flatnonzero(~np.isnan(table.scores).all(axis=0))
    scores = table.scores[:, scored]
    complete = ~np.isnan(scores).any(axis=1)
    if scores.shape[1] < 2 or not complete.any():
        return None
    scores, groups = scores[complete], table.places.groups[complete]
    drawn = rank_stability(resample(mean_sums(scores, groups), seed=SEED))
    rules = rankings(scores)
    tau = drawn.tau[~np.isnan(drawn.tau)]
    mean, low = (
        (float(tau.mean()), float(np.quantile(tau, 0.05))) if len(tau) else (math.nan, math.nan)
    )
    rows = pd.DataFrame(
        {
            "arm": [table.places.arms[k] for k in scored],
            "by_mean": rules.by_mean,
            "low": drawn.low,
            "high": drawn.high,
            "first": drawn.first,
            "by_median": rules.by_median,
            "by_mean_rank": rules.by_mean_rank,
        }
    )
    return Stability(
        rows=rows.sort_values("by_mean", kind="stable").reset_index(drop=True),
        tau=(mean, low),
        num_cases=int(complete.sum()),
        num_groups=drawn.num_groups,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How far arms lie apart, beside how far the runs of one arm do.

    Attributes:
        between: sample standard deviation over arms of their mean Dice.
        within: of the runs of an arm around its mean; the mean variance over arms, square root.
        paired: the same after each run has lost what all arms share of it (the ease of its fold), the
            part that a paired comparison never sees.
        seeds: of the seeds of one arm and fold; NaN with one seed.
            All are over the runs that every arm has, and NaN where there are too few.
        num_runs: that every arm has.
    """

    between: float
    within: float
    paired: float
    seeds: float
    num_runs: int

    @property
    def ratio(self) -> float:
        """Between / within; below 1 the arms differ by less than the runs of one of them."""
        return self.between / self.within if self.within > 0 else math.nan

    @property
    def paired_ratio(self) -> float:
        """Between / paired."""
        return self.between / self.paired if self.paired > 0 else math.nan


def spread(study: StudyRecords) -> Spread:
    """From the Dice of every run; arms without any run are left out."""
    dice = judged_scores(study, "dice").dropna(how="all").dropna(axis="columns")
    values = dice.to_numpy(dtype=float)
    num_arms, num_runs = values.shape
    if num_arms < 2 or num_runs < 2:
        return Spread(
            between=math.nan, within=math.nan, paired=math.nan, seeds=math.nan, num_runs=num_runs
        )
    rest = values - values.mean(axis=1, keepdims=True)
    rest -= values.mean(axis=0) - values.mean()
    # Arms and runs have each taken their means: that many degrees of freedom are left.
    paired = math.sqrt(float((rest**2).sum()) / ((num_arms - 1) * (num_runs - 1)))
    by_fold = dice.T.groupby(level="fold")
    seeds = by_fold.var(ddof=1).to_numpy(dtype=float)
    known = seeds[~np.isnan(seeds)]
    return Spread(
        between=float(values.mean(axis=1).std(ddof=1)),
        within=math.sqrt(float(values.var(axis=1, ddof=1).mean())),
        paired=paired,
        seeds=math.sqrt(float(known.mean())) if len(known) else math.nan,
        num_runs=num_runs,
    )
