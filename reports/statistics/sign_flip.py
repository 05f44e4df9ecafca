"""Are two networks told apart on new cases? A permutation test that flips whole groups.

If neither network is better, the sign of a group's difference is a coin toss; cases of one group
share that toss. The test needs no distribution and no equal group sizes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reports.statistics.cases import Groups, mean_sums

# Up to here all patterns of signs are counted: half a million sums, some milliseconds.
_EXACT_GROUPS = 20
# Tosses beyond that; with the data themselves they make 10,000 patterns.
_DRAWS = 9999
# Differences below this are rounding, and stand for none.
_SAME = 1e-12
# Bytes of eight signs held at once.
_BLOCK = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class SignFlip:
    """A sign-flip test of paired differences, clustered by group.

    Attributes:
        mean: over groups of the mean difference in each, so that groups count the same; NaN
            without any difference.
        p: two-sided; 1 where all differences are 0, NaN without any.
        floor: the smallest p that this number of groups (or of tosses) can give; print it, since a
            p that cannot fall below alpha says nothing.
        exact: whether all patterns of signs were counted.
        num_groups: with a difference, 0 included.
    """

    mean: float
    p: float
    floor: float
    exact: bool
    num_groups: int


def sign_flip(differences: ArrayLike, groups: Groups, *, seed: int) -> SignFlip:
    """Two-sided sign-flip test of the mean over groups of the mean difference in each.

    Args:
        differences: [cases] paired differences; NaN is left out.
        groups: [cases] what each case must not be divided from.
        seed: of the tosses where there are too many patterns to count; p is then
            (1 + patterns at least as extreme) / (1 + patterns).
    """
    sums = mean_sums(differences, groups)
    means = (sums.numerators / sums.denominators)[:, 0]
    if not len(means):
        return SignFlip(mean=math.nan, p=math.nan, floor=math.nan, exact=True, num_groups=0)
    # A group without a difference is the same after its toss: it makes no more patterns.
    tossed = np.abs(means[np.abs(means) > _SAME])
    extreme = abs(float(means[np.abs(means) > _SAME].sum())) - _SAME * float(tossed.sum())
    exact = len(tossed) <= _EXACT_GROUPS
    floor = min(1.0, 2.0 ** (1 - len(tossed)))
    if exact:
        p = float(np.mean(np.abs(_all_sums(tossed)) >= extreme))
    else:
        p = (1 + _num_extreme(tossed, extreme, seed)) / (1 + _DRAWS)
        floor = max(floor, 1 / (1 + _DRAWS))
    mean = float(means.mean())
    return SignFlip(mean=mean, p=p, floor=floor, exact=exact, num_groups=len(means))


def _all_sums(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums under all signs but that of the first, which only mirrors them."""
    sums = sizes[:1] if len(sizes) else np.zeros(1)
    for size in sizes[1:]:
        sums = np.concatenate([sums + size, sums - size])
    return sums


def _num_extreme(sizes: NDArray[np.float64], extreme: float, seed: int) -> int:
    """How many of `_DRAWS` patterns of signs give a sum of at least this size."""
    rng, found = np.random.default_rng(seed), 0
    num_bytes = -(-len(sizes) // 8)
    # Eight tosses are one byte: their sum is looked up, which is ten times faster than adding them.
    eights = np.zeros(8 * num_bytes)
    eights[: len(sizes)] = sizes
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float64)
    sums = ((2 * bits - 1) @ eights.reshape(num_bytes, 8).T).ravel()
    at = np.arange(num_bytes, dtype=np.intp)
    step = max(1, _BLOCK // num_bytes)
    for start in range(0, _DRAWS, step):
        rows = min(step, _DRAWS - start)
        tosses = rng.integers(0, 256, (rows, num_bytes), dtype=np.uint8)
        total = sums[tosses * np.intp(num_bytes) + at].sum(axis=1)
        found += int(np.sum(np.abs(total) >= extreme))
    return found
