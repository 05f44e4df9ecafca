"""What a training costs, known before it: parameters, multiply-accumulates, memory.

Shapes: B batch, C channels, *S the axes of an image (height, width) or of a volume.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from unetpp.models import fused
from unetpp.models.cost import count_macs, count_trainable
from unetpp.models.timm_models import needs_numbers, on_meta
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.recipe import TrainRecipe
from unetpp.spec import GridSpec
from unetpp.training.device import memory_format
from unetpp.training.optimizer import check_encoder_rate, gradients_as_wanted, to_training_mode

# The weight, its gradient and Adam's two moments.
_COPIES_OF_TRAINED = 4


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
    """Costs of a network that is not there yet; nothing is allocated and nothing computed.

    The exception are the few encoders from timm that do not run without numbers.

    Args:
        spec: of the network; its encoder is not the user's own.
        recipe: of its training.
        shape: *S of what it sees in a step.
        device: on which it would be trained.

    Raises:
        UserError: when the network cannot be trained on such images.
    """
    with _untrained(spec, device) as model:
        return Costs(
            parameters=count_trainable(model),
            macs=count_macs(model, in_channels=spec.in_channels, shape=shape),
            training_memory=_step_memory(model, recipe, shape),
        )


def training_memory(
    spec: GridSpec, recipe: TrainRecipe, *, shape: tuple[int, ...], device: str = "cpu"
) -> int:
    """Bytes that one training step must hold: weights and what forward keeps for backward.

    Trained weights come with their gradient and Adam's two moments; a map that is kept twice
    counts once. Workspaces of kernels, the loss, the gradients of maps and what an allocator
    wastes are not in it: it is what no machine can do without, and a GPU needs more.

    Args:
        spec: of the network; its encoder is not the user's own.
        recipe: its batch size, its precision, and whether it freezes the encoder.
        shape: *S.
        device: on which it would be trained.

    Raises:
        UserError: when the network cannot be trained on such images.
    """
    with _untrained(spec, device) as model:
        return _step_memory(model, recipe, shape)


@contextmanager
def _untrained(spec: GridSpec, device: str) -> Iterator[UNetPlusPlus]:
    """The network as it would lie on the device, but without numbers where that is possible."""
    layout = memory_format(spec.spatial_dims)
    if spec.encoder.name != "plain" and needs_numbers(spec.encoder.name):
        devices = [device] if torch.device(device).type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            yield UNetPlusPlus(spec).to(device).to(memory_format=layout)
        return
    # First on meta: timm asks some numbers of its own there, which an imitation would refuse.
    with on_meta():
        model = UNetPlusPlus(spec).to(memory_format=layout)
    with FakeTensorMode(allow_non_fake_inputs=True), fused.imitated():
        _imitate(model, device)
        yield model


def _imitate(model: nn.Module, device: str) -> None:
    """Give every parameter and buffer the properties that it would have on the device.

    `Module.to` cannot: it swaps such tensors, which those of a graph do not allow.
    """
    made: dict[int, Tensor] = {}
    for module in model.modules():
        for name, value in [
            *module.named_parameters(recurse=False),
            *module.named_buffers(recurse=False),
        ]:
            if id(value) not in made:
                empty = torch.empty_like(value, device=device)
                is_weight = isinstance(value, nn.Parameter)
                made[id(value)] = nn.Parameter(empty, value.requires_grad) if is_weight else empty
            setattr(module, name, made[id(value)])


def _step_memory(model: UNetPlusPlus, recipe: TrainRecipe, shape: tuple[int, ...]) -> int:
    check_encoder_rate(model, recipe)
    with gradients_as_wanted(model, recipe):
        to_training_mode(model, recipe)
        states = sum(
            p.numel() * p.element_size() * (_COPIES_OF_TRAINED if p.requires_grad else 1)
            for p in model.parameters()
        )
        buffers = sum(b.numel() * b.element_size() for b in model.buffers())
        return states + buffers + _kept_for_backward(model, recipe, shape)


def _kept_for_backward(model: UNetPlusPlus, recipe: TrainRecipe, shape: tuple[int, ...]) -> int:
    """Bytes of the memories, each once, that forward saves beside the parameters; with logits."""
    device = next(model.parameters()).device
    image = torch.zeros(recipe.batch_size, model.spec.in_channels, *shape, device=device)
    image = image.contiguous(memory_format=memory_format(len(shape)))
    weights = {fused.memory_of(p) for p in model.parameters()}
    # The tensors are held, so that the name of a memory is nobody else's.
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    bf16 = recipe.precision == "bf16"
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        kept += model.heads(image).values()
    memories = {fused.memory_of(t): t.untyped_storage().nbytes() for t in kept}
    return sum(size for memory, size in memories.items() if memory not in weights)
