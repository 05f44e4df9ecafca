"""What a network costs: parameters, multiply-accumulates, training memory, milliseconds.

Shapes: B batch, C channels, *S the axes of an image (height, width) or of a volume.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unetpp.models import fused
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.recipe import TrainRecipe
from unetpp.spec import GridSpec

_WARM_UP = 10
# Batches at which saved activations are measured; a norm needs more than one value a channel.
_FEW, _MORE = 2, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What is known of a network before it is trained.

    Attributes:
        parameters: trainable, see `count_trainable`.
        macs: of one case, see `count_macs`.
        training_memory: bytes, see `training_memory`.
    """

    parameters: int
    macs: int
    training_memory: int


def costs_of(
    spec: GridSpec, recipe: TrainRecipe, shape: tuple[int, ...], *, device: str = "cpu"
) -> Costs:
    """Costs of a network that is not there yet: it is built untrained and run on few cases.

    Args:
        spec: of the network.
        recipe: of its training.
        shape: *S of what it sees in a step.
        device: on which it would be trained.
    """
    with torch.random.fork_rng():
        model = UNetPlusPlus(spec).to(device)
    return Costs(
        parameters=count_trainable(model),
        macs=count_macs(model, in_channels=spec.in_channels, shape=shape),
        training_memory=training_memory(model, recipe, shape=shape),
    )


def training_memory(model: UNetPlusPlus, recipe: TrainRecipe, *, shape: tuple[int, ...]) -> int:
    """Bytes that one training step must hold: weights and what forward keeps for backward.

    Weights come with their gradient and Adam's two moments; what is kept is measured on small
    batches and grows in proportion to them. Workspaces of kernels, the loss and what an allocator
    wastes are not in it: a GPU needs more.

    Args:
        model: on the device that trains, in any mode; its statistics stay as they are.
        recipe: its batch size, its precision, and whether it freezes the encoder.
        shape: *S.
    """
    frozen = model.encoder if recipe.encoder_rate == 0 else None
    held = set[int]() if frozen is None else {id(p) for p in frozen.parameters()}
    states = sum(
        p.numel() * p.element_size() * (1 if id(p) in held else 4) for p in model.parameters()
    )
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    few, more = (_kept_for_backward(model, recipe, (b, *shape)) for b in (_FEW, _MORE))
    per_case = more - few
    return states + buffers + few + per_case * (recipe.batch_size - _FEW)


def _kept_for_backward(
    model: UNetPlusPlus, recipe: TrainRecipe, batch_and_shape: tuple[int, ...]
) -> int:
    """Bytes of the memories, each once, that a forward pass saves beside the parameters."""
    batch, *shape = batch_and_shape
    device = next(model.parameters()).device
    layout = torch.channels_last if len(shape) == 2 else torch.contiguous_format
    image = torch.zeros(batch, model.spec.in_channels, *shape, device=device)
    image = image.contiguous(memory_format=layout)
    # A copy: a pass in training mode moves the statistics of norms.
    copied = copy.deepcopy(model).train().to(memory_format=layout)
    if recipe.encoder_rate == 0 and copied.encoder is not None:
        copied.encoder.requires_grad_(requires_grad=False)
    own = {value.untyped_storage().data_ptr() for value in copied.parameters()}
    saved: dict[int, tuple[int, torch.Tensor]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        memory = tensor.untyped_storage()
        if memory.data_ptr() not in own:
            # The tensor is held, so that its address is nobody else's.
            saved[memory.data_ptr()] = (memory.nbytes(), tensor)
        return tensor

    bf16 = recipe.precision == "bf16"
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        heads = copied.heads(image)
    logits = {h.untyped_storage().data_ptr(): h.untyped_storage().nbytes() for h in heads.values()}
    return sum(logits.values()) + sum(n for key, (n, _) in saved.items() if key not in logits)


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
