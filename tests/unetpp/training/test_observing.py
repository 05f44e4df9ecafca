from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import dataset_of, feed_of
from torch import Tensor

from unetpp.grid import plain_encoder, unetpp
from unetpp.models.encoders import describe_encoder
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.recipe import TrainRecipe
from unetpp.records import EpochLog, TraceEntry
from unetpp.spec import GridSpec
from unetpp.training.feed import Feed
from unetpp.training.loop import train
from unetpp.training.observing import GradientFlow, Observer
from unetpp.training.semantic_gap import SemanticGap

_NESTED = unetpp(plain_encoder(2, width=4), deep_supervision=True)
_SHORT = TrainRecipe(epochs=2, batch_size=3)
# Without a held-out look after epoch 3, so that an observer meets the network in training mode.
_LONG = TrainRecipe(epochs=14, batch_size=3)


def _noise(num_cases: int, *shape: int, channels: int = 1) -> Feed:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(num_cases, channels, *shape))
    return feed_of(dataset_of(images, images[:, :1] > 0.5))


def _trained(
    spec: GridSpec, feed: Feed, recipe: TrainRecipe, observers: list[Observer]
) -> tuple[UNetPlusPlus, tuple[EpochLog, ...], Tensor]:
    """The network, its curve, and torch's random state at the end."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = UNetPlusPlus(spec)
        curve = train(model, feed, feed, recipe, seed=0, observers=observers)
        return model, curve, torch.random.get_rng_state()


@pytest.mark.parametrize(
    ("spec", "recipe"),
    [
        (replace(_NESTED, dropout=0.3), _LONG),
        (_NESTED, replace(_LONG, precision="bf16")),
        (replace(_NESTED, supervision="learned", norm="instance"), _LONG),
        (
            unetpp(describe_encoder("resnet18", depth=2), in_channels=1, widths=(3, 4)),
            replace(_LONG, encoder_rate=0.0),
        ),
    ],
    ids=["dropout", "bf16", "learned_instance", "frozen_encoder"],
)
def test_a_training_is_the_same_to_the_bit_whoever_watches(spec: GridSpec, recipe: TrainRecipe):
    feed = _noise(5, 24, 20)
    bare, curve, state = _trained(spec, feed, recipe, [])
    flow = GradientFlow()
    gap = SemanticGap(feed, epochs={1, 3}, seed=0)
    watched, same_curve, same_state = _trained(spec, feed, recipe, [flow, gap])
    assert curve[2].held_out_loss is None
    assert {entry.epoch for entry in flow.entries} == set(range(1, 15))
    assert {entry.epoch for entry in gap.entries} == {1, 3}
    other = watched.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in bare.state_dict().items())
    assert [replace(log, seconds=0) for log in curve] == [
        replace(log, seconds=0) for log in same_curve
    ]
    assert torch.equal(state, same_state)


class _Notes:
    """Writes down the gradients and weights that each step shows, and when it is called."""

    def __init__(self) -> None:
        self.entries: list[TraceEntry] = []
        self.calls: list[Any] = []
        self.steps: list[dict[str, tuple[Tensor, Tensor]]] = []

    def after_backward(self, model: UNetPlusPlus) -> None:
        self.calls.append("step")
        self.steps.append(
            {
                name: (p.grad.clone(), p.detach().clone())
                for name, p in model.named_parameters()
                if p.grad is not None
            }
        )

    def after_epoch(self, model: UNetPlusPlus, epoch: int) -> None:
        self.calls.append(epoch)


def test_an_observer_sees_every_step_before_the_weights_change_and_every_epoch():
    notes = _Notes()
    model, _, _ = _trained(_NESTED, _noise(5, 16, 16), _SHORT, [notes])
    assert notes.calls == ["step", "step", 1, "step", "step", 2]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        untrained = UNetPlusPlus(_NESTED)
    first = notes.steps[0]
    assert first.keys() == dict(untrained.named_parameters()).keys()
    assert all(torch.equal(first[name][1], p) for name, p in untrained.named_parameters())
    last = notes.steps[-1]
    assert not any(torch.equal(last[n][1], p) for n, p in model.named_parameters() if "edges" in n)


def test_the_flow_is_the_mean_over_steps_of_the_norms_of_each_nodes_gradient():
    notes, flow = _Notes(), GradientFlow()
    _trained(_NESTED, _noise(5, 16, 16), _SHORT, [notes, flow])
    places = ["X_0_0", "X_1_0", "X_2_0", "X_0_1", "X_1_1", "X_0_2"]
    expected = []
    for epoch, steps in ((1, notes.steps[:2]), (2, notes.steps[2:])):
        for quantity in ("gradient_norm", "relative_gradient_norm"):
            for place in places:
                values = []
                for step in steps:
                    of_node = [v for n, v in step.items() if n.startswith(f"nodes.{place}.")]
                    norm, size = (
                        math.sqrt(sum(float(v[k].double().square().sum()) for v in of_node))
                        for k in (0, 1)
                    )
                    values.append(norm if quantity == "gradient_norm" else norm / size)
                expected.append((epoch, quantity, place, sum(values) / len(values)))
    assert len(flow.entries) == len(expected)
    for entry, (epoch, quantity, place, value) in zip(flow.entries, expected, strict=True):
        assert (entry.epoch, entry.quantity, entry.place) == (epoch, quantity, place)
        assert entry.value == pytest.approx(value, rel=1e-5)
        assert entry.value > 0


@pytest.mark.parametrize("rate", [1.0, 0.0])
def test_an_encoder_from_timm_is_one_place_unless_it_is_frozen(rate: float):
    spec = unetpp(describe_encoder("resnet18", depth=2), in_channels=1, widths=(3, 4))
    flow = GradientFlow()
    recipe = replace(_SHORT, epochs=1, encoder_rate=rate)
    _trained(spec, _noise(3, 32, 32), recipe, [flow])
    places = {entry.place for entry in flow.entries}
    assert places - {"encoder"} == {"X_0_1", "X_1_1", "X_0_2"}
    assert ("encoder" in places) == (rate > 0)


def test_a_step_without_a_finite_gradient_leaves_its_epoch_out():
    model = UNetPlusPlus(_NESTED)
    flow = GradientFlow()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    flow.after_backward(model)
    flow.after_epoch(model, 1)
    model.nodes["X_1_1"].get_parameter("conv2.weight").grad = torch.full((8, 8, 3, 3), math.inf)
    flow.after_backward(model)
    flow.after_epoch(model, 2)
    by_epoch = [{e.place for e in flow.entries if e.epoch == epoch} for epoch in (1, 2)]
    assert by_epoch[0] - by_epoch[1] == {"X_1_1"}
    norms = {e.place: e.value for e in flow.entries if e.quantity == "gradient_norm"}
    count = sum(p.numel() for p in model.nodes["X_0_2"].parameters())
    assert norms["X_0_2"] == pytest.approx(math.sqrt(count))
