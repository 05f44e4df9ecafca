"""Intervals of a mean and of a median, limits from bootstrap draws, and how many cases they need.

A standard deviation over folds is none of these: it is neither an interval nor a standard error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

# The interval leaves out zero whenever all groups differ to the same side; without any difference
# five groups do so by chance in 1 of 16 cases, six in 1 of 32: too often for 95 %, and not.
FEWEST_GROUPS = 6
# Values that differ by less than this share of their size differ by rounding alone.
_SAME = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A value with the limits between which it may well lie.

    Attributes:
        value: the estimate; NaN where there is nothing to estimate from.
        low, high: limits; NaN where they are not defined.
        n: number of independent units behind them: cases, or groups of cases.
    """

    value: float
    low: float
    high: float
    n: int


def t_interval(values: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Mean with Student's interval, for independent values; close to the bootstrap from n = 50.

    Args:
        values: [n]; NaN is left out.
        confidence: between 0 and 1.

    Returns:
        Limits are NaN with fewer than two values. They may lie beyond the range of the score.
    """
    kept = _kept(values, confidence)
    n = len(kept)
    mean = float(kept.mean()) if n else math.nan
    if n < 2:
        return Interval(value=mean, low=math.nan, high=math.nan, n=n)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * kept.std(ddof=1) / math.sqrt(n))
    return Interval(value=mean, low=mean - half, high=mean + half, n=n)


def median_interval(values: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Median with the interval between two order statistics, which needs no assumption but n.

    The limits are the k-th smallest and k-th largest value, k as large as the binomial
    distribution allows, so that they hold the median with at least `confidence`. A percentile
    bootstrap is no substitute: it fails badly for medians.

    Args:
        values: [n], independent; NaN is left out.
        confidence: between 0 and 1.

    Returns:
        Limits are NaN where even the extremes do not reach `confidence` (fewer than 6, for 95 %).
    """
    kept = np.sort(_kept(values, confidence))
    n = len(kept)
    value, low, high = float(np.median(kept)) if n else math.nan, math.nan, math.nan
    # Largest k with P(Binomial(n, 1/2) <= k - 1) <= (1 - confidence) / 2 on either side.
    tail = stats.binom.cdf(np.arange(n // 2), n, 0.5)
    k = int(np.searchsorted(tail, (1 - confidence) / 2, side="right"))
    if k:
        low, high = float(kept[k - 1]), float(kept[n - k])
    return Interval(value=value, low=low, high=high, n=n)


def percentile_limits(draws: NDArray[np.float64], *, confidence: float) -> tuple[float, float]:
    """Limits that leave out the same share of bootstrap draws on either side.

    Args:
        draws: [draws]; NaN, a draw without anything to estimate from, is left out.
        confidence: between 0 and 1.
    """
    kept = _kept(draws, confidence)
    if not len(kept):
        return math.nan, math.nan
    low, high = np.quantile(kept, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def bca_limits(
    value: float,
    draws: NDArray[np.float64],
    without: Sequence[NDArray[np.float64]],
    *,
    confidence: float,
) -> tuple[float, float]:
    """Bias-corrected and accelerated limits (Efron, JASA 82, 1987).

    Args:
        value: the estimate from all units.
        draws: [draws] estimates from resampled units; NaN is left out.
        without: as in `acceleration`.
        confidence: between 0 and 1.

    Returns:
        NaN where the data are degenerate: all units equal, or all draws on one side of `value`.
    """
    kept = _kept(draws, confidence)
    slope = acceleration(*without)
    if not len(kept) or math.isnan(value) or math.isnan(slope):
        return math.nan, math.nan
    # Half of the draws that equal the estimate count as below it, so that a few values in many
    # draws are no bias.
    near = _SAME * max(1.0, abs(value))
    below = float(np.mean(kept < value - near) + np.mean(kept <= value + near)) / 2
    if not 0 < below < 1:
        return math.nan, math.nan
    shift = stats.norm.ppf(below)
    at = shift + stats.norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    if np.any(slope * at >= 1):
        return math.nan, math.nan
    low, high = np.quantile(kept, stats.norm.cdf(shift + at / (1 - slope * at)))
    return float(low), float(high)


def acceleration(*without: NDArray[np.float64]) -> float:
    """How fast the spread of an estimate changes with its value, from leaving units out.

    Args:
        without: for every independent sample, [units] estimates with each of its units left out.

    Returns:
        NaN where leaving out changes nothing, or a sample has fewer than two units.
    """
    cubes = squares = size = 0.0
    for estimates in without:
        n = len(estimates)
        if n < 2:
            return math.nan
        pull = (estimates.mean() - estimates) * (n - 1) / n
        cubes += float((pull**3).sum())
        squares += float((pull**2).sum())
        size = max(size, float(np.abs(estimates).max()))
    if not squares > (_SAME * max(1.0, size)) ** 2:
        return math.nan
    return cubes / (6 * squares**1.5)


def trials_for_share(share: float, *, margin: float, confidence: float = 0.95) -> int:
    """How many independent trials fix a share to +- `margin`: ceil(z^2 p (1 - p) / m^2).

    For a latency percentile the share is that percentile: the 90th to half a per cent needs
    thousands of calls.

    Args:
        share: expected, between 0 and 1.
        margin: half-width of the interval, above 0.
        confidence: between 0 and 1.
    """
    assert 0 < share < 1
    assert margin > 0
    assert 0 < confidence < 1
    z = float(stats.norm.ppf((1 + confidence) / 2))
    return math.ceil(z**2 * share * (1 - share) / margin**2)


def cases_for_width(deviation: float, *, width: float, confidence: float = 0.95) -> int:
    """How many independent cases make the interval of a mean this narrow: ceil((2 z s / w)^2).

    Args:
        deviation: standard deviation over cases.
        width: from the lower to the upper limit, in units of the score, above 0.
        confidence: between 0 and 1.
    """
    assert deviation >= 0
    assert width > 0
    assert 0 < confidence < 1
    z = float(stats.norm.ppf((1 + confidence) / 2))
    return math.ceil((2 * z * deviation / width) ** 2)


def _kept(values: ArrayLike, confidence: float) -> NDArray[np.float64]:
    """Without NaN."""
    assert 0 < confidence < 1
    array = np.asarray(values, dtype=np.float64)
    assert array.ndim == 1
    return array[~np.isnan(array)]
