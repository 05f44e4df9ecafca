from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unetpp.data.streams import Purpose, epoch_order, sample_generator, uniforms

_SEEDS = st.integers(0, 2**64 - 1)
_CASES = st.lists(st.integers(0, 2**62), min_size=1, max_size=6)


@given(_SEEDS, st.integers(0, 10**6), _CASES, st.integers(1, 9))
def test_a_row_depends_on_its_own_case_alone(seed: int, epoch: int, cases: list[int], count: int):
    rows = uniforms(seed, epoch, np.array(cases), count, purpose="change")
    assert rows.shape == (len(cases), count)
    assert ((rows >= 0) & (rows < 1)).all()
    for case, row in zip(cases, rows, strict=True):
        alone = uniforms(seed, epoch, np.array([case]), count + 3, purpose="change")
        assert np.array_equal(alone[0, :count], row)


def test_seed_epoch_case_and_purpose_each_make_other_numbers():
    keys: list[tuple[int, int, int, Purpose]] = [
        (seed, epoch, case, purpose)
        for seed in (0, 1)
        for epoch in (0, 1)
        for case in (0, 1)
        for purpose in ("order", "patch", "change", "field")
    ]
    drawn = [uniforms(s, e, np.array([c]), 4, purpose=p) for s, e, c, p in keys]
    assert len({row.tobytes() for row in drawn}) == len(keys)


def test_the_numbers_stay_what_they_were():
    """A changed stream would be another training under the same id."""
    assert uniforms(1, 2, np.array([3]), 2, purpose="patch")[0] == pytest.approx(
        [0.4045620918371926, 0.42931619503142393], abs=1e-15
    )
    assert epoch_order(1, 2, 8).tolist() == [4, 2, 0, 6, 1, 5, 7, 3]


def test_numbers_are_spread_evenly_and_cases_are_not_alike():
    rows = uniforms(5, 0, np.arange(4000), 4, purpose="change")
    for column in rows.T:
        counts = np.histogram(column, bins=10, range=(0, 1))[0]
        assert np.square(counts - 400).sum() / 400 < 30  # chi-square of 9 degrees: p = 0.0004
    neighbours = np.corrcoef(rows[:-1, 0], rows[1:, 0])[0, 1]
    assert abs(neighbours) < 0.06
    assert np.abs(np.corrcoef(rows.T) - np.eye(4)).max() < 0.06


@given(_SEEDS, st.integers(0, 1000), st.integers(0, 50))
def test_an_order_holds_every_position_once_and_is_drawn_again(seed: int, epoch: int, num: int):
    order = epoch_order(seed, epoch, num)
    assert sorted(order.tolist()) == list(range(num))
    assert np.array_equal(order, epoch_order(seed, epoch, num))


def test_every_epoch_and_seed_has_another_order():
    orders = {tuple(epoch_order(seed, epoch, 20)) for seed in range(5) for epoch in range(20)}
    assert len(orders) == 100
    firsts = [epoch_order(0, epoch, 4)[0] for epoch in range(400)]
    assert min(np.bincount(firsts, minlength=4)) > 70  # of 100 each


def test_a_generator_depends_on_its_case_alone_and_leaves_the_global_one():
    state = torch.get_rng_state()
    first, again, other = (
        torch.randn(5, generator=sample_generator(2**63, 3, case, "cpu")) for case in (7, 7, 8)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
