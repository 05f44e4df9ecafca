import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume

from unetpp.metrics.pareto import front, hypervolume

SIGNS = (1, -1, -1)
VALUES = st.integers(0, 8).map(float)


def points_of(dimensions: int, most: int = 12):
    return st.lists(st.tuples(*[VALUES] * dimensions), max_size=most)


def dominates(a, b):
    """By its definition, in whole numbers."""
    gains = [sign * (x - y) for x, y, sign in zip(a, b, SIGNS, strict=True)]
    return min(gains) >= 0 and max(gains) > 0


def test_the_front_of_three_points_by_hand():
    # (score, cost): the third is worse than the first under both.
    assert front([(0.8, 2.0), (0.9, 5.0), (0.7, 3.0)], (1, -1)) == [0, 1]


def test_equal_points_are_all_on_the_front():
    assert front([(0.8, 2.0), (0.8, 2.0)], (1, -1)) == [0, 1]


@given(points_of(3))
def test_the_front_is_what_no_point_dominates(points):
    assert front(points, SIGNS) == [
        index
        for index, point in enumerate(points)
        if not any(dominates(other, point) for other in points)
    ]


@given(points_of(3))
def test_every_point_is_on_the_front_or_dominated_by_one_that_is(points):
    kept = front(points, SIGNS)
    for index, point in enumerate(points):
        beaten = any(dominates(points[k], point) for k in kept)
        assert beaten != (index in kept)


@pytest.mark.timeout(60)
def test_ten_thousand_points_of_one_front_are_no_trouble():
    line = [(float(k), float(k)) for k in range(10_000)]
    assert front(line, (1, -1)) == list(range(10_000))
    assert front([(0.5, 2.0)] * 10_000, (1, -1)) == list(range(10_000))


def test_hypervolumes_by_hand():
    assert hypervolume([(0.5, 1.0)], (0.0, 2.0), (1, -1)) == pytest.approx(0.5)
    # Two steps: 0.5 x 1.5 and another 0.25 x 1.
    assert hypervolume([(0.5, 0.5), (0.75, 1.0)], (0.0, 2.0), (1, -1)) == pytest.approx(1.0)
    # Two boxes of 1 x 2 x 2 and 2 x 1 x 2 that share 1 x 1 x 2.
    assert hypervolume([(1, 2, 2), (2, 1, 2)], (0, 0, 0), (1, 1, 1)) == pytest.approx(6)


def test_a15_reproduces_the_hypervolumes_of_moocore():
    points = [(5, 5), (4, 6), (2, 7), (7, 4)]
    assert hypervolume(points, (10, 10), (-1, -1)) == 38
    assert hypervolume(points, (0, 0), (1, 1)) == 39
    assert hypervolume([(2, 2)], (4, 4), (-1, -1)) == 4
    assert hypervolume([(3, 1)], (4, 4), (-1, -1)) == 3


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_a15_reproduces_the_staircases_of_optunas_tests(n):
    flat = [(i, n - 1 - i) for i in range(n)]
    assert hypervolume(flat, (n, n), (-1, -1)) == n**2 - n * (n - 1) // 2
    # In three dimensions: all whole points whose sum is n - 1.
    solid = [(i, j, n - 1 - i - j) for i in range(n) for j in range(n - i)]
    assert hypervolume(solid, (n,) * 3, (-1,) * 3) == n**3 - (n - 1) * n * (n + 1) // 6


@pytest.mark.parametrize("dimensions", [2, 3, 4])
def test_a15_unit_vectors_leave_out_the_unit_cube_alone(dimensions):
    units = np.eye(dimensions).tolist()
    covered = hypervolume(units, (10,) * dimensions, (-1,) * dimensions)
    assert covered == pytest.approx(10**dimensions - 1)


def test_points_beyond_the_reference_and_no_points_cover_nothing():
    assert hypervolume([], (0.0, 2.0), (1, -1)) == 0
    assert hypervolume([(0.5, 2.0), (0.9, 3.0), (-0.1, 1.0)], (0.0, 2.0), (1, -1)) == 0


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
@given(data=st.data())
def test_hypervolumes_are_those_of_optuna(dimensions, data):
    points = data.draw(points_of(dimensions))
    ours = hypervolume(points, [9.0] * dimensions, [-1] * dimensions)
    theirs = 0.0
    if points:
        with np.errstate(all="ignore"):
            theirs = compute_hypervolume(np.array(points), np.full(dimensions, 9.0))
    assert ours == pytest.approx(theirs)


@given(points_of(3), st.randoms())
def test_order_and_dominated_points_do_not_matter(points, random):
    reference = (-1.0, 9.0, 9.0)
    whole = hypervolume(points, reference, SIGNS)
    shuffled = list(points)
    random.shuffle(shuffled)
    assert hypervolume(shuffled, reference, SIGNS) == pytest.approx(whole)
    kept = [points[k] for k in front(points, SIGNS)]
    assert hypervolume(kept, reference, SIGNS) == pytest.approx(whole)


@given(points_of(3), st.tuples(VALUES, VALUES, VALUES))
def test_another_point_never_covers_less(points, more):
    reference = (-1.0, 9.0, 9.0)
    before = hypervolume(points, reference, SIGNS)
    assert hypervolume([*points, more], reference, SIGNS) >= before - 1e-9


def test_a_share_of_random_darts_falls_on_it():
    generator = np.random.default_rng(0)
    points = generator.random((20, 3))
    darts = generator.random((100_000, 3))
    hit = np.mean([(dart <= points).all(axis=1).any() for dart in darts])
    assert hypervolume(points.tolist(), (0, 0, 0), (1, 1, 1)) == pytest.approx(hit, abs=0.01)
