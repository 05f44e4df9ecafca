"""Wilcoxon's signed-rank test, when it can say anything at all, and its form for groups of cases.

The pairs must be independent: one a group of cases, or one a data set. Five folds cannot reach 5 %,
whatever they show, and folds of one data set are not independent; see `refusal`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from reports.statistics.cases import Groups
from unetpp.errors import UserError

# What becomes of pairs without a difference: "wilcox" drops them, "pratt" ranks them and drops
# their ranks, "zsplit" gives half of their ranks to either side (Demsar, JMLR 7, 2006).
Zeros = Literal["wilcox", "pratt", "zsplit"]
# Digits kept of a difference: rounding errors must neither break ties nor hide zeros.
_DIGITS = 12
# Up to here the distribution is counted out.
_EXACT_PAIRS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRank:
    """a signed-rank test of paired differences.

    Attributes:
        positive, negative: rank sums R+ and R-.
        statistic: T, the smaller of the two.
        z: of T, without correction for ties, as in Demsar (2006); NaN without any pair.
        p: two-sided. Exact, given the ties and zeros there are, up to 50 pairs that differ;
            else `p_normal`. 1 where no pair differs.
        p_normal: two-sided, of the normal approximation corrected for ties.
        exact: whether `p` was counted out.
        num_pairs: ranked; without the zeros under "wilcox".
        num_zeros: pairs without a difference.
    """

    positive: float
    negative: float
    statistic: float
    z: float
    p: float
    p_normal: float
    exact: bool
    num_pairs: int
    num_zeros: int


def signed_rank(
    differences: ArrayLike, *, zeros: Zeros = "wilcox", continuity: bool = False
) -> SignedRank:
    """Two-sided signed-rank test of whether differences are symmetric about 0.

    Args:
        differences: [pairs], rounded to 12 decimals; NaN is left out.
        zeros: what becomes of pairs without a difference.
        continuity: whether `p_normal` moves T half a rank towards its mean.
    """
    values = _rounded(differences)
    equal = values == 0
    if zeros == "wilcox":
        values = values[~equal]
    ranks = stats.rankdata(np.abs(values))
    halves = float(ranks[values == 0].sum()) / 2 if zeros == "zsplit" else 0.0
    positive = float(ranks[values > 0].sum()) + halves
    negative = float(ranks[values < 0].sum()) + halves
    moving, n = ranks[values != 0], len(values)
    mean = (positive + negative) / 2
    away = mean - min(positive, negative)
    ties = ranks if zeros == "zsplit" else moving
    plain, tied = _deviations(n, int(equal.sum()) if zeros == "pratt" else 0, ties)
    shift = min(0.5, away) if continuity else 0.0
    p_normal = 2 * float(stats.norm.sf((away - shift) / tied)) if tied else 1.0
    exact = len(moving) <= _EXACT_PAIRS
    return SignedRank(
        positive=positive,
        negative=negative,
        statistic=min(positive, negative),
        z=-away / plain if plain else math.nan,
        p=_counted_p(moving, away) if exact else p_normal,
        p_normal=p_normal,
        exact=exact,
        num_pairs=n,
        num_zeros=int(equal.sum()),
    )


def _deviations(n: int, num_dropped: int, ranks: NDArray[np.float64]) -> tuple[float, float]:
    """Standard deviation of T without and with correction for ties, after Cureton (1967)."""
    squares = sum(sign * m * (m + 1) * (2 * m + 1) for sign, m in ((1, n), (-1, num_dropped)))
    sizes = np.unique(ranks, return_counts=True)[1].astype(np.float64)
    ties = float((sizes**3 - sizes).sum())
    return math.sqrt(squares / 24), math.sqrt(max(0.0, squares - ties / 2) / 24)


def _counted_p(ranks: NDArray[np.float64], away: float) -> float:
    """Share of all signs under which the sum of positive ranks is as far from its mean."""
    # Ranks are whole or half numbers: twice their sums are places in an array.
    doubled = np.rint(2 * ranks).astype(np.intp)
    ways = np.ones(1)
    for rank in doubled:
        more = np.zeros(len(ways) + rank)
        more[: len(ways)] += ways
        more[rank:] += ways
        ways = more
    distance = np.abs(np.arange(len(ways)) - doubled.sum() / 2)
    return float(ways[distance >= 2 * away - 0.25].sum() / ways.sum())


def smallest_p(num_pairs: int) -> float:
    """The smallest two-sided p of an exact signed-rank (or sign-flip) test of so many pairs."""
    return min(1.0, 2.0 ** (1 - num_pairs))


def refusal(num_pairs: int, *, alpha: float = 0.05, pairs: str = "folds") -> str | None:
    """Why no stars may stand on so few pairs; None where the test can reach `alpha`.

    Args:
        num_pairs: that differ.
        alpha: between 0 and 1.
        pairs: what they are called, in the plural.
    """
    assert 0 < alpha < 1
    least = smallest_p(num_pairs)
    if least < alpha:
        return None
    return (
        f"A Wilcoxon test on {num_pairs} {pairs} cannot reach p < {alpha:g}: "
        f"its smallest two-sided p is {least:g}."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedSignedRank:
    """a signed-rank test of cases that lie in groups of one size.

    Attributes:
        total: sum of the signed ranks of all cases.
        z: total over its standard deviation between groups; NaN where no case differs.
        p: two-sided, of the normal approximation; 1 where no case differs.
        num_groups: of cases.
    """

    total: float
    z: float
    p: float
    num_groups: int


def grouped_signed_rank(differences: ArrayLike, groups: Groups) -> GroupedSignedRank:
    """Signed-rank test for clustered pairs (Rosner, Glynn and Lee, Biometrics 62, 2006).

    Signed ranks over all cases are summed within each group; Z = sum S_g / sqrt(sum S_g^2). Zeros
    are dropped. It wants some ten groups; with fewer, `sign_flip` is exact.

    Args:
        differences: [cases] paired differences, without NaN.
        groups: [cases], every group with the same number of cases.

    Raises:
        UserError: when groups differ in size, which would need weights.
    """
    values = np.asarray(differences, dtype=np.float64).round(_DIGITS)
    assert not np.isnan(values).any()
    names, places, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    if len(set(sizes.tolist())) > 1:
        raise UserError(
            "a signed-rank test of grouped cases needs equally many cases in every group, but they "
            f"have {sizes.min()} to {sizes.max()}; use the sign-flip test over groups"
        )
    moved = values != 0
    signed = np.sign(values[moved]) * stats.rankdata(np.abs(values[moved]))
    sums = np.bincount(places[moved], signed, minlength=len(names))
    total, variance = float(sums.sum()), float((sums**2).sum())
    z = total / math.sqrt(variance) if variance else math.nan
    p = 2 * float(stats.norm.sf(abs(z))) if variance else 1.0
    return GroupedSignedRank(total=total, z=z, p=p, num_groups=len(names))


def _rounded(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    assert array.ndim == 1
    return array[~np.isnan(array)].round(_DIGITS)
