from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import dataset_of, feed_of, randomise
from torch import Tensor

from unetpp.grid import no_skips, plain_encoder, unet, unet3plus, unet_plus, unetpp
from unetpp.models.encoders import describe_encoder
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.spec import GridSpec, Node, NodeInputs
from unetpp.training import semantic_gap
from unetpp.training.feed import Feed
from unetpp.training.semantic_gap import SemanticGap, epochs_to_look_at, semantic_gaps
from unetpp.training.similarity import linear_cka


def _noise(
    num_cases: int, *shape: int, channels: int = 1, patch: tuple[int, ...] | None = None
) -> Feed:
    images = np.random.default_rng(0).normal(size=(num_cases, channels, *shape))
    return feed_of(dataset_of(images, images[:, :1] > 0.5), patch=patch)


def _random(spec: GridSpec) -> UNetPlusPlus:
    model = UNetPlusPlus(spec)
    randomise(model)
    return model


def _rows(maps: list[Tensor]) -> Tensor:
    """[N, C] of every position of maps [1, C, *S]."""
    return torch.cat([x[0].flatten(1).T for x in maps])


def _outputs(model: UNetPlusPlus, feed: Feed) -> dict[str, list[Tensor]]:
    """What the nodes give for every case, by hooks."""
    found: dict[str, list[Tensor]] = {name: [] for name in model.nodes}
    handles = [
        module.register_forward_hook(lambda *args, name=name: found[name].append(args[-1].clone()))
        for name, module in model.nodes.items()
    ]
    with torch.no_grad():
        for k in range(len(feed)):
            model.heads(feed.case(k)[0])
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("up", ["transposed", "nearest"])
@pytest.mark.parametrize("preset", [unet, unetpp])
def test_every_position_of_few_small_cases_gives_the_cka_of_what_the_nodes_give(
    preset: Any, up: Any
):
    # 13 x 10: level 1 has 7 x 5, so that what comes from below is cropped.
    feed = _noise(3, 13, 10)
    model = _random(preset(plain_encoder(2, width=3), up=up)).eval()
    found = semantic_gaps(model, feed, seed=0)
    maps = _outputs(model, feed)
    skips = {(str(s), str(t)) for s, t in model.spec.skips}
    assert {place for _, place in found} == {f"{s}>{t}" for s, t in skips}
    assert len(found) == 2 * len(skips)
    for source, target in skips:
        ends = linear_cka(_rows(maps[source]), _rows(maps[target]))
        assert found["cka_ends", f"{source}>{target}"] == pytest.approx(ends, abs=1e-6)
        level, column = int(target[2]), int(target[4])
        below = [
            x.repeat_interleave(2, 2).repeat_interleave(2, 3)[
                ..., : maps[source][0].shape[2], : maps[source][0].shape[3]
            ]
            for x in maps[f"X_{level + 1}_{column - 1}"]
        ]
        merged = linear_cka(_rows(maps[source]), _rows(below))
        assert found["cka_merged", f"{source}>{target}"] == pytest.approx(merged, abs=1e-6)


def test_with_nearest_neighbours_what_is_compared_is_what_is_merged():
    feed = _noise(2, 12, 12)
    encoder = replace(plain_encoder(1), channels=(3, 4))
    model = _random(unet(encoder, up="nearest")).eval()
    found = semantic_gaps(model, feed, seed=0)
    maps = _outputs(model, feed)
    up = model.nodes["X_0_1"].get_submodule("ups.X_1_0")
    merged = linear_cka(_rows(maps["X_0_0"]), _rows([up(x) for x in maps["X_1_0"]]))
    assert found["cka_merged", "X_0_0>X_0_1"] == pytest.approx(merged, abs=1e-6)


def test_a_sample_comes_near_all_positions_and_follows_from_the_seed(
    monkeypatch: pytest.MonkeyPatch,
):
    feed = _noise(4, 32, 32)
    model = _random(unetpp(plain_encoder(2, width=3)))
    every = semantic_gaps(model, feed, seed=0)
    monkeypatch.setattr(semantic_gap, "_POSITIONS", 2048)
    some, again, other = (semantic_gaps(model, feed, seed=s) for s in (1, 1, 2))
    assert some == again
    assert some != other
    for key, value in every.items():
        assert some[key] == pytest.approx(value, abs=0.08)
    monkeypatch.setattr(semantic_gap, "_CASES", 2)
    fewer, others = (semantic_gaps(model, feed, seed=s) for s in (0, 1))
    assert fewer != others


def test_all_layers_of_a_level_are_compared_at_the_same_positions(monkeypatch: pytest.MonkeyPatch):
    # A node whose block is the identity in effect: its output is its source, at any sample.
    monkeypatch.setattr(semantic_gap, "_POSITIONS", 100)
    model = _random(unetpp(plain_encoder(2, width=4), norm="none", block="single_conv"))
    node = model.nodes["X_0_2"]
    with torch.no_grad():
        for p in node.parameters():
            p.zero_()
        node.get_parameter("edges.X_0_1.weight")[:, :, 1, 1] = torch.eye(4)
    found = semantic_gaps(model, _noise(4, 32, 32), seed=0)
    assert found["cka_ends", "X_0_1>X_0_2"] == pytest.approx(1, abs=1e-9)


def test_levels_without_a_long_skip_have_their_ends_compared_all_the_same():
    feed = _noise(3, 16, 16)
    plus = _random(unet_plus(plain_encoder(2, width=3)))
    assert set(semantic_gaps(plus, feed, seed=0)) == {
        ("cka_merged", "X_0_0>X_0_1"),
        ("cka_ends", "X_0_0>X_0_1"),
        ("cka_merged", "X_1_0>X_1_1"),
        ("cka_ends", "X_1_0>X_1_1"),
        ("cka_merged", "X_0_1>X_0_2"),
        ("cka_ends", "X_0_1>X_0_2"),
        ("cka_ends", "X_0_0>X_0_2"),
    }
    bare = _random(no_skips(plain_encoder(2, width=3)))
    found = semantic_gaps(bare, feed, seed=0)
    assert set(found) == {("cka_ends", "X_0_0>X_0_2"), ("cka_ends", "X_1_0>X_1_1")}


def test_a_node_that_reads_nothing_from_below_merges_with_nothing():
    spec = GridSpec(
        encoder=plain_encoder(2, width=3),
        widths=(3, 6),
        inputs=(
            NodeInputs(Node(0, 1), (Node(0, 0), Node(1, 0), Node(2, 0))),
            NodeInputs(Node(0, 2), (Node(0, 0), Node(0, 1))),
        ),
        heads=(2,),
    )
    found = semantic_gaps(_random(spec), _noise(3, 16, 16), seed=0)
    assert ("cka_merged", "X_0_0>X_0_1") in found
    assert ("cka_merged", "X_0_1>X_0_2") not in found


@pytest.mark.parametrize(
    "spec",
    [
        unetpp(describe_encoder("resnet18", depth=3), in_channels=1, widths=(2, 3, 4)),
        unet(describe_encoder("convnext_atto", depth=2), in_channels=1, widths=(2, 3)),
        unetpp(plain_encoder(2, width=2), spatial_dims=3, up="bilinear"),
        unet3plus(plain_encoder(3, width=2), projection=2),
        unetpp(plain_encoder(2, width=2), merge="sum", gate="attention", up="pixel_shuffle"),
        unetpp(plain_encoder(2, width=2), norm="group", gate="scse"),
    ],
    ids=["resnet18", "convnext", "volumes", "unet3plus", "attention", "scse"],
)
def test_any_network_has_a_value_for_every_skip(spec: GridSpec):
    shape = (33, 47) if spec.spatial_dims == 2 else (9, 12, 10)
    model = UNetPlusPlus(spec)
    found = semantic_gaps(model, _noise(4, *shape), seed=0)
    for source, target in spec.skips:
        for quantity in ("cka_merged", "cka_ends"):
            assert -1 <= found[quantity, f"{source}>{target}"] <= 1 + 1e-9


def test_patches_are_cut_from_the_middle():
    whole = _noise(3, 12, 20)
    patched = feed_of(whole.dataset, patch=(16, 8))
    model = _random(unetpp(plain_encoder(1, width=3)))
    assert semantic_gaps(model, patched, seed=0) != semantic_gaps(model, whole, seed=0)
    # Along the first axis the case is smaller than the patch.
    middle = semantic_gap._middle(patched.case(0)[0], (16, 8))
    assert torch.equal(middle, whole.case(0)[0][..., 6:14])


def test_modes_come_back_one_by_one():
    model = UNetPlusPlus(unetpp(plain_encoder(1, width=2)))
    model.train()
    model.nodes["X_0_0"].eval()
    before = {name: module.training for name, module in model.named_modules()}
    statistics = model.state_dict()["nodes.X_0_1.norm1.running_mean"].clone()
    semantic_gaps(model, _noise(2, 8, 8), seed=0)
    assert {name: module.training for name, module in model.named_modules()} == before
    assert torch.equal(model.state_dict()["nodes.X_0_1.norm1.running_mean"], statistics)


def test_an_observer_looks_in_its_epochs_and_leaves_out_what_is_not_defined():
    model = UNetPlusPlus(unetpp(plain_encoder(2, width=2)))
    with torch.no_grad():  # nothing comes out of this node
        model.nodes["X_1_0"].get_parameter("norm2.weight").zero_()
    gap = SemanticGap(_noise(3, 16, 16), epochs=(2, 5), seed=0)
    for epoch in range(1, 6):
        gap.after_backward(model)
        gap.after_epoch(model, epoch)
    assert sorted({entry.epoch for entry in gap.entries}) == [2, 5]
    first = [(e.quantity, e.place, e.value) for e in gap.entries if e.epoch == 2]
    assert first == [(e.quantity, e.place, e.value) for e in gap.entries if e.epoch == 5]
    found = semantic_gaps(model, _noise(3, 16, 16), seed=0)
    undefined = {key for key, value in found.items() if not np.isfinite(value)}
    assert {"X_1_0>X_1_1", "X_0_0>X_0_1"} == {place for _, place in undefined}
    assert {(quantity, place) for quantity, place, _ in first} == set(found) - undefined


def test_the_first_epoch_the_last_and_about_seven_between_are_looked_at():
    assert sorted(epochs_to_look_at(1)) == [1]
    assert sorted(epochs_to_look_at(3)) == [1, 2, 3]
    assert sorted(epochs_to_look_at(40)) == [1, 5, 10, 15, 20, 25, 30, 35, 40]
    assert sorted(epochs_to_look_at(30)) == [1, 4, 8, 12, 15, 19, 23, 27, 30]
