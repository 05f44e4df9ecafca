"""How would these trained networks do on new cases? A bootstrap over groups of cases answers.

Cases of one patient or video resemble each other, so whole groups are drawn, each with all of its
cases. Everything here is a ratio of two sums over cases: the mean of per-case scores is sum / count,
and pooled Dice is 2 TP / (2 TP + FP + FN). The sums of every group are taken once; a draw only
weighs them, so that a million cases cost little more than their groups.

What is said here is of networks as they are: nothing about training them again, see `retraining`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reports.statistics.intervals import (
    FEWEST_GROUPS,
    Interval,
    bca_limits,
    percentile_limits,
)

# The limits of a 95 % interval then move by a few per cent of its width.
DRAWS = 2000
# Numbers in one block of weights: 8 MB, about what a processor keeps near.
_BLOCK = 2**20

# One label a case: what the case must not be divided from.
Groups = Sequence[str] | Sequence[int] | NDArray[np.generic]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupSums:
    """One ratio of sums a column (an arm, a metric), taken apart into groups of cases.

    Attributes:
        numerators: [groups, columns], groups in sorted order.
        denominators: [groups, columns]; 0 where a group says nothing about a column. Groups that
            say nothing about any column are left out.
    """

    numerators: NDArray[np.float64]
    denominators: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resampled:
    """Estimates, and the same estimates from other draws of groups; one draw for all columns.

    Attributes:
        values: [columns]; NaN where no case counts.
        draws: [draws, columns]; NaN where no drawn case counts.
        without: [groups, columns] with one group left out, for `bca`; NaN as above.
        num_groups: [columns] that say something about the column.
    """

    values: NDArray[np.float64]
    draws: NDArray[np.float64]
    without: NDArray[np.float64]
    num_groups: NDArray[np.intp]


def mean_sums(values: ArrayLike, groups: Groups) -> GroupSums:
    """For the mean over cases of per-case scores.

    Args:
        values: [cases] or [cases, columns] scores, or paired differences of scores. NaN is left
            out of its column, so differences of two arms are best taken case by case: a case that
            lacks either score then lacks the difference.
        groups: [cases] what each case must not be divided from.
    """
    array = _columns(values)
    scored = ~np.isnan(array)
    return _summed(np.where(scored, array, 0.0), scored.astype(np.float64), groups)


def pooled_sums(numerators: ArrayLike, denominators: ArrayLike, groups: Groups) -> GroupSums:
    """For a ratio of sums over all cases, such as pooled (global) Dice or IoU.

    Args:
        numerators: [cases] or [cases, columns], such as 2 TP.
        denominators: same shape, 0 or more, such as 2 TP + FP + FN.
        groups: [cases] what each case must not be divided from.
    """
    below = _columns(denominators)
    assert (below >= 0).all()
    return _summed(_columns(numerators), below, groups)


def resample(sums: GroupSums, *, seed: int, draws: int = DRAWS) -> Resampled:
    """Draw as many groups as there are, with replacement, again and again.

    The same groups are drawn for all columns, so that columns may be compared, see `gaps`.

    Args:
        sums: of at least one group.
        seed: of the draws; they depend on it and on the number of groups alone.
        draws: how many.
    """
    above, below = sums.numerators, sums.denominators
    num_groups, columns = above.shape
    both = np.hstack([above, below])
    weighed = np.empty((draws, 2 * columns))
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // max(1, num_groups))
    for start in range(0, draws, step):
        block = weighed[start : start + step]
        times = np.empty((len(block), num_groups))
        for row in times:
            drawn = rng.integers(0, num_groups, num_groups, dtype=np.uint32)
            row[:] = np.bincount(drawn, minlength=num_groups)
        block[:] = times @ both
    all_above, all_below = above.sum(axis=0), below.sum(axis=0)
    return Resampled(
        values=_ratio(all_above, all_below),
        draws=_ratio(weighed[:, :columns], weighed[:, columns:]),
        without=_ratio(all_above - above, all_below - below),
        num_groups=(below > 0).sum(axis=0),
    )


def gaps(resampled: Resampled, against: int) -> Resampled:
    """Every column less one of them, draw by draw.

    Args:
        resampled: of scores of the same cases in every column.
        against: the column of the baseline; its own gap is 0.
    """
    one = slice(against, against + 1)
    return Resampled(
        values=resampled.values - resampled.values[one],
        draws=resampled.draws - resampled.draws[:, one],
        without=resampled.without - resampled.without[:, one],
        num_groups=np.minimum(resampled.num_groups, resampled.num_groups[one]),
    )


def percentile(resampled: Resampled, *, confidence: float = 0.95) -> tuple[Interval, ...]:
    """Percentile interval of every column; limits are NaN with fewer than `FEWEST_GROUPS` groups."""
    return tuple(
        _interval(resampled, k, percentile_limits(resampled.draws[:, k], confidence=confidence))
        for k in range(len(resampled.values))
    )


def bca(resampled: Resampled, *, confidence: float = 0.95) -> tuple[Interval, ...]:
    """Bias-corrected and accelerated interval of every column, by leaving out groups.

    Limits are NaN with fewer than `FEWEST_GROUPS` groups, and where the groups are all equal.
    """
    return tuple(
        _interval(
            resampled,
            k,
            bca_limits(
                float(resampled.values[k]),
                resampled.draws[:, k],
                [resampled.without[:, k]],
                confidence=confidence,
            ),
        )
        for k in range(len(resampled.values))
    )


def _interval(resampled: Resampled, column: int, limits: tuple[float, float]) -> Interval:
    n = int(resampled.num_groups[column])
    low, high = limits if n >= FEWEST_GROUPS else (math.nan, math.nan)
    return Interval(value=float(resampled.values[column]), low=low, high=high, n=n)


def _columns(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    assert array.ndim in (1, 2)
    return array[:, None] if array.ndim == 1 else array


def _summed(above: NDArray[np.float64], below: NDArray[np.float64], groups: Groups) -> GroupSums:
    """Sums over the cases of each group that says something."""
    labels: list[Any] = groups.tolist() if isinstance(groups, np.ndarray) else list(groups)
    assert len(labels) == len(above) == len(below)
    assert above.shape == below.shape
    # Sorted, so that the order of the cases changes nothing.
    order = {label: place for place, label in enumerate(sorted(set(labels)))}
    places = np.fromiter(map(order.__getitem__, labels), np.intp, len(labels))
    numerators, denominators = (
        np.stack(
            [np.bincount(places, column, len(order)).astype(np.float64) for column in array.T],
            axis=1,
        )
        for array in (above, below)
    )
    spoken = (denominators > 0).any(axis=1)
    return GroupSums(numerators=numerators[spoken], denominators=denominators[spoken])


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.full_like(above, math.nan), where=below > 0)
