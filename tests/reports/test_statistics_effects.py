import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from reports.statistics.effects import cliffs_delta, paired_d, rank_biserial

samples = st.lists(st.integers(0, 8).map(float), min_size=2, max_size=12)

# The tests of R's effsize.
_TREATED = [10, 10, 20, 20, 20, 30, 30, 30, 40, 50]
_CONTROL = [10, 20, 30, 40, 40, 50]


def test_a13_reproduces_cliffs_delta_of_effsize() -> None:
    result = cliffs_delta(_TREATED, _CONTROL)
    assert result.delta == pytest.approx(-0.25)
    assert result.magnitude == "small"
    assert result.a12 == pytest.approx(0.375)
    # Printed there beside a call with other options; these limits are those of the defaults:
    # unbiased variance, Student's t.
    assert (result.low, result.high) == pytest.approx((-0.7265846, 0.3890062), abs=5e-8)


def test_a13_a_negligible_delta_of_effsize() -> None:
    result = cliffs_delta([10, 20, 20, 20, 30, 30, 30, 40, 50, 100], _CONTROL)
    assert result.delta == pytest.approx(-0.066667, abs=1e-6)
    assert result.magnitude == "negligible"


def test_a14_tells_three_paired_effects_apart() -> None:
    # effsize prints 1.55 as the paired d.
    result = paired_d([0.2, 0.4, 0.8, 0.9], [0.12, 0.14, 0.18, 0.119])
    assert result.d_rm == pytest.approx(1.5516, abs=5e-5)
    assert result.d_z == pytest.approx(1.352711, abs=5e-7)
    assert result.d_av == pytest.approx(1.856079, abs=5e-7)


@given(samples, samples)
def test_delta_counts_cross_pairs(first: list[float], second: list[float]) -> None:
    pairs = [np.sign(one - other) for one in first for other in second]
    result = cliffs_delta(first, second)
    assert result.delta == pytest.approx(np.mean(pairs), abs=1e-12)
    assert result.a12 == pytest.approx((np.mean(pairs) + 1) / 2, abs=1e-12)
    u = stats.mannwhitneyu(first, second).statistic
    assert result.a12 == pytest.approx(u / (len(first) * len(second)), abs=1e-12)


@given(samples, samples)
def test_swapping_the_samples_mirrors_delta_and_its_interval(first, second) -> None:
    one, other = cliffs_delta(first, second), cliffs_delta(second, first)
    assert one.delta == pytest.approx(-other.delta, abs=1e-12)
    assert one.low == pytest.approx(-other.high, abs=1e-9, nan_ok=True)
    assert one.magnitude == other.magnitude
    if not math.isnan(one.low):
        assert -1 <= one.low <= one.delta <= one.high <= 1


def test_the_interval_of_delta_holds_the_truth_about_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(0), 0
    truth = 2 * stats.norm.cdf(0.5 / math.sqrt(2)) - 1
    for _ in range(300):
        result = cliffs_delta(rng.normal(0.5, 1, 30), rng.normal(0, 1, 20))
        held += result.low <= truth <= result.high
    # 285 of 300 are expected; the bounds are four standard deviations of that.
    assert 269 <= held <= 299


@pytest.mark.parametrize(
    ("above", "word"), [(57, "negligible"), (66, "small"), (73, "medium"), (74, "large")]
)
def test_the_words_change_where_romano_changes_them(above: int, word: str) -> None:
    # One value against 100, of which so many lie below it: delta = (2 above - 100) / 100.
    others = [0.0] * above + [2.0] * (100 - above)
    assert cliffs_delta([1.0], others).magnitude == word


def test_a_delta_at_the_limit_has_the_word_above_it() -> None:
    result = cliffs_delta([1.0], [0.0] * 133 + [2.0] * 67)
    assert result.delta == 0.33
    assert result.magnitude == "medium"


def test_ties_alone_are_no_certainty_that_delta_is_zero() -> None:
    # The unbiased variance is 0 here, and below 0 elsewhere; what is possible is (1 - d^2)/(nm - 1).
    result = cliffs_delta([5.0] * 3, [5.0] * 3)
    reach = stats.t.ppf(0.975, 4) * math.sqrt(1 / 8)
    assert result.delta == 0
    assert result.high == pytest.approx(reach / math.sqrt(1 + reach**2))
    assert result.low == -result.high


def test_samples_that_do_not_overlap_have_a_delta_and_no_interval() -> None:
    result = cliffs_delta([1, 2, 3], [4, 5])
    assert (result.delta, result.a12, result.magnitude) == (-1, 0, "large")
    assert math.isnan(result.low)
    assert math.isnan(result.high)


def test_an_empty_sample_has_no_delta() -> None:
    result = cliffs_delta([math.nan], [1.0])
    assert math.isnan(result.delta)
    assert result.magnitude == ""


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=12))
def test_d_z_is_the_paired_t_over_the_root_of_n_and_shifts_change_nothing(pairs) -> None:
    first, second = np.array(pairs).round(3).T
    assume(np.ptp(first - second) > 1e-3 and np.ptp(first) > 1e-3 and np.ptp(second) > 1e-3)
    result, moved = paired_d(first, second), paired_d(first + 0.25, second + 0.25)
    t = stats.ttest_rel(first, second).statistic
    assert result.d_z == pytest.approx(t / math.sqrt(len(first)), abs=1e-9)
    for name in ("d_z", "d_av", "d_rm"):
        assert getattr(moved, name) == pytest.approx(getattr(result, name), abs=1e-7)


def test_uncorrelated_pairs_of_equal_spread_have_one_d() -> None:
    # r = 0 and equal variances: the difference varies twice as much as either arm.
    result = paired_d([1, 1, 3, 3], [0, 2, 0, 2])
    assert result.d_av == pytest.approx(result.d_rm)
    assert result.d_z == pytest.approx(result.d_av / math.sqrt(2))


def test_effects_without_a_spread_are_undefined() -> None:
    same = paired_d([0.3, 0.4, 0.5], [0.2, 0.3, 0.4])
    assert math.isnan(same.d_z)
    assert math.isnan(same.d_rm)
    assert same.d_av == pytest.approx(1)
    assert all(math.isnan(getattr(paired_d([1.0], [0.0]), name)) for name in ("d_z", "d_av"))


def test_the_rank_biserial_of_demsars_comparison() -> None:
    # Rank sums 93 and 12, see A3.
    d = [0.005, -0.008, 0.017, 0.033, 0.006, -0.005, 0.007, 0, 0.063, 0, 0.022, 0.047, 0.009, 0.021]
    assert rank_biserial(d, zeros="zsplit") == pytest.approx((93 - 12) / 105)


@given(st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12))
def test_the_rank_biserial_is_odd_and_one_where_all_agree(values: list[float]) -> None:
    assume(any(values))
    assert rank_biserial(values) == pytest.approx(-rank_biserial([-v for v in values]))
    assert rank_biserial([abs(value) for value in values]) == 1


def test_no_difference_has_no_rank_biserial_unless_zeros_are_split() -> None:
    assert math.isnan(rank_biserial([0.0, 0.0], zeros="wilcox"))
    assert math.isnan(rank_biserial([0.0, 0.0], zeros="pratt"))
    assert rank_biserial([0.0, 0.0], zeros="zsplit") == 0
