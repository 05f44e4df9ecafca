import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from reports.statistics import holm
from reports.statistics.ranking import (
    against_control,
    cliques,
    friedman,
    friedman_statistics,
    nemenyi,
    ranks_within,
)
from unetpp.errors import UserError

# Demsar (2006), table 6: AUC on 14 data sets of C4.5, and of C4.5 with tuned m, cf, and both.
_DEMSAR = """
0.763 0.768 0.771 0.798   0.599 0.591 0.590 0.569   0.954 0.971 0.968 0.967
0.628 0.661 0.654 0.657   0.882 0.888 0.886 0.898   0.936 0.931 0.916 0.931
0.661 0.668 0.609 0.685   0.583 0.583 0.563 0.625   0.775 0.838 0.866 0.875
1.000 1.000 1.000 1.000   0.940 0.962 0.965 0.962   0.619 0.666 0.614 0.669
0.972 0.981 0.975 0.975   0.957 0.978 0.946 0.970"""
_MEAN_RANKS = [44 / 14, 28 / 14, 40.5 / 14, 27.5 / 14]
_VOTING = 12

tables = st.lists(st.tuples(*[st.integers(0, 6).map(float)] * 4), min_size=2, max_size=8)


def _printed() -> np.ndarray:
    return np.array(_DEMSAR.split(), float).reshape(14, 4)


def test_a1_reproduces_demsars_friedman_test() -> None:
    chi2, f = friedman_statistics(_MEAN_RANKS, 14)
    assert chi2 == pytest.approx(9.2786, abs=5e-5)
    assert f == pytest.approx(3.6863, abs=5e-5)
    assert stats.f.sf(f, 3, 39) == pytest.approx(0.019823, abs=5e-7)
    assert stats.chi2.sf(chi2, 3) == pytest.approx(0.025807, abs=5e-7)


def test_a1_reproduces_demsars_critical_differences() -> None:
    assert nemenyi(_MEAN_RANKS, 14).critical_difference == pytest.approx(1.25356, abs=5e-6)
    at_ten = nemenyi(_MEAN_RANKS, 14, alpha=0.1)
    assert at_ten.critical_difference == pytest.approx(1.11806, abs=5e-6)
    # His figure 1a, at 10 %: C4.5 is joined with cf alone, and cf with the other two.
    assert at_ten.cliques == ((3, 1, 2), (2, 0))


def test_a1_a2_unrounded_scores_give_the_mean_ranks_of_the_paper() -> None:
    # The paper ranks cf before m+cf on `voting`, where its table prints the same three digits.
    scores = _printed()
    scores[_VOTING, 2] += 1e-4
    result = friedman(scores)
    assert result.mean_ranks == pytest.approx(_MEAN_RANKS)
    assert result.chi2 == pytest.approx(9.2786, abs=5e-5)
    assert result.p_chi2 == pytest.approx(0.025807, abs=5e-7)
    assert result.p_f == pytest.approx(0.019823, abs=5e-7)
    assert result.num_sets == 14


def test_a2_trap_printed_scores_tie_and_move_the_result() -> None:
    assert friedman(_printed()).chi2 == pytest.approx(9.857, abs=5e-4)


def test_a2_reproduces_demsars_comparison_with_a_control() -> None:
    results = against_control(_MEAN_RANKS, 14, control=0)
    control, *others = results
    assert (control.z, control.p) == (0, 1)
    both, m, cf = others[2], others[0], others[1]
    # The paper subtracts ranks that are rounded to three digits: 2.416 for 2.4154.
    assert [both.z, m.z, cf.z] == pytest.approx([2.416, 2.342, 0.512], abs=1e-3)
    p = [both.p, m.p, cf.p]
    assert p == pytest.approx([0.0157, 0.0192, 0.608], abs=5e-4)
    assert p[:2] == pytest.approx([0.0157, 0.0192], abs=5e-5)
    assert holm(p) == pytest.approx([0.0470, 0.0470, 0.608], abs=5e-4)
    assert [value < 0.05 for value in holm(p)] == [True, True, False]


# The README of scikit-posthocs: 4 blocks of 4 groups.
_BLOCKS = [
    [8.82, 11.8, 10.37, 12.08],
    [8.92, 9.58, 10.59, 11.89],
    [8.27, 11.46, 10.24, 11.6],
    [8.83, 13.25, 8.33, 11.51],
]


def test_a5_reproduces_the_block_data_of_scikit_posthocs() -> None:
    result = friedman(_BLOCKS)
    assert result.chi2 == pytest.approx(8.7)
    assert result.p_chi2 == pytest.approx(0.0335573, abs=5e-8)
    p = nemenyi(result.mean_ranks, 4).p
    assert p[0][1] == pytest.approx(0.220784, abs=5e-7)
    assert p[0][2] == pytest.approx(0.844289, abs=5e-7)
    assert p[0][3] == pytest.approx(0.031364, abs=5e-7)
    assert p[1][2] == pytest.approx(0.692333, abs=5e-7)


@given(tables)
def test_corrected_for_ties_it_is_the_test_of_scipy(rows) -> None:
    assume(all(len(set(row)) > 1 for row in rows))
    result, theirs = friedman(rows), stats.friedmanchisquare(*np.array(rows).T)
    assert result.chi2_ties == pytest.approx(theirs.statistic, abs=1e-9)
    assert result.p_ties == pytest.approx(theirs.pvalue, abs=1e-9)
    assert result.chi2 <= result.chi2_ties + 1e-9


@given(tables, st.randoms(), st.lists(st.floats(-1, 1), min_size=8, max_size=8))
def test_order_and_level_of_the_data_sets_change_nothing(rows, random, levels) -> None:
    order = random.sample(range(len(rows)), len(rows))
    moved = [[score + levels[k] for score in rows[k]] for k in order]
    one, other = friedman(rows), friedman(moved)
    assert other.mean_ranks == pytest.approx(one.mean_ranks)
    assert other.p_chi2 == pytest.approx(one.p_chi2, abs=1e-9)


def test_data_sets_that_all_agree_have_an_infinite_f() -> None:
    result = friedman([[0.9, 0.8, 0.7]] * 5)
    assert result.mean_ranks == (1, 2, 3)
    assert result.chi2 == pytest.approx(10)
    assert (result.f, result.p_f) == (math.inf, 0)


def test_arms_that_always_tie_are_not_told_apart() -> None:
    result = friedman([[0.5, 0.5, 0.5]] * 4)
    assert (result.chi2, result.p_chi2) == (0, 1)
    assert math.isnan(result.chi2_ties)
    assert nemenyi(result.mean_ranks, 4).cliques == ((0, 1, 2),)


@given(tables)
def test_two_arms_differ_under_nemenyi_exactly_beyond_the_critical_difference(rows) -> None:
    ranks = friedman(rows).mean_ranks
    result = nemenyi(ranks, len(rows))
    for a, b in itertools.combinations(range(4), 2):
        gap = abs(ranks[a] - ranks[b])
        if abs(gap - result.critical_difference) > 1e-6:
            assert (gap > result.critical_difference) == (result.p[a][b] < 0.05)
        assert result.p[a][b] == pytest.approx(result.p[b][a])
    assert [result.p[a][a] for a in range(4)] == pytest.approx([1] * 4)


@given(st.integers(1, 6), st.data())
def test_cliques_are_all_largest_sets_that_are_not_told_apart(n: int, data) -> None:
    edges = list(itertools.combinations(range(n), 2))
    apart = np.zeros((n, n), dtype=bool)
    for (a, b), flag in zip(
        edges, data.draw(st.tuples(*[st.booleans()] * len(edges))), strict=True
    ):
        apart[a, b] = apart[b, a] = flag
    together = [
        set(members)
        for size in range(2, n + 1)
        for members in itertools.combinations(range(n), size)
        if not any(apart[a, b] for a, b in itertools.combinations(members, 2))
    ]
    largest = [members for members in together if not any(members < other for other in together)]
    found = cliques(apart, list(range(n)))
    assert sorted(map(sorted, found)) == sorted(map(sorted, largest))


def test_cliques_are_in_the_order_of_their_ranks() -> None:
    apart = [[False, True, False], [True, False, False], [False, False, False]]
    # Arm 1 ranks best, then 2, then 0.
    assert cliques(apart, [3.0, 1.0, 2.0]) == ((1, 2), (2, 0))


def test_scores_that_differ_by_rounding_share_a_rank() -> None:
    assert ranks_within([[0.1 + 0.2, 0.3, 0.1]]).tolist() == [[1.5, 1.5, 3]]


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        ([[0.8, 0.7]] * 5, "with three arms or more, but there are 2"),
        ([[0.8, 0.7, 0.6]], "two independent data sets or more, but there is 1; folds of one"),
        ([[0.8, math.nan, 0.6]] * 2, "2 of 6 are missing"),
    ],
)
def test_what_cannot_be_ranked_is_refused(scores, says: str) -> None:
    with pytest.raises(UserError, match=says):
        friedman(scores)


def test_ranks_of_two_arms_or_one_data_set_are_refused_everywhere() -> None:
    with pytest.raises(UserError, match="three arms or more"):
        nemenyi([1.2, 1.8], 5)
    with pytest.raises(UserError, match="two independent data sets"):
        against_control([1, 2, 3], 1, control=0)
