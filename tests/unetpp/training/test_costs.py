"""Costs are foreseen without numbers; here they are compared with those of real training steps."""

from __future__ import annotations

import math
import resource
from dataclasses import replace

import pytest
import torch
from helpers import dataset_of, feed_of
from torch import Tensor

from unetpp.errors import UserError
from unetpp.grid import plain_encoder, unet, unet3plus, unetpp
from unetpp.models.cost import count_macs, count_trainable
from unetpp.models.encoders import describe_encoder
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.recipe import TrainRecipe
from unetpp.spec import GridSpec
from unetpp.training.costs import costs_of, training_memory
from unetpp.training.loop import train
from unetpp.training.optimizer import encoder_parameters

_ENCODER = plain_encoder(3, width=4)
_SPECS = {
    "unet": unet(_ENCODER),
    "unetpp": unetpp(_ENCODER, deep_supervision=True),
    "residual": unetpp(_ENCODER, block="residual", up="bilinear"),
    "nearest": unetpp(_ENCODER, up="nearest", supervision="equal"),
    "pixel_shuffle": unetpp(_ENCODER, up="pixel_shuffle", gate="scse"),
    "convnext": unetpp(_ENCODER, block="convnext", norm="group", activation="gelu"),
    "instance": unetpp(_ENCODER, norm="instance", activation="leaky_relu"),
    "dropout": unetpp(_ENCODER, dropout=0.2, gate="attention"),
    "unet3plus": unet3plus(_ENCODER, projection=4),
    "volume": unetpp(plain_encoder(2, width=4), spatial_dims=3, norm="instance"),
    "resnet18": unetpp(describe_encoder("resnet18", depth=2), in_channels=3, widths=8),
    # Its drop path draws, and its norm is another than the grid's.
    "convnext_atto": unetpp(describe_encoder("convnext_atto", depth=2), in_channels=3, widths=8),
}
_RECIPE = TrainRecipe(epochs=1, batch_size=5, augmentation=None)


def _shape(spec: GridSpec) -> tuple[int, ...]:
    return (40, 32) if spec.spatial_dims == 2 else (12, 8, 8)


class _Watched(UNetPlusPlus):
    """Notes what forward of the first step of training leaves in memory, parameters aside."""

    bytes_kept = 0

    def heads(self, image: Tensor) -> dict[int, Tensor]:
        if not self.training or self.bytes_kept:
            return super().heads(image)
        weights = {p.untyped_storage().data_ptr() for p in self.parameters()}
        kept: list[Tensor] = []

        def pack(tensor: Tensor) -> Tensor:
            kept.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            heads = super().heads(image)
        kept += heads.values()
        sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
        self.bytes_kept = sum(n for address, n in sizes.items() if address not in weights)
        return heads


def _held_by_training(spec: GridSpec, recipe: TrainRecipe) -> int:
    """Bytes that a real step of the real loop holds."""
    shape, cases = _shape(spec), recipe.batch_size
    torch.manual_seed(0)
    images, masks = torch.randn(cases, spec.in_channels, *shape), torch.zeros(cases, 1, *shape)
    data = feed_of(dataset_of(images.numpy(), masks.numpy()))
    model = _Watched(spec)
    if spec.spatial_dims == 2:
        model = model.to(memory_format=torch.channels_last)
    train(model, data, data, recipe, seed=0)
    slow = sum(p.nbytes for p in encoder_parameters(model)) if recipe.encoder_rate == 0 else 0
    weights = sum(p.nbytes for p in model.parameters())
    moments = 3 * (weights - slow)
    return model.bytes_kept + weights + moments + sum(b.nbytes for b in model.buffers())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", _SPECS)
def test_the_memory_that_is_foreseen_is_what_a_real_step_holds(name, precision):
    spec, recipe = _SPECS[name], replace(_RECIPE, precision=precision)
    foreseen = training_memory(spec, recipe, shape=_shape(spec))
    assert foreseen == pytest.approx(_held_by_training(spec, recipe), rel=0.01)


@pytest.mark.parametrize("batch_size", [1, 3, 6, 12, 24])
def test_memory_is_right_for_batches_that_choose_other_forms(batch_size):
    # The CPU joins an up-sampling and its convolution from 512 positions on.
    spec = unetpp(_ENCODER, up="nearest")
    recipe = replace(_RECIPE, batch_size=batch_size)
    foreseen = training_memory(spec, recipe, shape=_shape(spec))
    assert foreseen == pytest.approx(_held_by_training(spec, recipe), rel=0.01)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_a_frozen_encoder_holds_its_weights_only_once_but_new_levels_learn(name):
    encoder = describe_encoder(name, depth=1)
    spec = unetpp(encoder, in_channels=3, widths=4)
    recipe = replace(_RECIPE, batch_size=2, encoder_rate=0.0)
    foreseen = training_memory(spec, recipe, shape=_shape(spec))
    assert foreseen == pytest.approx(_held_by_training(spec, recipe), rel=0.01)
    learning = training_memory(spec, replace(recipe, encoder_rate=1.0), shape=_shape(spec))
    frozen_bytes = sum(p.nbytes for p in encoder_parameters(UNetPlusPlus(spec)))
    assert learning - foreseen > 3 * frozen_bytes


def test_the_norms_of_a_frozen_encoder_do_not_learn_and_take_a_single_value():
    recipe = replace(_RECIPE, batch_size=1)
    with pytest.raises(UserError, match=r"a batch norm learns from more than one value a channel"):
        costs_of(_SPECS["resnet18"], recipe, (8, 8))
    costs_of(_SPECS["resnet18"], replace(recipe, encoder_rate=0.0), (8, 8))


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_memory_grows_with_the_batch(device):
    spec = _SPECS["unetpp"]
    found = [
        training_memory(spec, replace(_RECIPE, batch_size=b), shape=(32, 32), device=device)
        for b in (2, 3, 4, 7, 8, 16)
    ]
    assert found == sorted(set(found))


def test_an_accelerator_that_is_not_here_keeps_the_plain_form():
    # A CPU computes some maps again; the smaller number is not promised for a GPU.
    spec = _SPECS["unetpp"]
    cpu, cuda = (
        training_memory(spec, _RECIPE, shape=(64, 64), device=device)
        for device in ("cpu", "cuda:0")
    )
    assert cpu < cuda


@pytest.mark.parametrize("name", _SPECS)
def test_costs_are_those_of_the_real_network_and_draw_no_random_numbers(name):
    spec = _SPECS[name]
    state = torch.random.get_rng_state()
    costs = costs_of(spec, _RECIPE, _shape(spec))
    assert torch.equal(torch.random.get_rng_state(), state)
    model = UNetPlusPlus(spec)
    assert costs.parameters == count_trainable(model)
    assert costs.macs == count_macs(model, in_channels=spec.in_channels, shape=_shape(spec))
    assert costs.training_memory == training_memory(spec, _RECIPE, shape=_shape(spec))


def test_what_no_machine_could_hold_is_priced_without_holding_it():
    spec = unetpp(plain_encoder(4, width=64), deep_supervision=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    costs = costs_of(spec, replace(_RECIPE, batch_size=4096), (1024, 1024))
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert costs.training_memory > 10 * 2**40
    assert grown < 4 * costs.parameters


def test_a_frozen_plain_encoder_and_images_that_are_too_small_are_refused():
    with pytest.raises(UserError, match=r"must be 1 for the plain encoder"):
        costs_of(_SPECS["unet"], replace(_RECIPE, encoder_rate=0.0), (32, 32))
    with pytest.raises(UserError, match=r"needs more than one value a channel"):
        costs_of(_SPECS["unet"], replace(_RECIPE, batch_size=1), (8, 8))
    assert math.isfinite(costs_of(_SPECS["unet"], _RECIPE, (8, 8)).training_memory)
