from __future__ import annotations

import pytest
import torch
from torch import nn

from unetpp.budget import count_parameters
from unetpp.grid import plain_encoder, unet, unetpp
from unetpp.models.cost import count_macs, count_trainable, measure_latency
from unetpp.models.unetpp import UNetPlusPlus


def _unet_macs(*, depth: int, width: int, in_channels: int, height: int, size: int) -> int:
    """By hand: 9 a b per pixel for a 3x3 convolution, 4 a b per *input* pixel for an up-sampling."""
    w = [width * 2**i for i in range(depth + 1)]
    pixels = [(height >> i) * (size >> i) for i in range(depth + 1)]
    incoming = [in_channels, *w]
    down = sum(9 * pixels[i] * (incoming[i] * w[i] + w[i] * w[i]) for i in range(depth + 1))
    up = sum(
        4 * pixels[i + 1] * w[i + 1] * w[i] + 9 * pixels[i] * (2 * w[i] * w[i] + w[i] * w[i])
        for i in range(depth)
    )
    return down + up + pixels[0] * w[0]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_macs_of_a_unet_in_closed_form(depth: int):
    model = UNetPlusPlus(unet(plain_encoder(depth, width=4), in_channels=3))
    found = count_macs(model, in_channels=3, shape=(32, 16))
    assert found == _unet_macs(depth=depth, width=4, in_channels=3, height=32, size=16)


def test_counting_leaves_mode_and_statistics_alone():
    model = UNetPlusPlus(unetpp(plain_encoder(1, width=2)))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    count_macs(model, in_channels=1, shape=(8, 8))
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_only_trainable_parameters_are_counted():
    spec = unetpp(plain_encoder(2, width=4))
    model = UNetPlusPlus(spec)
    assert count_trainable(model) == count_parameters(spec)
    model.nodes["X_2_0"].requires_grad_(False)
    deepest = 9 * 8 * 16 + 9 * 16 * 16 + 2 * 16 + 4 * 16
    assert count_trainable(model) == count_parameters(spec) - deepest


class _Counting(nn.Module):
    def __init__(self, log: list[str], name: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        self.log, self.name = log, name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.log.append(self.name)
        return self.conv(x)


def test_latency_takes_one_median_a_round_in_interleaved_order():
    log: list[str] = []
    rounds: list[int] = []
    networks = {name: _Counting(log, name) for name in "abc"}
    times = measure_latency(
        networks, shape=(1, 1, 4, 4), rounds=6, calls=3, seed=0, on_round=rounds.append
    )
    assert rounds == [1, 2, 3, 4, 5, 6]
    assert list(times) == ["a", "b", "c"]
    assert all(len(medians) == 6 and min(medians) > 0 for medians in times.values())
    warm_up, timed = log[:30], log[30:]
    assert warm_up == ["a"] * 10 + ["b"] * 10 + ["c"] * 10
    orders = [tuple(timed[k : k + 9 : 3]) for k in range(0, 54, 9)]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len(set(orders)) > 1
    assert not any(network.training for network in networks.values())
