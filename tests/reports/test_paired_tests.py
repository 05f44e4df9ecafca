"""A comparison: each unit has its own arithmetic, and says nothing where it cannot."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.paired_tests import over_groups, over_runs, runs_note
from reports.statistics import corrected_resampled_t

_VALUES = st.lists(st.floats(-1, 1), min_size=8, max_size=30)


@given(_VALUES)
def test_over_runs_is_the_corrected_resampled_t_whatever_is_missing(values: list[float]) -> None:
    found = over_runs([*values, math.nan], test_train_ratio=0.25)
    known = corrected_resampled_t(values, test_train_ratio=0.25)
    assert known is not None
    np.testing.assert_array_equal(
        [found.mean, found.low, found.high, found.p, found.num],
        [known.mean, known.low, known.high, known.p, len(values)],
    )


@given(_VALUES)
def test_over_groups_is_the_mean_over_cases_inside_its_limits(values: list[float]) -> None:
    found = over_groups(values, list(range(len(values))))
    assert found.mean == pytest.approx(np.mean(values))
    if not math.isnan(found.low):
        assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9


def test_eight_groups_that_all_gain_are_told_apart_and_their_copies_are_no_more() -> None:
    gains = [0.1, 0.2, 0.1, 0.3, 0.1, 0.2, 0.4, 0.1]
    once = over_groups(gains, list("abcdefgh"))
    assert once.p == 2 / 2**8
    assert 0 < once.low < once.mean < once.high
    many = over_groups(np.repeat(gains, 50), list(np.repeat(list("abcdefgh"), 50)))
    assert many.num == 8
    np.testing.assert_allclose([many.low, many.high, many.p], [once.low, once.high, once.p])


def test_too_few_groups_are_refused() -> None:
    found = over_groups([0.1] * 5, list("abcde"))
    assert found.mean == pytest.approx(0.1)
    assert np.isnan([found.p, found.low, found.high]).all()
    assert over_groups([math.nan], ["a"]).num == 0


def test_too_few_runs_are_refused_and_it_is_said() -> None:
    assert over_runs([0.5], test_train_ratio=0.25).mean == 0.5
    assert math.isnan(over_runs([0.5], test_train_ratio=0.25).p)
    assert math.isnan(over_runs([], test_train_ratio=0.25).mean)
    assert runs_note(1, 0.25).startswith("No interval and no test")
    assert "5 runs" in runs_note(5, 0.25)
