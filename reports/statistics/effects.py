"""How large a difference is, beside whether there is one. Print the raw difference first."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from reports.statistics.signed_rank import Zeros, signed_rank

# Limits of |delta| after Romano et al. (2006).
_MAGNITUDES = ((0.147, "negligible"), (0.33, "small"), (0.474, "medium"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedD:
    """Standardised mean differences of pairs; they differ in what they are standardised by.

    Attributes:
        d_z: by the standard deviation of the differences.
        d_av: by the mean variance of the two; comparable with a study of independent samples.
        d_rm: d_z sqrt(2 (1 - r)), r the correlation; some programs print this as paired d.
            Each is NaN where its standard deviation is 0, or with fewer than two pairs.
    """

    d_z: float
    d_av: float
    d_rm: float


def paired_d(first: ArrayLike, second: ArrayLike) -> PairedD:
    """Cohen's d of `first` - `second` for pairs, in its three forms.

    Args:
        first: [pairs] scores of the one; a pair with a NaN is left out.
        second: [pairs] scores of the other.
    """
    one, other = _complete(first, second)
    if len(one) < 2:
        return PairedD(d_z=math.nan, d_av=math.nan, d_rm=math.nan)
    gap = one - other
    mean, spread = float(gap.mean()), _deviation(gap)
    both = math.sqrt((_deviation(one) ** 2 + _deviation(other) ** 2) / 2)
    d_z = mean / spread if spread else math.nan
    d_rm = math.nan
    if _deviation(one) and _deviation(other):
        correlation = float(np.corrcoef(one, other)[0, 1])
        d_rm = d_z * math.sqrt(2 * max(0.0, 1 - correlation))
    return PairedD(d_z=d_z, d_av=mean / both if both else math.nan, d_rm=d_rm)


@dataclass(frozen=True, slots=True, kw_only=True)
class CliffsDelta:
    """How often a value of one sample is above one of the other, less how often it is below.

    Attributes:
        delta: -1 to 1; NaN where a sample is empty.
        low, high: limits of its interval; NaN with fewer than two values in a sample, and where
            the samples do not overlap at all.
        a12: (delta + 1) / 2, the probability that the first is above, ties counted half.
        magnitude: "negligible", "small", "medium" or "large"; "" where delta is NaN.
    """

    delta: float
    low: float
    high: float
    a12: float
    magnitude: str


def cliffs_delta(first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95) -> CliffsDelta:
    """Cliff's delta over all cross pairs; it takes no notice of pairing, see `rank_biserial`.

    The interval is the asymmetric one of Feng and Cliff (2004) with the unbiased estimate of the
    variance and Student's t of n + m - 2 degrees of freedom, for independent values.

    Args:
        first: [values]; NaN is left out.
        second: [values], of any length.
        confidence: between 0 and 1.
    """
    assert 0 < confidence < 1
    one, other = _sorted(first), _sorted(second)
    if not len(one) or not len(other):
        return CliffsDelta(delta=math.nan, low=math.nan, high=math.nan, a12=math.nan, magnitude="")
    rows, columns = _wins(one, other), -_wins(other, one)
    delta = float(rows.mean())
    low = high = math.nan
    if min(len(one), len(other)) > 1 and abs(delta) < 1:
        quantile = float(stats.t.ppf((1 + confidence) / 2, len(one) + len(other) - 2))
        reach = quantile * _delta_error(one, other, rows, columns)
        half = reach * math.sqrt((1 - delta**2) ** 2 + reach**2)
        below = 1 - delta**2 + reach**2
        low, high = (delta - delta**3 - half) / below, (delta - delta**3 + half) / below
    words = [word for limit, word in _MAGNITUDES if abs(delta) < limit]
    return CliffsDelta(
        delta=delta, low=low, high=high, a12=(delta + 1) / 2, magnitude=[*words, "large"][0]
    )


def _wins(values: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """[values] share of `others` (sorted) below each value, less the share above it."""
    below = np.searchsorted(others, values, side="left")
    above = len(others) - np.searchsorted(others, values, side="right")
    return (below - above) / len(others)


def _delta_error(
    one: NDArray[np.float64],
    other: NDArray[np.float64],
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
) -> float:
    """Unbiased standard error of delta from the spread of its rows, columns and single cells."""
    n, m, delta = len(one), len(other), float(rows.mean())
    # Every cell is -1, 0 or 1: the sum of their squares is the number of pairs that differ.
    ends = [np.searchsorted(other, one, side=side) for side in ("left", "right")]
    differing = n * m - int((ends[1] - ends[0]).sum())
    cells = differing - n * m * delta**2
    spread = m**2 * ((rows - delta) ** 2).sum() + n**2 * ((columns - delta) ** 2).sum() - cells
    variance = float(spread) / (n * m * (n - 1) * (m - 1))
    # Being unbiased it may come out below what is possible (Cliff, 1993).
    return math.sqrt(max(variance, (1 - delta**2) / (n * m - 1)))


def rank_biserial(differences: ArrayLike, *, zeros: Zeros = "wilcox") -> float:
    """Matched-pairs rank-biserial correlation (R+ - R-) / (R+ + R-), -1 to 1.

    The effect that belongs beside a signed-rank test; NaN where no pair differs,
    or 0 under "zsplit".

    Args:
        differences: [pairs]; NaN is left out.
        zeros: as in `signed_rank`.
    """
    result = signed_rank(differences, zeros=zeros)
    total = result.positive + result.negative
    return (result.positive - result.negative) / total if total else math.nan


def _deviation(values: NDArray[np.float64]) -> float:
    """Standard deviation; 0 where the values differ by rounding alone."""
    spread = float(np.ptp(values))
    return float(values.std(ddof=1)) if spread > 1e-12 * max(1.0, abs(values).max()) else 0.0


def _complete(
    first: ArrayLike, second: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    assert one.shape == other.shape
    assert one.ndim == 1
    kept = ~np.isnan(one + other)
    return one[kept], other[kept]


def _sorted(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    assert array.ndim == 1
    return np.sort(array[~np.isnan(array)])
