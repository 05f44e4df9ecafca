"""An encoder that learns more slowly, or not at all; heads whose weights are learned."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import dataset_of, feed_of
from torch import Tensor

from unetpp.errors import UserError
from unetpp.grid import plain_encoder, unetpp
from unetpp.models.encoders import describe_encoder
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.recipe import TrainRecipe
from unetpp.records import EpochLog
from unetpp.spec import GridSpec
from unetpp.training.loop import train
from unetpp.training.optimizer import encoder_parameters, make_optimizer

_RECIPE = TrainRecipe(epochs=1, batch_size=2, augmentation=None, learning_rate=0.01)
_RESNET = unetpp(describe_encoder("test_resnet", depth=2), in_channels=3, widths=4)


def _trained(spec: GridSpec, recipe: TrainRecipe) -> tuple[dict[str, Tensor], UNetPlusPlus]:
    """The state before, and the network after training."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = UNetPlusPlus(spec)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        images = torch.rand(4, spec.in_channels, 32, 32).numpy()
        feed = feed_of(dataset_of(images, images[:, :1] > 0.5))
        train(model, feed, feed, recipe, seed=0)
    return before, model


def _moved(before: dict[str, Tensor], model: UNetPlusPlus) -> dict[str, float]:
    return {
        name: (value.double() - before[name].double()).abs().sum().item()
        for name, value in model.state_dict().items()
    }


def test_a_frozen_encoder_stays_with_its_statistics_and_belongs_to_the_network():
    moved = _moved(*_trained(_RESNET, replace(_RECIPE, encoder_rate=0)))
    of_encoder = {name: change for name, change in moved.items() if name.startswith("encoder.")}
    assert any("running_mean" in name for name in of_encoder)
    assert set(of_encoder.values()) == {0}
    rest = [change for name, change in moved.items() if name not in of_encoder]
    assert all(change > 0 for change in rest)
    _, model = _trained(_RESNET, replace(_RECIPE, encoder_rate=0))
    assert all(p.requires_grad for p in model.parameters())


def test_a_frozen_encoder_belongs_to_the_network_after_a_training_that_was_stopped():
    model = UNetPlusPlus(_RESNET)
    images = torch.rand(2, 3, 32, 32).numpy()
    feed = feed_of(dataset_of(images, images[:, :1] > 0.5))
    seen: list[bool] = []

    def stop(_: EpochLog) -> None:
        seen.append(any(p.requires_grad for p in encoder_parameters(model)))
        raise InterruptedError

    with pytest.raises(InterruptedError):
        train(model, feed, feed, replace(_RECIPE, encoder_rate=0), seed=0, on_epoch=stop)
    assert seen == [False]
    assert all(p.requires_grad for p in model.parameters())


def test_a_slow_encoder_moves_as_much_less_as_its_rate_says():
    full = _moved(*_trained(_RESNET, replace(_RECIPE, learning_rate=1e-4)))
    slow = _moved(*_trained(_RESNET, replace(_RECIPE, learning_rate=1e-4, encoder_rate=0.1)))
    weights = [n for n in full if n.startswith("encoder.") and n.endswith("conv1.weight")]
    assert weights
    for name in weights:
        # A step of Adam is as long as the rate; two may point to either side.
        assert 0.05 < slow[name] / full[name] < 0.2


def test_a_rate_of_one_trains_like_no_rate():
    whole = make_optimizer(UNetPlusPlus(_RESNET), _RECIPE)
    assert {group["lr"] for group in whole.param_groups} == {_RECIPE.learning_rate}
    model = UNetPlusPlus(_RESNET)
    groups = make_optimizer(model, replace(_RECIPE, encoder_rate=0.5)).param_groups
    assert {group["lr"] for group in groups} == {0.01, 0.005}
    slow = {id(p) for group in groups if group["lr"] == 0.005 for p in group["params"]}
    assert slow == {id(p) for p in encoder_parameters(model)}
    together = [p for group in groups for p in group["params"]]
    assert sorted(map(id, together)) == sorted(map(id, model.parameters()))
    for group in groups:
        assert (group["weight_decay"] > 0) == all(p.ndim > 1 for p in group["params"])


def test_the_levels_of_a_simple_pyramid_are_new_and_learn_at_the_full_rate():
    model = UNetPlusPlus(unetpp(describe_encoder("test_vit", depth=2), in_channels=3, widths=4))
    assert model.encoder is not None
    names = {id(p): name for name, p in model.encoder.named_parameters()}
    slow = {names[id(p)] for p in encoder_parameters(model)}
    new = set(names.values()) - slow
    assert new
    assert all(name.startswith("pyramid.") for name in new)
    assert not any(name.startswith("pyramid.") for name in slow)


def test_the_plain_encoder_has_no_rate_of_its_own():
    with pytest.raises(UserError, match=r"`encoder_rate` must be 1 for the plain .* but got 0\.5"):
        _trained(unetpp(plain_encoder(1, width=2)), replace(_RECIPE, encoder_rate=0.5))


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_a_rate_lies_between_frozen_and_full(rate: float):
    with pytest.raises(UserError, match="`encoder_rate` must lie between 0"):
        replace(_RECIPE, encoder_rate=rate)


def test_learned_weights_of_heads_learn():
    spec = unetpp(plain_encoder(2, width=4), deep_supervision=True, supervision="learned")
    _, model = _trained(spec, _RECIPE)
    assert model.head_log_variances is not None
    assert model.head_log_variances.shape == (2,)
    # The losses are about 1 at the start: s moves towards log L, the same way for both.
    assert (model.head_log_variances != 0).all()


def test_decayed_weights_train_another_network_than_equal_ones():
    equal = unetpp(plain_encoder(2, width=4), deep_supervision=True)
    _, first = _trained(equal, _RECIPE)
    _, second = _trained(replace(equal, supervision="decayed"), _RECIPE)
    name = "head_convs.X_0_1.weight"
    assert not torch.equal(first.state_dict()[name], second.state_dict()[name])
