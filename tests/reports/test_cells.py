import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.cells import count, decimals, difference, memory, number, places, share


def test_best_and_second_are_marked_and_equal_ones_share_a_place() -> None:
    assert places([0.8, 0.9, math.nan, 0.9, 0.7]) == [2, 1, 0, 1, 0]
    assert places([0.8, 0.9, math.nan, 0.9, 0.7], better="lower") == [2, 0, 0, 0, 1]


def test_rounding_errors_break_no_tie() -> None:
    assert places([0.1 + 0.2, 0.3, 0.1]) == [1, 1, 2]


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [math.nan, 0.5], [math.nan, math.nan], []])
def test_nobody_is_best_where_nobody_is_beaten(values: list[float]) -> None:
    assert places(values) == [0] * len(values)


def test_means_over_other_runs_have_no_place() -> None:
    assert places([0.8, 0.9], ranked=False) == [0, 0]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_the_marked_best_is_the_largest(values: list[float]) -> None:
    ranks = places(values)
    assert all(
        v == pytest.approx(max(values)) for v, r in zip(values, ranks, strict=True) if r == 1
    )


@pytest.mark.parametrize(
    ("half", "digits"), [(30.0, 1), (0.4, 1), (0.04, 2), (0.004, 3), (1e-9, 3), (0.0, 1)]
)
def test_the_interval_decides_the_decimals(half: float, digits: int) -> None:
    assert decimals([half, math.nan, half], least=1, most=3) == digits


def test_no_interval_gives_the_least_decimals() -> None:
    assert decimals([math.nan], least=2, most=4) == 2
    assert decimals(np.array([]), least=2, most=4) == 2


def test_a_number_prints_its_deviation_or_its_interval() -> None:
    assert (number(0.91234, 3, sd=0.0126).text, number(0.91234, 3, sd=0.0126).spread) == (
        "0.912",
        "± 0.013",
    )
    assert number(0.9, 2, limits=(0.85, 0.95)).spread == "[0.85, 0.95]"
    assert number(0.9, 2, limits=(math.nan, math.nan)).spread == ""
    assert number(math.nan, 2, sd=0.1).text == "n/a"


def test_a_difference_prints_signs_and_is_cut_where_none_can_lie() -> None:
    cell = difference(0.012, 3, limits=(-3.9, 0.03), bound=1)
    assert (cell.text, cell.spread, cell.value) == ("+0.012", "[-1.000, +0.030]", 0.012)
    assert difference(0.012, 3, limits=(math.nan, math.nan), bound=1).spread == ""


def test_memory_knows_its_unit_and_that_zero_is_unknown() -> None:
    assert memory(3 * 2**30).text == "3.00 GiB"
    assert memory(5 * 2**20).text == "5.0 MiB"
    assert memory(0).text == memory(math.nan).text == "n/a"


def test_counts_and_shares() -> None:
    assert (count(12345.0).text, count(math.nan).text) == ("12,345", "n/a")
    assert (share(0.4375).text, share(math.nan).text) == ("43.8 %", "n/a")
