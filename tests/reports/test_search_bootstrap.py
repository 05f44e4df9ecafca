import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reports.statistics import FEWEST_GROUPS, CaseScores, bootstrap_gap, bootstrap_mean


def _cases(values: list[float], groups: list[str] | None = None, folds: int = 1) -> CaseScores:
    names = groups or [f"case {k:03d}" for k in range(len(values))]
    return CaseScores(
        values=tuple(values),
        groups=tuple(names),
        folds=tuple(k % folds for k in range(len(values))),
    )


scores = st.lists(st.floats(0, 1).map(lambda v: round(v, 3)), min_size=8, max_size=20)


def test_agrees_with_the_percentile_bootstrap_of_scipy() -> None:
    values = np.random.default_rng(0).beta(5, 2, 40)
    own = bootstrap_mean(_cases(values.tolist()), seed=1)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert own is not None
    assert own.mean == pytest.approx(values.mean())
    assert own.low == pytest.approx(theirs.low, abs=0.004)
    assert own.high == pytest.approx(theirs.high, abs=0.004)


def test_the_gap_has_the_spread_of_two_independent_means() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(0.8, 0.1, 60), rng.normal(0.7, 0.1, 30)
    gap = bootstrap_gap(_cases(first.tolist()), _cases(second.tolist()), seed=0)
    assert gap is not None
    half = 1.96 * math.sqrt(first.var() / 60 + second.var() / 30)
    assert gap.mean == pytest.approx(first.mean() - second.mean())
    assert gap.high - gap.low == pytest.approx(2 * half, rel=0.1)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    held = 0
    for number in range(200):
        one, other = rng.beta(8, 2, 50).tolist(), rng.beta(8, 2, 50).tolist()
        gap = bootstrap_gap(_cases(one, folds=5), _cases(other), seed=number)
        assert gap is not None
        held += gap.low <= 0 <= gap.high
    # 190 of 200 are expected; the bounds are four standard deviations of that.
    assert 178 <= held <= 199


def test_cases_of_one_group_are_drawn_together() -> None:
    values = np.random.default_rng(5).beta(5, 2, 20).tolist()
    alone = bootstrap_mean(_cases(values), seed=0)
    names = [f"case {k:03d}" for k in range(20)]
    thrice = bootstrap_mean(_cases(values * 3, names * 3), seed=0)
    assert alone is not None
    assert thrice is not None
    assert thrice.num_groups == 20
    for name in ("mean", "low", "high"):
        assert getattr(thrice, name) == pytest.approx(getattr(alone, name), abs=1e-12)


def test_every_fold_counts_the_same_however_many_cases_it_has() -> None:
    cases = CaseScores(values=(1.0, 0.0, 0.0, 0.0), groups=("a", "b", "c", "d"), folds=(0, 1, 1, 1))
    result = bootstrap_mean(cases, seed=0)
    assert result is not None
    assert result.mean == 0.5


@given(scores, st.floats(-0.5, 0.5))
def test_a_constant_moves_mean_and_interval_by_itself(values: list[float], by: float) -> None:
    first = bootstrap_mean(_cases(values, folds=2), seed=0)
    moved = bootstrap_mean(_cases([value + by for value in values], folds=2), seed=0)
    assert first is not None
    assert moved is not None
    for name in ("mean", "low", "high"):
        assert getattr(moved, name) == pytest.approx(getattr(first, name) + by, abs=1e-9)


@given(scores, st.randoms())
def test_the_order_of_the_cases_changes_nothing(values: list[float], random) -> None:
    order = random.sample(range(len(values)), len(values))
    cases = _cases(values, folds=3)
    shuffled = CaseScores(
        values=tuple(cases.values[k] for k in order),
        groups=tuple(cases.groups[k] for k in order),
        folds=tuple(cases.folds[k] for k in order),
    )
    first, second = bootstrap_mean(cases, seed=7), bootstrap_mean(shuffled, seed=7)
    assert first is not None
    assert second is not None
    for name in ("mean", "low", "high"):
        assert getattr(first, name) == pytest.approx(getattr(second, name), abs=1e-9)


@given(scores)
def test_cases_without_a_score_change_nothing(values: list[float]) -> None:
    without = bootstrap_mean(_cases(values), seed=0)
    holes = _cases([*values, math.nan, math.nan])
    assert bootstrap_mean(holes, seed=0) == without


def test_a_gap_to_itself_is_zero() -> None:
    cases = _cases(np.random.default_rng(6).beta(5, 2, 12).tolist())
    gap = bootstrap_gap(cases, cases, seed=0)
    assert gap is not None
    assert gap.mean == 0
    assert gap.low < 0 < gap.high


def test_too_few_groups_have_a_mean_and_no_interval() -> None:
    few = bootstrap_mean(_cases([0.5] * (FEWEST_GROUPS - 1)), seed=0)
    enough = bootstrap_mean(_cases([0.5] * FEWEST_GROUPS), seed=0)
    assert few is not None
    assert enough is not None
    assert few.mean == enough.mean == enough.low == 0.5
    assert math.isnan(few.low)
    assert math.isnan(few.high)


@pytest.mark.parametrize("values", [[], [math.nan]])
def test_no_score_at_all_has_no_mean(values: list[float]) -> None:
    some = _cases([0.5] * 8)
    assert bootstrap_mean(_cases(values), seed=0) is None
    assert bootstrap_gap(some, _cases(values), seed=0) is None
    assert bootstrap_gap(_cases(values), some, seed=0) is None
