"""Several arms on several data sets: do they differ, and which are not told apart?

After Demsar (JMLR 7, 2006). The rows must be independent data sets. Folds of one data set share
their training cases, and a table of folds would make these tests see differences that are not there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from unetpp.errors import UserError

# Digits kept of a score before ranking: equal scores may differ by rounding. Never rank the digits
# that a table prints: they make ties that are none.
_DIGITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Friedman:
    """Whether any of several arms differ in rank.

    Attributes:
        mean_ranks: [arms] over the data sets; 1 is best, ties share their mean.
        chi2, p_chi2: Friedman's statistic as Demsar writes it, without correction for ties.
        f, p_f: the less conservative form of Iman and Davenport; infinite, with p 0, where all
            data sets agree on the ranks.
        chi2_ties, p_ties: Friedman's statistic corrected for ties, as scipy has it; NaN where all
            arms tie on every data set.
        num_sets: data sets.
    """

    mean_ranks: tuple[float, ...]
    chi2: float
    p_chi2: float
    f: float
    p_f: float
    chi2_ties: float
    p_ties: float
    num_sets: int


def friedman(scores: ArrayLike) -> Friedman:
    """Friedman's test of arms over independent data sets.

    Args:
        scores: [data sets, arms], unrounded, larger is better, without NaN.

    Raises:
        UserError: with fewer than three arms or two data sets, or with a missing score.
    """
    ranks = ranks_within(scores)
    num_sets, num_arms = ranks.shape
    _check(num_sets, num_arms)
    mean_ranks = ranks.mean(axis=0)
    chi2, f = friedman_statistics(mean_ranks.tolist(), num_sets)
    sizes = [np.unique(row, return_counts=True)[1].astype(np.float64) for row in ranks]
    ties = sum(float((size**3 - size).sum()) for size in sizes)
    share = 1 - ties / (num_sets * num_arms * (num_arms**2 - 1))
    corrected = chi2 / share if share > 0 else math.nan
    df = num_arms - 1
    return Friedman(
        mean_ranks=tuple(mean_ranks.tolist()),
        chi2=chi2,
        p_chi2=float(stats.chi2.sf(chi2, df)),
        f=f,
        p_f=float(stats.f.sf(f, df, df * (num_sets - 1))),
        chi2_ties=corrected,
        p_ties=float(stats.chi2.sf(corrected, df)),
        num_sets=num_sets,
    )


def ranks_within(scores: ArrayLike) -> NDArray[np.float64]:
    """[rows, arms] ranks within each row: 1 is best (largest), ties share their mean.

    Raises:
        UserError: when a score is missing: a rank among those left would be of another contest.
    """
    table = np.asarray(scores, dtype=np.float64)
    assert table.ndim == 2
    if np.isnan(table).any():
        raise UserError(
            f"ranks need a score of every arm in every row, but {int(np.isnan(table).sum())} of "
            f"{table.size} are missing; leave those rows or arms out"
        )
    return stats.rankdata(-table.round(_DIGITS), axis=1)


def friedman_statistics(mean_ranks: Sequence[float], num_sets: int) -> tuple[float, float]:
    """Friedman's chi2 and Iman and Davenport's F from mean ranks, without correction for ties."""
    k, n = len(mean_ranks), num_sets
    _check(n, k)
    chi2 = 12 * n / (k * (k + 1)) * (math.fsum(r * r for r in mean_ranks) - k * (k + 1) ** 2 / 4)
    chi2 = max(0.0, chi2)
    left = n * (k - 1) - chi2
    return chi2, (n - 1) * chi2 / left if left > 1e-9 * n * k else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Nemenyi:
    """All pairs of arms compared after Friedman's test.

    Attributes:
        critical_difference: two mean ranks further apart than this differ at `alpha`.
        p: [arms, arms] corrected for all pairs; 1 on the diagonal.
        cliques: see `cliques`; the bars of a critical-difference diagram.
    """

    critical_difference: float
    p: tuple[tuple[float, ...], ...]
    cliques: tuple[tuple[int, ...], ...]


def nemenyi(mean_ranks: Sequence[float], num_sets: int, *, alpha: float = 0.05) -> Nemenyi:
    """Nemenyi's test: q_alpha sqrt(k (k + 1) / (6 N)), q the studentised range over sqrt 2.

    Args:
        mean_ranks: [arms] over the data sets, as `Friedman` holds them.
        num_sets: independent data sets.
        alpha: between 0 and 1.

    Raises:
        UserError: with fewer than three arms or two data sets.
    """
    assert 0 < alpha < 1
    k = len(mean_ranks)
    _check(num_sets, k)
    error = _rank_error(k, num_sets)
    ranks = np.asarray(mean_ranks, dtype=np.float64)
    gap = np.abs(ranks[:, None] - ranks)
    p = stats.studentized_range.sf(gap / error * math.sqrt(2), k, np.inf)
    quantile = float(stats.studentized_range.ppf(1 - alpha, k, np.inf)) / math.sqrt(2)
    reach = quantile * error
    return Nemenyi(
        critical_difference=reach,
        p=tuple(tuple(float(value) for value in row) for row in p),
        cliques=cliques(gap > reach, mean_ranks),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AgainstControl:
    """One arm's mean rank against that of the control.

    Attributes:
        z: rank gap over its standard error; positive where the arm ranks better.
        p: two-sided, not corrected for the number of arms: use `holm`.
    """

    z: float
    p: float


def against_control(
    mean_ranks: Sequence[float], num_sets: int, *, control: int
) -> tuple[AgainstControl, ...]:
    """Every arm against one control, by its mean rank; the control against itself has z 0, p 1.

    Args:
        mean_ranks: [arms] over the data sets.
        num_sets: independent data sets.
        control: index of the control.

    Raises:
        UserError: with fewer than three arms or two data sets.
    """
    _check(num_sets, len(mean_ranks))
    error = _rank_error(len(mean_ranks), num_sets)
    gaps = [(mean_ranks[control] - rank) / error for rank in mean_ranks]
    return tuple(AgainstControl(z=z, p=2 * float(stats.norm.sf(abs(z)))) for z in gaps)


def cliques(told_apart: ArrayLike, mean_ranks: Sequence[float]) -> tuple[tuple[int, ...], ...]:
    """Largest sets of two and more arms of which no two are told apart, best first.

    Any test may decide. Only after Nemenyi's do they always cover a stretch of ranks; after
    pairwise tests a set may skip an arm, so draw its members and not an interval.

    Args:
        told_apart: [arms, arms] symmetric truth values.
        mean_ranks: [arms], which order the members and the sets.
    """
    apart = np.asarray(told_apart, dtype=bool)
    near = [{b for b in range(len(apart)) if b != a and not apart[a, b]} for a in range(len(apart))]
    found: list[tuple[int, ...]] = []

    def grow(members: set[int], fit: set[int], seen: set[int]) -> None:
        if not fit and not seen and len(members) > 1:
            found.append(tuple(sorted(members, key=lambda arm: (mean_ranks[arm], arm))))
        for arm in sorted(fit):
            grow(members | {arm}, fit & near[arm], seen & near[arm])
            fit, seen = fit - {arm}, seen | {arm}

    grow(set(), set(range(len(apart))), set())
    return tuple(sorted(found, key=lambda members: [(mean_ranks[arm], arm) for arm in members]))


def _rank_error(num_arms: int, num_sets: int) -> float:
    return math.sqrt(num_arms * (num_arms + 1) / (6 * num_sets))


def _check(num_sets: int, num_arms: int) -> None:
    if num_arms < 3:
        raise UserError(
            f"ranks of arms are tested with three arms or more, but there are {num_arms}; "
            "compare two arms by their paired differences"
        )
    if num_sets < 2:
        raise UserError(
            f"ranks of arms are tested over two independent data sets or more, but there is "
            f"{num_sets}; folds of one data set do not count, so add data sets or leave this out"
        )
