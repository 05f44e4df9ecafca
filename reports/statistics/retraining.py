"""Would this architecture win again if it were trained again? Scores of folds (and seeds) decide.

The scores of k folds share most of their training cases, so their naive standard error is too
small (by 1.5 for five folds). Nadeau and Bengio (Machine Learning 52, 2003) widen the variance by
n_test / n_train; Corani and Benavoli (Machine Learning 100, 2015) give the same spread to the
posterior of the mean difference. Several seeds of k folds are J = k x seeds values, and the ratio
stays that of the k folds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

# Two equal differences of fold means may differ by rounding; below this they count as equal.
_SAME = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class ResampledT:
    """A mean over folds with its corrected interval and two-sided p value against zero.

    Attributes:
        mean: of the values.
        low, high: limits of the interval; NaN where it is not defined.
        t: the corrected statistic; NaN where it is not defined.
        df: number of values - 1.
        p: two-sided; NaN where it is not defined.
    """

    mean: float
    low: float
    high: float
    t: float
    df: int
    p: float


def corrected_resampled_t(
    differences: Sequence[float], *, test_train_ratio: float, confidence: float = 0.95
) -> ResampledT | None:
    """Nadeau-Bengio corrected resampled t: t = m / sqrt(s2 (1/J + n_test/n_train)), df = J - 1.

    Args:
        differences: J paired differences, one a fold (or scores of one arm, for their interval).
        test_train_ratio: n_test / n_train, above 0; 1/(k-1) for k equal folds.
        confidence: of the interval, between 0 and 1.

    Returns:
        None with fewer than two values. Where all values are equal the variance says nothing:
        p = 1 when they are 0, else t, p and interval are NaN.
    """
    assert test_train_ratio > 0
    assert 0 < confidence < 1
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        return None
    mean, df = float(values.mean()), len(values) - 1
    if np.ptp(values) <= _SAME:
        if abs(mean) <= _SAME:
            return ResampledT(mean=mean, low=mean, high=mean, t=0.0, df=df, p=1.0)
        return ResampledT(mean=mean, low=math.nan, high=math.nan, t=math.nan, df=df, p=math.nan)
    error = math.sqrt(float(values.var(ddof=1)) * (1 / len(values) + test_train_ratio))
    half = float(stats.t.ppf((1 + confidence) / 2, df)) * error
    t = mean / error
    p = 2 * float(stats.t.sf(abs(t), df))
    return ResampledT(mean=mean, low=mean - half, high=mean + half, t=t, df=df, p=p)


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrelatedT:
    """Posterior of a mean difference between an arm and its baseline.

    Attributes:
        mean: of the differences, where the posterior is centred.
        variance: square of its scale; 0 where all differences are equal.
        df: number of values - 1.
        left: probability that the arm is worse by more than the region of practical equivalence.
        rope: probability that the two are practically equivalent.
        right: probability that the arm is better by more than that.
            All three are NaN where all differences are equal: no spread is not certainty.
    """

    mean: float
    variance: float
    df: int
    left: float
    rope: float
    right: float


def correlated_t(differences: Sequence[float], *, rho: float, rope: float) -> CorrelatedT | None:
    """Bayesian correlated t: Student's t at the mean, scale^2 = s2 (1/J + rho / (1 - rho)).

    With `rope` 0, `right` is 1 - the one-sided p value of `corrected_resampled_t` whose ratio is
    rho / (1 - rho). Source: Corani and Benavoli (2015); Benavoli et al. (JMLR 18, 2017).

    Args:
        differences: J paired differences, arm - baseline, one a fold and seed.
        rho: correlation of two of them, n_test / (n_train + n_test): 1/k for k folds.
        rope: half-width of the region of practical equivalence, in units of the score; 0 for none.

    Returns:
        None with fewer than two values.
    """
    assert 0 <= rho < 1
    assert rope >= 0
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        return None
    mean, df = float(values.mean()), len(values) - 1
    variance = float(values.var(ddof=1)) * (1 / len(values) + rho / (1 - rho))
    left = inside = right = math.nan
    if np.ptp(values) > _SAME:
        posterior = stats.t(df, loc=mean, scale=math.sqrt(variance))
        left, right = float(posterior.cdf(-rope)), float(posterior.sf(rope))
        inside = max(0.0, 1 - left - right)
    return CorrelatedT(mean=mean, variance=variance, df=df, left=left, rope=inside, right=right)
