"""The mean over folds of the mean over cases, with its spread over other groups of cases."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from reports.statistics.intervals import FEWEST_GROUPS


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
