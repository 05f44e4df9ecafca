import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reports.statistics.intervals import t_interval
from reports.statistics.sign_flip import sign_flip
from reports.statistics.signed_rank import signed_rank

differences = st.lists(st.floats(-1, 1).map(lambda value: round(value, 3)), min_size=1, max_size=10)


@given(differences.filter(lambda values: len(values) > 1))
def test_counts_the_patterns_that_scipy_counts(values: list[float]) -> None:
    own = sign_flip(values, list(range(len(values))), seed=0)
    theirs = stats.permutation_test(
        (np.array(values),),
        lambda sample, axis: np.abs(np.round(sample.mean(axis), 9)),
        permutation_type="samples",
        alternative="greater",
        n_resamples=10_000,
        vectorized=True,
    )
    assert own.exact
    assert own.mean == pytest.approx(np.mean(values))
    assert own.p == pytest.approx(theirs.pvalue, abs=1e-12)


@given(st.permutations(range(1, 13)), st.lists(st.booleans(), min_size=12, max_size=12))
def test_on_ranks_it_is_the_signed_rank_test(ranks: list[int], up: list[bool]) -> None:
    signed = [rank if positive else -rank for rank, positive in zip(ranks, up, strict=True)]
    expected = signed_rank(signed).p
    assert sign_flip(signed, list(range(12)), seed=0).p == pytest.approx(expected, abs=1e-12)


def test_with_many_groups_tosses_come_close_to_the_counted_p() -> None:
    ranks = np.arange(1, 31) * np.random.default_rng(1).choice([-1, 1], 30, p=[0.3, 0.7])
    counted = signed_rank(ranks)
    tossed = sign_flip(ranks, np.arange(30), seed=0)
    assert counted.exact
    assert not tossed.exact
    assert 0.001 < counted.p < 0.5
    # Four standard deviations of a share of 10,000 tosses.
    assert tossed.p == pytest.approx(counted.p, abs=4 * math.sqrt(counted.p / 10_000))


@pytest.mark.parametrize(
    ("num_groups", "floor"), [(3, 0.25), (5, 0.0625), (20, 2**-19), (40, 1e-4)]
)
def test_groups_that_all_agree_reach_the_floor_and_no_less(num_groups: int, floor: float) -> None:
    values = np.random.default_rng(2).uniform(0.1, 0.2, num_groups)
    result = sign_flip(values, np.arange(num_groups), seed=0)
    assert result.floor == pytest.approx(floor, rel=1e-12)
    assert result.p == pytest.approx(floor, rel=1e-12)
    assert result.exact == (num_groups <= 20)


@given(differences, st.lists(st.integers(0, 4), min_size=10, max_size=10))
def test_swapping_the_arms_keeps_p_and_turns_the_mean(values, groups) -> None:
    one = sign_flip(values, groups[: len(values)], seed=0)
    other = sign_flip([-value for value in values], groups[: len(values)], seed=0)
    assert one.p == other.p
    assert one.mean == pytest.approx(-other.mean)


def test_swapping_the_arms_keeps_p_when_signs_are_tossed() -> None:
    values = np.random.default_rng(3).normal(0.2, 1, 50)
    one = sign_flip(values, np.arange(50), seed=5)
    assert not one.exact
    assert one.p == sign_flip(-values, np.arange(50), seed=5).p


@given(differences, st.randoms())
def test_the_order_of_the_cases_changes_nothing(values: list[float], random) -> None:
    groups = [k // 2 for k in range(len(values))]
    order = random.sample(range(len(values)), len(values))
    one = sign_flip(values, groups, seed=0)
    other = sign_flip([values[k] for k in order], [groups[k] for k in order], seed=0)
    assert one.p == pytest.approx(other.p, abs=1e-12)


@given(differences, st.floats(0, 1))
def test_a_constant_added_to_both_arms_changes_nothing(values, constant: float) -> None:
    arm, baseline = np.array(values) + constant, np.zeros(len(values)) + constant
    groups = list(range(len(values)))
    one, other = sign_flip(values, groups, seed=0), sign_flip(arm - baseline, groups, seed=0)
    assert one.p == other.p


@given(differences, st.integers(2, 4))
def test_copies_within_a_group_change_nothing(values: list[float], copies: int) -> None:
    groups = list(range(len(values)))
    one = sign_flip(values, groups, seed=0)
    other = sign_flip(values * copies, groups * copies, seed=0)
    assert one.p == pytest.approx(other.p, abs=1e-12)
    assert one.num_groups == other.num_groups


def test_without_a_difference_it_errs_as_often_as_it_says() -> None:
    rng, groups = np.random.default_rng(4), np.repeat(np.arange(10), [1, 2, 3, 4, 5] * 2)
    grouped = alone = 0
    for _ in range(600):
        values = rng.normal(0, 1, 10)[groups] + rng.normal(0, 0.3, 30)
        grouped += sign_flip(values, groups, seed=0).p <= 0.05
        one_by_one = t_interval(values)
        alone += not one_by_one.low <= 0 <= one_by_one.high
    # 30 of 600 are expected at 5 %; the bounds are four standard deviations of that.
    assert 9 <= grouped <= 51
    # The same cases, taken one by one, are told apart far too often.
    assert alone > 120


def test_a_group_counts_the_same_however_many_cases_it_has() -> None:
    result = sign_flip([0.1] * 9 + [-0.2, -0.4], ["a"] * 9 + ["b", "c"], seed=0)
    assert result.mean == pytest.approx(-0.5 / 3)
    # -0.5 and 0.5, -0.7 and 0.7 are as far from 0; with sums of 0.9, -0.2 and -0.4 all would be.
    assert result.p == 0.5


def test_groups_that_do_not_differ_add_no_patterns() -> None:
    result = sign_flip([0.1, 0.2, 0.3, 0.0, 0.0], list("abcde"), seed=0)
    assert result.floor == result.p == 0.25
    assert result.num_groups == 5
    assert result.mean == pytest.approx(0.12)


def test_no_difference_anywhere_has_p_one_and_no_case_has_none() -> None:
    same = sign_flip([0.0, 0.3 - 0.2 - 0.1, 0.0], list("abc"), seed=0)
    assert (same.p, same.floor) == (1, 1)
    none = sign_flip([math.nan], ["a"], seed=0)
    assert none.num_groups == 0
    assert math.isnan(none.p)
    assert math.isnan(none.mean)
