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


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseScores:
    """Scores of one network, case by case.

    Attributes:
        values: NaN for a case that has none.
        groups: what each case must not be divided from.
        folds: the fold in which each case was held out.
    """

    values: tuple[float, ...]
    groups: tuple[str, ...]
    folds: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrapped:
    """A mean with the percentile interval of its bootstrap over groups.

    Attributes:
        mean: of the cases as they are.
        low, high: limits of the interval; NaN with fewer than `FEWEST_GROUPS` groups.
        num_groups: that were drawn from; the smaller number, of two sets of cases.
    """

    mean: float
    low: float
    high: float
    num_groups: int


# Draws of a bootstrap: the limits of its interval then move by a few per cent of its width.
_DRAWS = 2000
# The interval leaves out zero whenever all groups differ to the same side; without any difference
# five groups do so by chance in 1 of 16 cases, six in 1 of 32: too often for 95 %, and not.
FEWEST_GROUPS = 6


def bootstrap_mean(
    cases: CaseScores, *, seed: int, confidence: float = 0.95
) -> Bootstrapped | None:
    """Mean over folds of the mean over cases, with its interval over other groups of cases.

    Groups are drawn with replacement, each with all of its cases; a fold of which a draw has no
    case is left out of that draw.

    Args:
        cases: scores, or paired differences of scores.
        seed: of the draws.
        confidence: of the interval, between 0 and 1.

    Returns:
        None where no case has a score.
    """
    return _bootstrapped(_kept(cases), None, seed, confidence)


def bootstrap_gap(
    chosen: CaseScores, unbiased: CaseScores, *, seed: int, confidence: float = 0.95
) -> Bootstrapped | None:
    """How much higher the mean is that chose a network than its mean on cases that did not.

    The two sets of cases are drawn independently of each other, as in `bootstrap_mean`.

    Returns:
        None where no case of either set has a score.
    """
    return _bootstrapped(_kept(chosen), _kept(unbiased), seed, confidence)


def _bootstrapped(
    first: CaseScores, second: CaseScores | None, seed: int, confidence: float
) -> Bootstrapped | None:
    assert 0 < confidence < 1
    sets = [first] if second is None else [first, second]
    sizes = [len(set(cases.groups)) for cases in sets]
    if min(sizes) == 0:
        return None
    rng = np.random.default_rng(seed)
    mean, draws = 0.0, np.zeros(_DRAWS)
    for sign, cases, size in zip((1, -1), sets, sizes, strict=False):
        mean += sign * float(_means(cases, np.ones((1, size)))[0])
        draws += sign * _means(cases, rng.multinomial(size, [1 / size] * size, size=_DRAWS))
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    if min(sizes) < FEWEST_GROUPS:
        low = high = math.nan
    return Bootstrapped(mean=mean, low=float(low), high=float(high), num_groups=min(sizes))


def _kept(cases: CaseScores) -> CaseScores:
    """Without the cases that have no score."""
    rows = [
        row
        for row in zip(cases.values, cases.groups, cases.folds, strict=True)
        if not math.isnan(row[0])
    ]
    values, groups, folds = zip(*rows, strict=True) if rows else ((), (), ())
    return CaseScores(values=values, groups=groups, folds=folds)


def _means(cases: CaseScores, times: np.ndarray) -> np.ndarray:
    """Mean over folds of the mean over cases, one a draw.

    Args:
        cases: without NaN.
        times: [draws, groups] how often each group was drawn, groups in sorted order.
    """
    values = np.asarray(cases.values)
    place = np.unique(cases.groups, return_inverse=True)[1]
    folds = np.asarray(cases.folds)
    total, present = np.zeros(len(times)), np.zeros(len(times))
    for fold in np.unique(folds):
        inside = folds == fold
        weights = times[:, place[inside]].astype(np.float64)
        size = weights.sum(axis=1)
        total += np.divide(weights @ values[inside], size, out=np.zeros_like(size), where=size > 0)
        present += size > 0
    return total / present
