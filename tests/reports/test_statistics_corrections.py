import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.statistics import holm


def test_holm_reproduces_the_published_comparison_with_a_control() -> None:
    # Demsar (2006), section 3.2: z = 2.416, 2.342, 0.512.
    p = [0.0157, 0.0192, 0.608]
    assert holm(p) == pytest.approx([0.0471, 0.0471, 0.608], abs=1e-12)
    assert [value < 0.05 for value in holm(p)] == [True, True, False]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_raw_p_and_bonferroni_and_keeps_the_order(p: list[float]) -> None:
    adjusted = holm(p)
    for raw, value in zip(p, adjusted, strict=True):
        assert raw <= value <= min(1, len(p) * raw) + 1e-12
    assert sorted(range(len(p)), key=lambda k: (p[k], k)) == sorted(
        range(len(p)), key=lambda k: (adjusted[k], p[k], k)
    )


def test_holm_does_not_count_what_could_not_be_tested() -> None:
    adjusted = holm([math.nan, 0.02, 0.04])
    assert math.isnan(adjusted[0])
    assert adjusted[1:] == pytest.approx([0.04, 0.04])


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.randoms())
def test_holm_takes_no_notice_of_the_order_of_the_family(p: list[float], random) -> None:
    order = random.sample(range(len(p)), len(p))
    assert holm([p[k] for k in order]) == [holm(p)[k] for k in order]
