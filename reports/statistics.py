"""What may be said of scores from cross-validation, and no more.

The scores of k folds share most of their training cases, so their naive standard error is too
small (by 1.5 for five folds). Nadeau and Bengio (Machine Learning 52, 2003) widen the variance by
n_test / n_train; several comparisons with one baseline are corrected after Holm (1979).
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


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given.

    NaN stands for a comparison that could not be tested: it stays NaN and is not counted.
    """
    adjusted = [math.nan] * len(p_values)
    order = sorted(
        (k for k, p in enumerate(p_values) if not math.isnan(p)), key=lambda k: p_values[k]
    )
    largest = 0.0
    for rank, k in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[k]))
        adjusted[k] = largest
    return adjusted
