"""Would the ranking of the arms be the same with other cases, or under another rule?

After Maier-Hein et al. (Nature Communications 9, 2018), who found challenge rankings to change with
both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reports.statistics.cases import Resampled
from reports.statistics.ranking import ranks_within
from unetpp.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class RankStability:
    """The ranks of several arms, and what becomes of them when other groups are drawn.

    Attributes:
        ranks: [arms] from all cases; 1 is best, ties share their mean.
        low, high: [arms] ranks between which the middle share of the draws lies.
        first: [arms] share of the draws in which the arm is best; ties divide it, so that the
            shares add up to 1.
        tau: [draws] Kendall's tau-b of each draw's ranking with the full one, -1 to 1; NaN where
            either has all arms tied.
        num_groups: that were drawn from, of the arm with the fewest.
    """

    ranks: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    first: tuple[float, ...]
    tau: NDArray[np.float64]
    num_groups: int


def rank_stability(resampled: Resampled, *, confidence: float = 0.95) -> RankStability:
    """Ranks of the columns of a bootstrap over groups, draw by draw.

    With `mean_sums` of scores this aggregates, then ranks; with `mean_sums` of
    `-ranks_within(scores)` it ranks, then aggregates.

    Args:
        resampled: larger is better. Draws that leave an arm without a case are left out.
        confidence: share of the draws between `low` and `high`.

    Raises:
        UserError: when an arm has no score at all.
    """
    assert 0 < confidence < 1
    ranks = ranks_within(resampled.values[None])[0]
    drawn = ranks_within(resampled.draws[~np.isnan(resampled.draws).any(axis=1)])
    best = drawn == drawn.min(axis=1, keepdims=True)
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    # A rank that some draw had, not one between two.
    low, high = np.quantile(drawn, ends, axis=0, method="inverted_cdf")
    return RankStability(
        ranks=tuple(ranks.tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        first=tuple((best / best.sum(axis=1, keepdims=True)).mean(axis=0).tolist()),
        tau=_tau(ranks, drawn),
        num_groups=int(resampled.num_groups.min()),
    )


def _tau(ranks: NDArray[np.float64], drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """[draws] Kendall's tau-b of each row with `ranks`."""
    one, other = np.triu_indices(len(ranks), 1)
    full = np.sign(ranks[one] - ranks[other])
    rows = np.sign(drawn[:, one] - drawn[:, other])
    size = np.sqrt((full**2).sum() * (rows**2).sum(axis=1))
    return np.divide(rows @ full, size, out=np.full(len(rows), np.nan), where=size > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rankings:
    """Ranks of the same arms from the same cases under three rules; 1 is best.

    Attributes:
        by_mean: [arms] of the mean score (aggregate, then rank).
        by_median: [arms] of the median score.
        by_mean_rank: [arms] of the mean rank within each case (rank, then aggregate).
        num_cases: with a score of every arm; the others are left out.
    """

    by_mean: tuple[float, ...]
    by_median: tuple[float, ...]
    by_mean_rank: tuple[float, ...]
    num_cases: int


def rankings(scores: ArrayLike) -> Rankings:
    """How the ranking of arms depends on the rule that makes it.

    Args:
        scores: [cases, arms], larger is better; a case with a NaN is left out.

    Raises:
        UserError: when no case has a score of every arm.
    """
    table = np.asarray(scores, dtype=np.float64)
    table = table[~np.isnan(table).any(axis=1)]
    if not len(table):
        raise UserError(
            "arms are ranked on cases that all of them have a score for, but there is no such "
            "case; leave out the arm that lacks them"
        )
    totals = (table.mean(axis=0), np.median(table, axis=0), -ranks_within(table).mean(axis=0))
    mean, median, mean_rank = (tuple(ranks_within(row[None])[0].tolist()) for row in totals)
    return Rankings(by_mean=mean, by_median=median, by_mean_rank=mean_rank, num_cases=len(table))
