"""What a network costs: parameters, multiply-accumulates, milliseconds.

Shapes: B batch, C channels, *S the axes of an image (height, width) or of a volume.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unetpp.models import fused

_WARM_UP = 10


def count_trainable(model: nn.Module) -> int:
    """Trainable parameters, the encoder's included."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_macs(model: nn.Module, *, in_channels: int, shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of one forward pass on one case, convolutions and matrix products.

    Counted by torch's own `FlopCounterMode` while the network runs; a multiply-accumulate is two
    of its floating-point operations. Norms, activations and interpolation are not counted, and
    layers that the CPU may join (`unetpp.models.fused`) count as the description has them.

    Args:
        model: of two or three spatial dimensions.
        in_channels: C.
        shape: *S.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    with torch.no_grad(), fused.disabled(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, in_channels, *shape, device=device))
    model.train(training)
    return counter.get_total_flops() // 2


def measure_latency(
    networks: Mapping[str, nn.Module],
    *,
    shape: tuple[int, ...],
    rounds: int,
    calls: int,
    seed: int,
    on_round: Callable[[int], None] | None = None,
) -> dict[str, list[float]]:
    """Milliseconds per call of each network: the median of `calls` calls, once a round.

    In each round every network is timed once, in an order drawn anew, so that a drift of the
    machine meets all alike. Networks are put into evaluation mode, in fp32 and, for images, channels_last; the
    input lies on the device already. Ten calls warm each network up; an accelerator is
    synchronised around each call.

    Args:
        networks: stand-alone networks, all on one device.
        shape: [B, C, *S] of the input.
        rounds: how many medians are returned per network.
        calls: calls in a round.
        seed: of the order.
        on_round: called with the number of finished rounds.
    """
    device = next(next(iter(networks.values())).parameters()).device
    layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    image = torch.zeros(shape, device=device).contiguous(memory_format=layout)
    ready = {name: network.eval().to(memory_format=layout) for name, network in networks.items()}
    generator = np.random.default_rng(seed)
    times: dict[str, list[float]] = {name: [] for name in ready}
    with torch.inference_mode():
        for network in ready.values():
            for _ in range(_WARM_UP):
                network(image)
        for done in range(1, rounds + 1):
            for name in generator.permutation(list(ready)):
                times[str(name)].append(
                    statistics.median(_milliseconds(ready[str(name)], image) for _ in range(calls))
                )
            if on_round is not None:
                on_round(done)
    return times


def _milliseconds(network: nn.Module, image: torch.Tensor) -> float:
    _wait(image.device)
    begin = time.perf_counter()
    network(image)
    _wait(image.device)
    return 1e3 * (time.perf_counter() - begin)


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
