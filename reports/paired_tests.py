"""One comparison with its interval and its test, in either of the two units.

`over_runs` asks whether a difference would come out again if the networks were trained again;
`over_groups` whether these trained networks differ on new cases. No caller mixes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from reports.case_table import CasePlaces
from reports.comparison import ALPHA
from reports.statistics import FEWEST_GROUPS, corrected_resampled_t
from reports.statistics.cases import Groups, bca, mean_sums, resample
from reports.statistics.sign_flip import sign_flip

# Of bootstraps and tosses: the same records give the same digits.
SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A mean difference and what may be said of it.

    Attributes:
        mean: NaN where there is no pair.
        low, high: 95 % interval; NaN where there are too few units.
        p: two-sided; NaN where there is no test, or one that cannot reach 0.05.
        num: units: runs, or groups of cases.
    """

    mean: float
    low: float
    high: float
    p: float
    num: int

    @property
    def row(self) -> dict[str, float]:
        """As columns: difference, low, high, p, num."""
        return {
            "difference": self.mean,
            "low": self.low,
            "high": self.high,
            "p": self.p,
            "num": self.num,
        }


_NOTHING = Comparison(mean=math.nan, low=math.nan, high=math.nan, p=math.nan, num=0)


def over_runs(differences: ArrayLike, *, test_train_ratio: float) -> Comparison:
    """Over folds (and seeds) that both have: corrected resampled t (Nadeau and Bengio 2003).

    Args:
        differences: [runs]; NaN is left out.
        test_train_ratio: held-out cases over training cases.
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[~np.isnan(values)]
    result = corrected_resampled_t(values.tolist(), test_train_ratio=test_train_ratio)
    if result is None:
        mean = float(values.mean()) if len(values) else math.nan
        return Comparison(mean=mean, low=math.nan, high=math.nan, p=math.nan, num=len(values))
    return Comparison(
        mean=result.mean, low=result.low, high=result.high, p=result.p, num=len(values)
    )


def over_groups(differences: ArrayLike, groups: Groups) -> Comparison:
    """Over groups of cases: mean over cases with its BCa bootstrap interval, and a sign-flip test.

    The test is of the mean over groups. It is refused (p is NaN) where so few groups differ that
    it cannot reach 0.05.

    Args:
        differences: [cases]; NaN is left out.
        groups: [cases] what each case must not be divided from.
    """
    sums = mean_sums(differences, groups)
    if not len(sums.numerators):
        return _NOTHING
    (interval,) = bca(resample(sums, seed=SEED))
    test = sign_flip(differences, groups, seed=SEED)
    return Comparison(
        mean=interval.value,
        low=interval.low,
        high=interval.high,
        p=test.p if test.floor < ALPHA else math.nan,
        num=interval.n,
    )


def groups_note(units: str) -> str:
    """What `over_groups` does, for notes and captions.

    Args:
        units: what the groups are called, in the plural.
    """
    return (
        f"Interval: 95 %, BCa bootstrap over {units}; p: two-sided sign-flip test over {units}; "
        f"both need {FEWEST_GROUPS} {units} that differ, with fewer the test could not reach 0.05. "
        "They are about these trained networks on new cases, not about training again."
    )


def runs_note(num_runs: int, test_train_ratio: float) -> str:
    """What `over_runs` does, for notes and captions.

    Args:
        num_runs: pairs that the comparisons have, the largest number.
        test_train_ratio: held-out cases over training cases.
    """
    if num_runs < 2:
        return "No interval and no test: they need two runs that both have, and there are fewer."
    return (
        f"Differences are paired by run (fold and seed; {num_runs} runs), with the 95 % interval "
        "and the two-sided p of the corrected resampled t (Nadeau and Bengio 2003; n_test/n_train "
        f"= {test_train_ratio:.3f}): they are about training again."
    )


def unit_word(places: CasePlaces) -> str:
    """What the groups are called: cases, where every case is a group of its own."""
    units = places.units
    return "cases" if units["case"].nunique() == units["group"].nunique() else "groups of cases"
