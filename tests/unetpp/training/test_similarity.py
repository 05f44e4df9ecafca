from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unetpp.training.similarity import linear_cka


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _u_centred(x: Tensor) -> Tensor:
    """Gram matrix without its diagonal, each entry less the means of its row, column and all."""
    n = len(x)
    gram = x @ x.T
    gram.fill_diagonal_(0)
    rows = gram.sum(1)
    gram = (
        gram - rows[:, None] / (n - 2) - rows[None, :] / (n - 2) + rows.sum() / ((n - 1) * (n - 2))
    )
    return gram.fill_diagonal_(0)


def _gram_form(x: Tensor, y: Tensor) -> float:
    """The cosine of the U-centred Gram matrices, from the definition (n x n)."""
    k, m = _u_centred(x), _u_centred(y)
    return ((k * m).sum() / ((k * k).sum() * (m * m).sum()).sqrt()).item()


def _plain(x: Tensor, y: Tensor) -> float:
    """Kornblith et al. 2019, section 3: |y'x|^2 / (|x'x| |y'y|) of centred features."""
    x, y = x - x.mean(0), y - y.mean(0)
    norm = torch.linalg.matrix_norm
    return (norm(y.T @ x) ** 2 / (norm(x.T @ x) * norm(y.T @ y))).item()


@given(n=st.integers(4, 40), p=st.integers(1, 60), q=st.integers(1, 60), seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_it_is_the_cosine_of_u_centred_gram_matrices_whatever_the_sizes(
    n: int, p: int, q: int, seed: int
):
    x = 3 + _normal(n, p, seed=seed)
    y = x @ _normal(p, q, seed=seed + 1) + _normal(n, q, seed=seed + 2)
    found = linear_cka(x, y)
    assert found == pytest.approx(_gram_form(x, y), abs=1e-9)
    assert -1 - 1e-9 <= found <= 1 + 1e-9


def test_an_example_by_hand():
    # Off the diagonal, x x' holds 1 for the pair (0, 1) and 0 elsewhere; y y' for the pair (2, 3).
    # U-centred (n = 4: rows over 2, the whole over 6): with K = 1 at (0, 1), the rows sum to
    # 1, 1, 0, 0 and all to 2, so (0, 1) becomes 1 - 1/2 - 1/2 + 1/3 = 1/3, (2, 3) becomes 1/3 and
    # the four others 0 - 1/2 + 1/3 = -1/6. The same for y: the cosine is 1.
    x = torch.tensor([[1.0], [1.0], [0.0], [0.0]])
    y = torch.tensor([[0.0], [0.0], [1.0], [1.0]])
    assert linear_cka(x, y) == pytest.approx(1)
    # z parts (0, 2) from (1, 3): 1/3 at (0, 2) and (1, 3), -1/6 elsewhere. Products with x:
    # 2 x (1/3)(-1/6) twice, and (1/6)^2 at the two pairs left; over 2 x 1/9 + 4 x 1/36 = 1/3.
    z = torch.tensor([[1.0], [0.0], [1.0], [0.0]])
    assert linear_cka(x, z) == pytest.approx((4 * (1 / 3) * (-1 / 6) + 2 / 36) / (1 / 3))
    assert linear_cka(x, z) == pytest.approx(-1 / 2)


@pytest.mark.parametrize("features", [3, 80])
def test_the_same_features_give_one_however_turned_shifted_or_scaled(features: int):
    x = _normal(50, features)
    turn = torch.linalg.qr(_normal(features, features, seed=1)).Q
    assert linear_cka(x, x) == pytest.approx(1, abs=1e-12)
    assert linear_cka(x, -7 * x @ turn + _normal(features, seed=2)) == pytest.approx(1, abs=1e-9)
    y = _normal(50, 9, seed=3) + x[:, :1]
    assert linear_cka(-7 * x @ turn, y) == pytest.approx(linear_cka(x, y), abs=1e-12)
    assert linear_cka(y, x) == pytest.approx(linear_cka(x, y), abs=1e-12)
    # Not under any linear map: one feature made large is another representation.
    stretched = x * torch.tensor([100.0] + [1.0] * (features - 1))
    assert linear_cka(x, stretched) < 0.9


def test_the_order_of_examples_does_not_matter_but_their_pairing_does():
    x = _normal(200, 5)
    y = x + 0.3 * _normal(200, 5, seed=1)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    assert linear_cka(x[order], y[order]) == pytest.approx(linear_cka(x, y), abs=1e-12)
    assert linear_cka(x, y) > 0.8
    assert abs(linear_cka(x, y[order])) < 0.1


def test_independent_features_give_about_zero_where_the_plain_index_does_not():
    pairs = [(_normal(200, 100, seed=k), _normal(200, 100, seed=100 + k)) for k in range(10)]
    plain = [_plain(x, y) for x, y in pairs]
    debiased = [linear_cka(x, y) for x, y in pairs]
    assert sum(plain) / 10 == pytest.approx(100 / (200 + 100), abs=0.02)
    assert abs(sum(debiased) / 10) < 0.01
    assert max(map(abs, debiased)) < 0.05


def test_with_many_examples_it_is_the_plain_index():
    x = _normal(5000, 4)
    y = x @ _normal(4, 6, seed=1) + _normal(5000, 6, seed=2)
    assert linear_cka(x, y) == pytest.approx(_plain(x, y), abs=1e-3)


def test_an_offset_that_single_precision_holds_costs_nothing():
    x = torch.randint(-50, 50, (300, 6), generator=torch.Generator().manual_seed(0)).float()
    y = x[:, :3] + torch.randint(-9, 9, (300, 3), generator=torch.Generator().manual_seed(1))
    assert linear_cka(x + 2**20, y) == pytest.approx(linear_cka(x, y), abs=1e-12)


@pytest.mark.parametrize("constant", [0.0, 0.1, -3e7])
@pytest.mark.parametrize("features", [2, 30])
def test_features_that_do_not_vary_have_no_similarity(constant: float, features: int):
    x = _normal(20, 4).float()
    flat = torch.full((20, features), constant)
    assert math.isnan(linear_cka(x, flat))
    assert math.isnan(linear_cka(flat, x))
    assert math.isnan(linear_cka(flat, flat))


def test_what_varies_in_one_example_alone_has_no_similarity():
    single = torch.zeros(20, 3)
    single[7] = torch.tensor([0.3, 1.7, 2.9])
    assert math.isnan(linear_cka(_normal(20, 4), single))


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_fewer_than_four_examples_are_too_few(n: int):
    assert math.isnan(linear_cka(_normal(n, 2), _normal(n, 2)))
