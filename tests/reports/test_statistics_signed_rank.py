import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from reports.statistics.signed_rank import (
    grouped_signed_rank,
    refusal,
    signed_rank,
    smallest_p,
)
from unetpp.errors import UserError

ZEROS = pytest.mark.parametrize("zeros", ["wilcox", "pratt", "zsplit"])
# Few distinct values: ties and zeros in most lists.
coarse = st.lists(st.integers(-4, 4).map(lambda value: value / 100), min_size=1, max_size=12)

# Demsar (2006), table 2: AUC of C4.5 with a tuned m, less that of C4.5, on 14 data sets.
_DEMSAR = [
    0.005,
    -0.008,
    0.017,
    0.033,
    0.006,
    -0.005,
    0.007,
    0,
    0.063,
    0,
    0.022,
    0.047,
    0.009,
    0.021,
]
# R's wilcox.test, by way of scipy's tests.
_X = [120, 114, 181, 188, 180, 146, 121, 191, 132, 113, 127, 112]
_Y = [133, 143, 119, 189, 112, 199, 198, 113, 115, 121, 142, 187]


def test_a3_reproduces_demsars_comparison_of_two_classifiers() -> None:
    result = signed_rank(_DEMSAR, zeros="zsplit")
    assert (result.positive, result.negative, result.statistic) == (93, 12, 12)
    assert result.z == pytest.approx(-2.5424, abs=5e-5)
    assert (result.num_pairs, result.num_zeros) == (14, 2)


def test_a6_reproduces_the_normal_approximation_of_wilcox_test() -> None:
    differences = np.subtract(_X, _Y)
    result = signed_rank(differences)
    assert result.statistic == 34
    assert result.p_normal == pytest.approx(0.6948866, abs=5e-8)
    corrected = signed_rank(differences, continuity=True)
    assert corrected.p_normal == pytest.approx(0.7240817, abs=5e-8)
    assert corrected.p == result.p


def test_a6_groups_of_one_case_are_the_ordinary_test() -> None:
    result = grouped_signed_rank(np.subtract(_X, _Y), list(range(12)))
    assert result.p == pytest.approx(0.6948866, abs=5e-8)
    assert result.num_groups == 12


@given(st.lists(st.floats(-1, 1).map(lambda v: round(v, 3)), min_size=1, max_size=40))
def test_without_ties_and_zeros_it_is_the_exact_test_of_scipy(values: list[float]) -> None:
    sizes = {abs(value) for value in values}
    assume(0 not in sizes and len(sizes) == len(values))
    result = signed_rank(values)
    assert result.exact
    assert result.p == pytest.approx(stats.wilcoxon(values, method="exact")[1], abs=1e-12)


@ZEROS
@given(values=coarse)
def test_with_ties_and_zeros_all_signs_are_counted(zeros, values: list[float]) -> None:
    result = signed_rank(values, zeros=zeros)
    ranked = [v for v in values if v] if zeros == "wilcox" else values
    ranks = stats.rankdata(np.abs(ranked))[np.array(ranked) != 0] if any(values) else np.zeros(0)
    observed = np.dot(ranks, np.sign([value for value in values if value]))
    signs = itertools.product([-1, 1], repeat=min(len(ranks), 9))
    assume(len(ranks) <= 9)
    sums = np.array([np.dot(ranks, sign) for sign in signs])
    assert result.p == pytest.approx(np.mean(np.abs(sums) >= abs(observed) - 1e-9), abs=1e-12)


@ZEROS
@pytest.mark.parametrize("continuity", [False, True])
@given(values=coarse)
def test_the_normal_approximation_is_that_of_scipy(zeros, continuity, values) -> None:
    assume(any(values))
    expected = stats.wilcoxon(
        values, zero_method=zeros, correction=continuity, method="asymptotic"
    )[1]
    own = signed_rank(values, zeros=zeros, continuity=continuity)
    # Where T lies at its mean, scipy moves nothing either.
    assert own.p_normal == pytest.approx(expected, abs=1e-9)


@ZEROS
@given(values=coarse, random=st.randoms())
def test_neither_order_nor_the_side_of_the_arms_changes_p(zeros, values, random) -> None:
    result = signed_rank(values, zeros=zeros)
    shuffled = signed_rank(random.sample(values, len(values)), zeros=zeros)
    mirrored = signed_rank([-value for value in values], zeros=zeros)
    for other in (shuffled, mirrored):
        assert other.p == pytest.approx(result.p, abs=1e-12)
        assert other.p_normal == pytest.approx(result.p_normal, abs=1e-12)
    assert (mirrored.positive, mirrored.negative) == (result.negative, result.positive)


@given(coarse, st.floats(0, 1))
def test_a_constant_added_to_both_arms_changes_nothing(values, constant: float) -> None:
    # Rounding errors would otherwise break ties and turn zeros into differences.
    arm, baseline = np.array(values) + constant, np.zeros(len(values)) + constant
    assert signed_rank(arm - baseline) == signed_rank(values)


def test_more_than_fifty_pairs_take_the_approximation() -> None:
    values = np.random.default_rng(0).normal(0.2, 1, 51)
    assert signed_rank(values[:50]).exact
    many = signed_rank(values)
    assert not many.exact
    assert many.p == many.p_normal
    assert signed_rank(values[:50]).p == pytest.approx(signed_rank(values[:50]).p_normal, abs=0.01)


@ZEROS
def test_no_difference_at_all_has_p_one(zeros) -> None:
    result = signed_rank([0.0, 0.0, 1e-15], zeros=zeros)
    assert (result.p, result.p_normal, result.num_zeros) == (1, 1, 3)
    assert signed_rank([], zeros=zeros).p == 1


@pytest.mark.parametrize("num_pairs", range(1, 9))
def test_the_smallest_p_is_that_of_pairs_that_all_agree(num_pairs: int) -> None:
    assert signed_rank(range(1, num_pairs + 1)).p == smallest_p(num_pairs)


def test_five_folds_are_refused_and_six_are_not() -> None:
    assert refusal(5) == (
        "A Wilcoxon test on 5 folds cannot reach p < 0.05: its smallest two-sided p is 0.0625."
    )
    assert refusal(6) is None
    # What can reach alpha and not fall below it is refused as well.
    assert refusal(2, alpha=0.5) is not None
    assert refusal(6, alpha=0.01, pairs="patients") == (
        "A Wilcoxon test on 6 patients cannot reach p < 0.01: its smallest two-sided p is 0.03125."
    )


@given(st.integers(0, 60), st.floats(0.0001, 0.5))
def test_what_is_refused_is_exactly_what_cannot_reach_alpha(n: int, alpha: float) -> None:
    assert (refusal(n, alpha=alpha) is None) == (smallest_p(n) < alpha)


def test_grouped_cases_are_not_taken_for_independent() -> None:
    rng, groups = np.random.default_rng(1), np.repeat(np.arange(20), 5)
    grouped = alone = 0
    for _ in range(400):
        values = rng.normal(0, 1, 20)[groups] + rng.normal(0, 0.3, 100)
        grouped += grouped_signed_rank(values, groups).p <= 0.05
        alone += signed_rank(values).p <= 0.05
    # 20 of 400 are expected at 5 %; the bounds are four standard deviations of that.
    assert 3 <= grouped <= 37
    assert alone > 80


def test_swapping_the_arms_turns_the_grouped_test() -> None:
    values, groups = np.random.default_rng(2).normal(0.2, 1, 40), np.arange(40) % 10
    one, other = grouped_signed_rank(values, groups), grouped_signed_rank(-values, groups)
    assert one.p == other.p
    assert one.z == -other.z
    assert one.total == -other.total


def test_no_difference_in_any_group_has_p_one() -> None:
    result = grouped_signed_rank([0.0] * 4, ["a", "a", "b", "b"])
    assert result.p == 1
    assert math.isnan(result.z)


def test_rounding_errors_neither_break_ties_nor_hide_zeros_of_grouped_cases() -> None:
    groups = [0, 0, 1, 1, 2, 2]
    noisy = [0.1 + 0.2, 0.3, -0.3, 0.1 - 0.4, 0.5, 0.3 - 0.2 - 0.1]
    assert grouped_signed_rank(noisy, groups) == grouped_signed_rank(
        [0.3, 0.3, -0.3, -0.3, 0.5, 0.0], groups
    )


def test_groups_of_different_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="equally many cases in every group, but they have 1 to 3"):
        grouped_signed_rank([0.1, 0.2, 0.3, 0.4], ["a", "a", "a", "b"])
