import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reports.statistics import FEWEST_GROUPS, CaseScores, bootstrap_mean
from reports.statistics.cases import (
    GroupSums,
    Resampled,
    bca,
    gaps,
    mean_sums,
    percentile,
    pooled_sums,
    resample,
)
from reports.statistics.intervals import Interval

# [cases, arms] scores with three decimals.
_score = st.floats(0, 1).map(lambda value: round(value, 3))
tables = st.lists(st.tuples(_score, _score), min_size=8, max_size=20)


def _resampled(values, groups=None, *, draws: int = 100) -> Resampled:
    names = groups if groups is not None else list(range(len(values)))
    return resample(mean_sums(values, names), seed=3, draws=draws)


def _same_intervals(one: tuple[Interval, ...], other: tuple[Interval, ...]) -> bool:
    return all(
        getattr(a, name) == pytest.approx(getattr(b, name), abs=1e-9, nan_ok=True)
        for a, b in zip(one, other, strict=True)
        for name in ("value", "low", "high")
    )


# R's boot package, by way of scipy's tests: mean, 95 %, basic 23.77 to 79.12. The basic interval
# is the percentile interval mirrored at the mean, so that the published limits hold for both.
_BOOT_CI = [10, 12, 12.5, 12.5, 13.9, 15, 21, 22, 23, 34, 50, 81, 89, 121, 134, 213]


def test_a11_reproduces_the_intervals_of_boot_ci() -> None:
    resampled = _resampled(_BOOT_CI, draws=200_000)
    (plain,), (corrected,) = percentile(resampled), bca(resampled)
    assert plain.value == pytest.approx(np.mean(_BOOT_CI))
    assert (plain.low, plain.high) == pytest.approx((28.86, 84.21), rel=0.005)
    mirrored = (2 * plain.value - plain.high, 2 * plain.value - plain.low)
    assert mirrored == pytest.approx((23.77, 79.12), rel=0.005)
    assert (corrected.low, corrected.high) == pytest.approx((32.31, 91.43), rel=0.005)


def test_a_ratio_of_sums_and_a_mean_of_ratios_are_different_questions() -> None:
    # Two images of IoU 90/100 and 0/10: on average 0.45, pooled 0.818.
    hits, union = [90, 0], [100, 10]
    mean = resample(mean_sums(np.divide(hits, union), ["a", "b"]), seed=0)
    pooled = resample(pooled_sums(hits, union, ["a", "b"]), seed=0)
    assert mean.values[0] == pytest.approx(0.45)
    assert pooled.values[0] == pytest.approx(90 / 110)
    assert pooled.without[:, 0] == pytest.approx([0, 0.9])
    # Two groups have but three draws: both, or either one twice.
    assert set(pooled.draws[:, 0].round(6)) == {0, 0.9, round(90 / 110, 6)}


def test_the_pooled_interval_is_that_of_scipy_over_groups() -> None:
    rng = np.random.default_rng(0)
    hits, misses = rng.integers(0, 50, 200), rng.integers(1, 30, 200)
    groups = rng.integers(0, 40, 200)
    (own,) = percentile(
        resample(pooled_sums(2 * hits, 2 * hits + misses, groups), seed=1, draws=10_000)
    )
    above = np.bincount(groups, 2 * hits)
    below = np.bincount(groups, 2 * hits + misses)

    def dice(above, below, axis):
        return above.sum(axis) / below.sum(axis)

    theirs = stats.bootstrap(
        (above, below), dice, paired=True, n_resamples=10_000, method="percentile", rng=rng
    ).confidence_interval
    assert own.value == pytest.approx(2 * hits.sum() / (2 * hits + misses).sum())
    width = own.high - own.low
    assert own.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert own.high == pytest.approx(theirs.high, abs=0.05 * width)


@given(tables, st.integers(2, 5))
def test_identical_copies_within_a_group_change_nothing(values, copies: int) -> None:
    groups = [f"patient {k:02d}" for k in range(len(values))]
    alone, many = _resampled(values, groups), _resampled(values * copies, groups * copies)
    assert _same_intervals(percentile(alone), percentile(many))
    assert _same_intervals(bca(alone), bca(many))


def test_copies_taken_for_independent_would_shrink_the_interval_by_their_root() -> None:
    values = np.random.default_rng(1).beta(5, 2, 60)
    (right,) = percentile(_resampled(np.tile(values, 4), np.tile(np.arange(60), 4), draws=20_000))
    (naive,) = percentile(_resampled(np.tile(values, 4), np.arange(240), draws=20_000))
    assert (right.high - right.low) / (naive.high - naive.low) == pytest.approx(2, rel=0.05)


@given(tables)
def test_one_case_a_group_is_the_ordinary_bootstrap(values) -> None:
    resampled = _resampled(values, draws=50)
    rng, table = np.random.default_rng(3), np.array(values)
    for draw in resampled.draws:
        drawn = rng.integers(0, len(table), len(table), dtype=np.uint32)
        assert draw == pytest.approx(table[drawn].mean(axis=0), abs=1e-12)


def test_with_one_fold_it_agrees_with_the_bootstrap_over_folds() -> None:
    values = np.random.default_rng(2).beta(5, 2, 60)
    groups = [f"{k % 20:02d}" for k in range(60)]
    cases = CaseScores(values=tuple(values), groups=tuple(groups), folds=(0,) * 60)
    other = bootstrap_mean(cases, seed=0)
    (own,) = percentile(_resampled(values, groups, draws=20_000))
    assert other is not None
    assert own.value == pytest.approx(other.mean)
    assert own.low == pytest.approx(other.low, abs=0.005)
    assert own.high == pytest.approx(other.high, abs=0.005)


@given(tables, st.randoms())
def test_the_order_of_the_cases_changes_nothing(values, random) -> None:
    groups = [f"{k // 2}" for k in range(len(values))]
    order = random.sample(range(len(values)), len(values))
    first = _resampled(values, groups)
    second = _resampled([values[k] for k in order], [groups[k] for k in order])
    assert _same_intervals(percentile(first), percentile(second))


@given(tables, st.floats(-0.5, 0.5))
def test_a_constant_added_to_both_arms_leaves_their_gap(values, constant: float) -> None:
    first = gaps(_resampled(values), 0)
    second = gaps(_resampled(np.array(values) + constant), 0)
    assert _same_intervals(percentile(first), percentile(second))


@given(tables)
def test_a_gap_is_the_bootstrap_of_the_paired_differences(values) -> None:
    # Only if both arms see the same draws: with draws of their own the gap would spread more.
    table = np.array(values)
    both = gaps(_resampled(table), 0)
    assert both.values[0] == 0
    assert not both.draws[:, 0].any()
    paired = _resampled(table[:, 1] - table[:, 0])
    assert both.draws[:, 1] == pytest.approx(paired.draws[:, 0], abs=1e-12)
    assert both.without[:, 1] == pytest.approx(paired.without[:, 0], abs=1e-12)


@given(tables)
def test_cases_without_a_score_change_nothing(values) -> None:
    table = np.vstack([values, np.full((3, 2), math.nan)])
    assert _same_intervals(
        percentile(_resampled(values, list(range(len(values))))),
        percentile(_resampled(table, list(range(len(table))))),
    )


def test_an_arm_without_a_score_in_some_groups_says_how_many_it_has() -> None:
    table = np.random.default_rng(5).random((10, 2))
    table[:3, 1] = math.nan
    both, one = percentile(_resampled(table))
    assert (both.n, one.n) == (10, 7)
    assert one.value == pytest.approx(table[3:, 1].mean())
    assert gaps(_resampled(table), 0).num_groups.tolist() == [10, 7]
    assert gaps(_resampled(table), 1).num_groups.tolist() == [7, 7]


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng, held, naive = np.random.default_rng(6), 0, 0
    groups = np.repeat(np.arange(40), 5)
    for _ in range(200):
        values = rng.normal(0, 1, 40)[groups] + rng.normal(0, 0.5, 200)
        (right,) = percentile(_resampled(values, groups, draws=400))
        (wrong,) = percentile(_resampled(values, draws=400))
        held += right.low <= 0 <= right.high
        naive += wrong.low <= 0 <= wrong.high
    # Some 188 of 200 are expected of 40 groups; the bounds are four standard deviations of that.
    assert 174 <= held <= 199
    assert naive < 150


def test_too_few_groups_have_a_value_and_no_interval() -> None:
    values = np.random.default_rng(7).random(FEWEST_GROUPS * 3)
    few = _resampled(values, np.arange(len(values)) % (FEWEST_GROUPS - 1))
    enough = _resampled(values, np.arange(len(values)) % FEWEST_GROUPS)
    for intervals in (percentile, bca):
        (without,), (with_limits,) = intervals(few), intervals(enough)
        assert without.value == pytest.approx(values.mean())
        assert math.isnan(without.low)
        assert math.isnan(without.high)
        assert with_limits.low < with_limits.value < with_limits.high


def test_equal_groups_have_a_point_and_no_corrected_interval() -> None:
    resampled = _resampled([0.7] * 10)
    (plain,), (corrected,) = percentile(resampled), bca(resampled)
    assert (plain.low, plain.high) == pytest.approx((0.7, 0.7))
    assert corrected.value == pytest.approx(0.7)
    assert math.isnan(corrected.low)
    assert math.isnan(corrected.high)


def test_nothing_to_pool_is_undefined_and_not_zero() -> None:
    # No network sees anything, and nothing is there.
    (empty,) = percentile(resample(pooled_sums([0, 0], [0, 0], ["a", "b"]), seed=0))
    assert empty.n == 0
    assert math.isnan(empty.value)
    # One group alone has something: draws without it are left out, the others all agree.
    sums = pooled_sums([[8, 1]] + [[0, 1]] * 7, [[10, 2]] + [[0, 2]] * 7, list("abcdefgh"))
    resampled = resample(sums, seed=0)
    assert resampled.values == pytest.approx([0.8, 0.5])
    drawn = resampled.draws[:, 0]
    assert 0.25 < np.isnan(drawn).mean() < 0.45
    assert drawn[~np.isnan(drawn)] == pytest.approx(0.8)


def test_many_groups_are_weighed_in_blocks_that_add_up() -> None:
    # More groups than fit into one block beside each other: every draw still weighs all of them.
    sums = GroupSums(numerators=np.ones((300_000, 1)), denominators=np.full((300_000, 1), 2.0))
    assert resample(sums, seed=0, draws=7).draws == pytest.approx(np.full((7, 1), 0.5))
