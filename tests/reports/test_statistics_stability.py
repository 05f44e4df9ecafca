import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reports.statistics.cases import mean_sums, resample
from reports.statistics.ranking import ranks_within
from reports.statistics.stability import rank_stability, rankings
from unetpp.errors import UserError

tables = st.lists(
    st.tuples(*[st.floats(0, 1).map(lambda value: round(value, 2))] * 4), min_size=3, max_size=12
)


def _resampled(scores, groups=None, *, draws: int = 200):
    names = groups if groups is not None else list(range(len(scores)))
    return resample(mean_sums(scores, names), seed=0, draws=draws)


def test_an_arm_that_is_better_in_every_case_is_always_first() -> None:
    base = np.random.default_rng(0).random(20)
    result = rank_stability(_resampled(np.stack([base, base + 0.1, base - 0.2], axis=1)))
    assert result.ranks == result.low == result.high == (2, 1, 3)
    assert result.first == (0, 1, 0)
    assert (result.tau == 1).all()
    assert result.num_groups == 20


def test_equal_arms_share_the_first_place() -> None:
    scores = np.random.default_rng(1).normal(size=(60, 3))
    result = rank_stability(_resampled(scores - scores.mean(axis=0), draws=3000))
    assert sum(result.first) == pytest.approx(1)
    assert all(0.2 < share < 0.47 for share in result.first)
    assert result.low == (1, 1, 1)
    assert result.high == (3, 3, 3)
    twins = rank_stability(_resampled(np.stack([scores[:, 0]] * 2, axis=1)))
    assert twins.ranks == (1.5, 1.5)
    assert twins.first == (0.5, 0.5)
    assert np.isnan(twins.tau).all()


@given(tables)
def test_ranks_and_tau_of_every_draw_are_those_of_scipy(rows) -> None:
    resampled = _resampled(rows, draws=8)
    result = rank_stability(resampled)
    full = stats.rankdata(-resampled.values.round(12))
    assert result.ranks == pytest.approx(full)
    for tau, draw in zip(result.tau, resampled.draws, strict=True):
        expected = stats.kendalltau(full, stats.rankdata(-draw.round(12)))[0]
        assert tau == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert sum(result.first) == pytest.approx(1)


def test_groups_are_drawn_whole() -> None:
    # Three patients like the first arm and one, with many images, likes the second.
    scores = np.array([[0.6, 0.5]] * 3 + [[0.5, 0.9]] * 9)
    patients = ["a", "b", "c", *["d"] * 9]
    result = rank_stability(_resampled(scores, patients, draws=4000))
    assert result.ranks == (2, 1)
    # The patient is left out of a draw with probability (3/4)^4.
    assert result.first[0] == pytest.approx(0.75**4, abs=0.03)
    assert result.num_groups == 4


def test_ranking_first_and_aggregating_then_may_turn_the_winner() -> None:
    # The second arm loses a little often, and wins much once.
    scores = np.array([[0.8, 0.79]] * 9 + [[0.1, 0.9]])
    result = rankings(scores)
    assert result.by_mean == (2, 1)
    assert result.by_mean_rank == result.by_median == (1, 2)
    assert result.num_cases == 10
    mean, rank = _resampled(scores), _resampled(-ranks_within(scores))
    assert rank_stability(mean).ranks == result.by_mean
    assert rank_stability(rank).ranks == result.by_mean_rank


@given(tables, st.randoms())
def test_the_order_of_the_cases_changes_no_ranking(rows, random) -> None:
    assert rankings(rows) == rankings(random.sample(rows, len(rows)))


def test_cases_without_a_score_of_every_arm_are_left_out_of_rankings() -> None:
    result = rankings([[0.5, 0.6], [0.9, math.nan]])
    assert result.num_cases == 1
    assert result.by_mean == (2, 1)


def test_draws_that_leave_an_arm_without_a_case_are_left_out() -> None:
    scores = [[0.5, 0.9], [0.6, math.nan], [0.7, math.nan]]
    result = rank_stability(_resampled(scores))
    assert 0 < len(result.tau) < 200
    assert result.num_groups == 1
    assert result.first == (0, 1)


def test_an_arm_without_any_score_is_refused() -> None:
    scores = [[0.5, math.nan], [0.6, math.nan]]
    with pytest.raises(UserError, match="1 of 2 are missing"):
        rank_stability(_resampled(scores))
    with pytest.raises(UserError, match="leave out the arm that lacks them"):
        rankings(scores)
