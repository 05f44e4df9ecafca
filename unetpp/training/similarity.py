"""How alike two representations of the same examples are: linear CKA.

Kornblith, Norouzi, Lee, Hinton, "Similarity of Neural Network Representations Revisited", ICML
2019. Their index is biased: for independent Gaussian features it is about p / (n + p) with n
examples and p features each, so that wide layers look alike wherever examples are few, which is
to say on the deep levels of a grid. Here it is made of the unbiased estimate of HSIC instead
(Song, Smola, Gretton, Bedo, Borgwardt, JMLR 13, 2012, eq. 4), as Nguyen, Raghu and Kornblith do
(ICLR 2021): it is about 0 for independent features of any width and may be slightly negative. The
two agree as n / p grows.

Shapes: N examples, P and Q features.
"""

from __future__ import annotations

import math

from torch import Tensor

# The estimate divides by n (n - 3).
_LEAST_EXAMPLES = 4
# Share of the squared norm of a Gram matrix below which what is left off its diagonal is rounding.
_ROUNDING = 1e-12


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Debiased linear CKA: the cosine of the two U-centred Gram matrices.

    It does not change when features are rotated or reflected, shifted, or all scaled by one
    number, nor with the order of examples; it does under other linear maps.

    Args:
        x: [N, P], any real precision, on any device; computed in float64.
        y: [N, Q], the same examples in the same order.

    Returns:
        In [-1, 1], up to rounding; 1 for the same features, about 0 for independent ones. NaN
        with fewer than four examples, and where the features of either side do not vary, or do so
        in one example alone: such a side has no direction.
    """
    assert x.ndim == y.ndim == 2
    assert len(x) == len(y)
    if len(x) < _LEAST_EXAMPLES:
        return math.nan
    x, y = _centred(x), _centred(y)
    energies = [_hsic(z, z) for z in (x, y)]
    for energy, z in zip(energies, (x, y), strict=True):
        if not energy > _ROUNDING * _product(z, z):
            return math.nan
    return (_hsic(x, y) / (energies[0] * energies[1]).sqrt()).item()


def _centred(x: Tensor) -> Tensor:
    # Float64 is unknown to Apple's devices.
    x = (x.cpu() if x.device.type == "mps" else x).double()
    # Off the first example before the mean: what is constant becomes 0, not what rounding leaves.
    x = x - x[:1]
    return x - x.mean(dim=0)


def _hsic(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased HSIC, times n (n - 3), of centred features under linear kernels.

    With centred features every row of a Gram matrix sums to 0, and without its diagonal to minus
    that diagonal, so that the three terms of the estimate follow from the diagonals.
    """
    n = len(x)
    of_x, of_y = x.square().sum(1), y.square().sum(1)
    return (
        _product(x, y) - n / (n - 2) * (of_x @ of_y) + of_x.sum() * of_y.sum() / ((n - 1) * (n - 2))
    )


def _product(x: Tensor, y: Tensor) -> Tensor:
    """tr(K L) of the Gram matrices K = x x', L = y y', by the smaller of the two products."""
    if len(x) < max(x.shape[1], y.shape[1]):
        return (x @ x.T * (y @ y.T)).sum()
    return (x.T @ y).square().sum()
