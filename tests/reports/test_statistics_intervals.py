import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from reports.statistics.intervals import (
    acceleration,
    bca_limits,
    cases_for_width,
    median_interval,
    percentile_limits,
    t_interval,
    trials_for_share,
)


def _without(values: np.ndarray) -> np.ndarray:
    """Means with each value left out."""
    return (values.sum() - values) / (len(values) - 1)


def test_a11_the_acceleration_of_the_data_of_boot_ci() -> None:
    x = np.array([10, 12, 12.5, 12.5, 13.9, 15, 21, 22, 23, 34, 50, 81, 89, 121, 134, 213])
    assert acceleration(_without(x)) == pytest.approx(0.0615289, abs=5e-8)


def test_a12_the_acceleration_of_two_samples_is_efrons() -> None:
    # Efron's mouse data, by way of scipy's tests: difference of means, treated less control.
    control = np.array([10.0, 27, 31, 40, 46, 50, 52, 104, 146])
    treated = np.array([16.0, 23, 38, 94, 99, 141, 197])
    result = acceleration(_without(treated) - control.mean(), treated.mean() - _without(control))
    assert result == pytest.approx(0.011008228344026734, rel=1e-9)


def test_a23_reproduces_mlperfs_number_of_queries() -> None:
    assert trials_for_share(0.9, margin=0.005, confidence=0.99) == 23_886


def test_an_interval_one_point_wide_takes_a_hundred_and_forty_cases() -> None:
    # El Jurdi et al. (2023): SD 3 %, 100 to 200 cases. (2 x 1.96 x 0.03 / 0.01)^2 = 138.3.
    assert cases_for_width(0.03, width=0.01) == 139
    assert cases_for_width(0.03, width=0.02) == 35


def test_the_t_interval_is_that_of_scipy() -> None:
    values = np.random.default_rng(0).beta(5, 2, 30)
    own = t_interval([*values, math.nan], confidence=0.9)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert own.value == pytest.approx(values.mean())
    assert (own.low, own.high) == pytest.approx((theirs.low, theirs.high))
    assert own.n == 30


@pytest.mark.parametrize("values", [[], [0.5]])
def test_one_value_has_no_t_interval(values: list[float]) -> None:
    result = t_interval(values)
    assert result.n == len(values)
    assert math.isnan(result.low)
    assert math.isnan(result.high)


@pytest.mark.parametrize(
    ("n", "k"), [(6, 1), (8, 1), (9, 2), (10, 2), (20, 6), (50, 18), (100, 40)]
)
def test_the_median_lies_between_the_order_statistics_of_printed_tables(n: int, k: int) -> None:
    result = median_interval(np.random.default_rng(1).permutation(np.arange(1, n + 1)))
    assert (result.low, result.high) == (k, n + 1 - k)
    assert result.value == (n + 1) / 2


@given(st.integers(6, 200), st.sampled_from([0.8, 0.9, 0.95]))
def test_the_limits_are_the_closest_that_hold_the_median_often_enough(n, confidence) -> None:
    result = median_interval(np.arange(1, n + 1), confidence=confidence)
    k = int(result.low)
    covered = [1 - 2 * stats.binom.cdf(limit - 1, n, 0.5) for limit in (k, k + 1)]
    assert covered[0] >= confidence - 1e-12
    if k + 1 <= n / 2:
        assert covered[1] < confidence


@pytest.mark.parametrize("n", [0, 1, 5])
def test_five_values_have_a_median_and_no_interval(n: int) -> None:
    result = median_interval(np.arange(n))
    assert math.isnan(result.low)
    assert math.isnan(result.high)
    assert math.isnan(result.value) == (n == 0)


def test_corrected_limits_agree_with_scipy() -> None:
    values = np.random.default_rng(2).exponential(size=40)
    rng = np.random.default_rng(3)
    draws = values[rng.integers(0, 40, (50_000, 40))].mean(axis=1)
    own = bca_limits(float(values.mean()), draws, [_without(values)], confidence=0.95)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=50_000, method="BCa", rng=rng)
    interval = theirs.confidence_interval
    assert own == pytest.approx((interval.low, interval.high), abs=0.02)


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10), st.floats(-5, 5))
def test_corrected_limits_follow_a_change_of_units(seed: int, scale: float, by: float) -> None:
    rng = np.random.default_rng(seed)
    values = rng.exponential(size=15)
    draws = values[rng.integers(0, 15, (300, 15))].mean(axis=1)
    one = bca_limits(float(values.mean()), draws, [_without(values)], confidence=0.9)
    moved = scale * values + by
    other = bca_limits(float(moved.mean()), scale * draws + by, [_without(moved)], confidence=0.9)
    assert other == pytest.approx([scale * limit + by for limit in one], abs=1e-6, rel=1e-6)


def test_symmetric_data_need_no_correction() -> None:
    values = np.arange(-10.0, 11.0)
    assert acceleration(_without(values)) == pytest.approx(0, abs=1e-12)
    draws = np.linspace(-1, 1, 2001)
    corrected = bca_limits(0.0, draws, [_without(values)], confidence=0.9)
    assert corrected == pytest.approx(percentile_limits(draws, confidence=0.9), abs=1e-9)


def test_degenerate_data_have_no_corrected_limits() -> None:
    equal = np.full(8, 0.7)
    assert math.isnan(acceleration(_without(equal)))
    assert all(math.isnan(v) for v in bca_limits(0.7, equal, [_without(equal)], confidence=0.95))
    varied = np.arange(8.0)
    one_sided = bca_limits(3.5, np.full(50, 9.0), [_without(varied)], confidence=0.95)
    assert all(math.isnan(value) for value in one_sided)
    assert math.isnan(acceleration(np.array([0.5])))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0.5, 0.99))
def test_percentile_limits_leave_out_empty_draws_and_lie_within_the_others(values, confidence):
    assume(len(values) > 0)
    with_holes = np.array([*values, math.nan])
    limits = percentile_limits(with_holes, confidence=confidence)
    assert limits == percentile_limits(np.array(values), confidence=confidence)
    assert min(values) - 1e-12 <= limits[0] <= limits[1] <= max(values) + 1e-12


def test_no_draw_has_no_limits() -> None:
    assert all(math.isnan(v) for v in percentile_limits(np.array([math.nan]), confidence=0.95))
