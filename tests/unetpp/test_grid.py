from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import grid_specs, image_for
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from unetpp.budget import count_grid_macs, count_parameters, wide_unet
from unetpp.errors import UserError
from unetpp.grid import (
    channels,
    head_weights,
    no_skips,
    plain_encoder,
    prune_to_head,
    unet,
    unet3plus,
    unet_e,
    unet_plus,
    unetpp,
    up_ratio,
)
from unetpp.models import fused
from unetpp.models.cost import count_trainable
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.spec import EncoderSpec, GridSpec, Node

_PRESETS = {"unet": unet, "unete": unet_e, "unetp": unet_plus, "unetpp": unetpp}


def _accepted(case: dict[str, Any]) -> GridSpec:
    """The spec of one published count."""
    depth = len(case["filters"]) - 1
    encoder = replace(plain_encoder(depth), channels=tuple(case["filters"]))
    common: dict[str, Any] = {
        "in_channels": case["cin"],
        "classes": case["K"],
        "norm": {"none": "none", "bn": "batch", "batch": "batch"}[case["norm"]],
        "spatial_dims": case["nd"],
    }
    if case["up_filters"] != case["filters"][:-1]:
        # The paper's wide U-Net, 9.13 M: transposed convolutions as narrow as the U-Net's.
        common["up_widths"] = tuple(case["up_filters"])
    family = case["name"].split("_")[0]
    preset = unet if family == "wide" else _PRESETS[family]
    spec = preset(encoder, **common)
    heads = tuple(range(1, depth + 1)) if case["heads"] == "all" else (depth,)
    # A count of UNet^e with one head is of the whole grid, whose shallow nodes then lead nowhere:
    # no network here, so its other heads, 1x1 convolutions with a bias, are taken off by hand.
    return spec if family == "unete" else replace(spec, heads=heads)


@pytest.mark.real_data
def test_every_published_count_to_the_digit():
    folder = Path(os.environ.get("UNETPP_SHARED", "../shared"))
    cases = json.loads((folder / "reference/param_acceptance.json").read_text())
    assert len(cases) == 80
    for case in cases:
        spec = _accepted(case)
        count = count_parameters(spec)
        if case["name"].startswith("unete") and case["heads"] == "last":
            count -= (spec.depth - 1) * (case["filters"][0] + 1) * case["K"]
        assert count == case["params"], case


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        # The first three stand in the authors' code, the others were counted from it.
        (unet(plain_encoder(4), norm="none"), 7_759_521),
        (unetpp(plain_encoder(4), norm="none"), 9_041_601),
        (unet(plain_encoder(4, width=35), norm="none"), 9_282_246),
        (unetpp(plain_encoder(4), norm="none", deep_supervision=True), 9_041_700),
        (unetpp(plain_encoder(4), norm="none", in_channels=3), 9_042_177),
        (unet_plus(plain_encoder(4), norm="none"), 8_728_257),
        (unet_e(plain_encoder(4), norm="none"), 8_728_356),
        (unet(plain_encoder(4)), 7_765_409),
        (unetpp(plain_encoder(4)), 9_048_897),
        (unetpp(plain_encoder(4, width=35), norm="none"), 10_815_876),
    ],
)
def test_published_counts(spec: GridSpec, count: int):
    assert count_parameters(spec) == count


def test_branch_pruning_gives_the_counts_of_the_paper():
    full = unetpp(plain_encoder(4), norm="none", deep_supervision=True)
    counts = [count_parameters(prune_to_head(full, d)) for d in (1, 2, 3, 4)]
    assert counts == [100_961, 511_105, 2_204_961, 9_041_601]


@given(grid_specs())
@settings(max_examples=40, deadline=None)
def test_the_closed_form_is_what_torch_counts(spec: GridSpec):
    assert count_parameters(spec) == count_trainable(UNetPlusPlus(spec))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_multiply_accumulates_are_those_that_torch_counts(data: st.DataObject):
    spec = data.draw(grid_specs(max_depth=3))
    image = image_for(spec, data)
    model = UNetPlusPlus(spec).double().eval()
    with torch.no_grad(), fused.disabled(), FlopCounterMode(display=False) as counter:
        model.heads(image)
    found = len(image) * count_grid_macs(spec, image.shape[2:])
    assert 2 * found == counter.get_total_flops()


@pytest.mark.parametrize(("in_channels", "count"), [(1, 26_970_625), (3, 26_971_777)])
def test_unet3plus_has_the_parameters_of_its_authors(in_channels: int, count: int):
    # By hand: encoder 64..1024 with two 3x3 convolutions a level; five projections of 64 and one
    # convolution of 320 a node; a head of 3x3.
    widths = [64 * 2**i for i in range(5)]
    encoder = sum(9 * a * b + b for a, b in zip([in_channels, *widths], widths, strict=False))
    encoder += sum(9 * w * w + w for w in widths)
    decoder = 0
    for level in range(4):
        deeper = [320] * (3 - level) + [1024]
        sources = [*widths[: level + 1], *deeper]
        decoder += sum(9 * w * 64 + 64 for w in sources) + 9 * 320 * 320 + 320
    by_hand = encoder + decoder + 9 * 320 + 1
    norms = 2 * (2 * sum(widths)) + 4 * (2 * 5 * 64 + 2 * 320)
    spec = unet3plus(plain_encoder(4, width=64), in_channels=in_channels)
    assert count_parameters(spec) == by_hand + norms == count


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_the_wide_unet_can_be_matched_in_multiply_accumulates(depth: int):
    like = unetpp(plain_encoder(depth, width=16))
    wide = wide_unet(like, match="macs")
    size = (64, 96)
    assert count_grid_macs(wide, size) == pytest.approx(count_grid_macs(like, size), rel=0.01)
    assert count_parameters(wide) > 1.1 * count_parameters(like)


def test_weights_of_the_heads():
    supervised = unetpp(3, deep_supervision=True)
    assert head_weights(supervised) == (1 / 3, 1 / 3, 1 / 3)
    assert head_weights(replace(supervised, supervision="learned")) == (1 / 3, 1 / 3, 1 / 3)
    decayed = replace(supervised, supervision="decayed")
    assert head_weights(decayed) == (1 / 7, 2 / 7, 4 / 7)
    # By column: a head that is not there takes no weight, and the ratios stay.
    assert head_weights(replace(decayed, heads=(1, 3))) == (1 / 5, 4 / 5)
    assert head_weights(unetpp(3)) == (1.0,)


@pytest.mark.parametrize("depth", range(1, 7))
def test_every_depth_from_1_to_6_is_described(depth: int):
    for preset in (no_skips, unet, unet_e, unet_plus, unetpp, unet3plus):
        spec = preset(plain_encoder(depth, width=2))
        assert spec.depth == depth
        assert count_parameters(spec) == count_trainable(UNetPlusPlus(spec))


def test_widths_are_numbers_shares_or_those_of_the_encoder():
    encoder = plain_encoder(3, width=8)
    assert unetpp(encoder).widths == unetpp(encoder, widths="encoder").widths == (8, 16, 32)
    assert unetpp(encoder, widths=0.5).widths == (4, 8, 16)
    assert unetpp(encoder, widths=5).widths == (5, 5, 5)
    assert unetpp(encoder, widths=[5, "encoder", 0.01]).widths == (5, 16, 1)
    spec = unetpp(encoder, widths=5, node_widths={"X_0_2": 0.25, "X_1_1": "encoder"})
    assert channels(spec, Node(0, 2)) == 2
    assert channels(spec, Node(1, 1)) == 16
    assert channels(spec, Node(0, 3)) == 5


def test_a_dense_skip_costs_nine_times_the_square_of_the_width():
    for level in range(4):
        dense = unetpp(plain_encoder(5))
        entry = next(e for e in dense.inputs if e.node == Node(level, 2))
        thinner = replace(
            dense,
            inputs=tuple(
                e._replace(sources=e.sources[1:]) if e == entry else e for e in dense.inputs
            ),
        )
        difference = count_parameters(dense) - count_parameters(thinner)
        assert difference == 9 * (32 * 2**level) ** 2


# Three widths are all that a U-Net of depth 2 has to move: with so narrow ones, none fits.
_NOT_TO_BE_MATCHED = {(unetpp, 2, 4), (unetpp, 2, 6)}


@pytest.mark.parametrize("preset", [unet_plus, unetpp])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_the_wide_unet_has_the_parameters_of_the_nested_one(preset, depth: int):
    for width in (4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64):
        like = preset(plain_encoder(depth, width=width), deep_supervision=True, in_channels=3)
        if (preset, depth, width) in _NOT_TO_BE_MATCHED:
            with pytest.raises(UserError, match=r"no integer widths .* choose larger widths"):
                wide_unet(like)
            continue
        wide = wide_unet(like)
        assert abs(count_parameters(wide) - count_parameters(like)) <= 0.01 * count_parameters(like)
        assert wide == unet(wide.encoder, widths=wide.widths, in_channels=3)
        assert wide.widths == wide.encoder.channels[:-1]
        assert wide.encoder.strides == like.encoder.strides
        if width < 12:
            continue
        # Still of the shape of the paper's: no level is traded against another.
        factors = [w / c for w, c in zip(wide.encoder.channels, like.encoder.channels, strict=True)]
        assert max(factors) - min(factors) <= max(0.1, 1.5 / width)


def test_the_wide_unet_leaves_a_timm_encoder_as_it_is():
    encoder = EncoderSpec(name="resnet18", channels=(64, 64, 128, 256), strides=(2, 4, 8, 16))
    like = unetpp(encoder, widths=(16, 32, 64))
    wide = wide_unet(like)
    assert wide.encoder == encoder
    assert wide.widths > like.widths


def test_no_wide_unet_of_tiny_widths():
    like = unetpp(plain_encoder(3, width=1))
    with pytest.raises(UserError, match=r"within 0% of [\d,]+ parameters \(nearest: [\d,]+\)"):
        wide_unet(like, tolerance=1e-5)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_pruning_keeps_the_triangle_of_the_head(depth: int):
    full = unetpp(plain_encoder(4), deep_supervision=True, inference="mean")
    pruned = prune_to_head(full, depth)
    assert {entry.node for entry in pruned.inputs} == {
        Node(i, j) for j in range(1, depth + 1) for i in range(depth - j + 1)
    }
    # So a pruned network is one that could have been described from the start, id and all.
    assert pruned == unetpp(plain_encoder(depth))


def test_pruning_unet_e_gives_the_unet_of_that_depth_and_unet_plus_the_unet_plus():
    for depth in (1, 2, 3):
        assert prune_to_head(unet_e(plain_encoder(3)), depth) == unet(plain_encoder(depth))
        plus = unet_plus(plain_encoder(3), deep_supervision=True)
        assert prune_to_head(plus, depth) == unet_plus(plain_encoder(depth))


def test_pruning_needs_a_head():
    with pytest.raises(UserError, match=r"needs a head at X_0_2, .* has heads at \(4,\); train it"):
        prune_to_head(unetpp(plain_encoder(4)), 2)


def test_skips_of_the_presets():
    node = Node(0, 3)
    below = Node(1, 2)
    own = [Node(0, k) for k in range(3)]
    expected = {unet: own[:1], unet_e: own[:1], unet_plus: own[-1:], unetpp: own}
    for preset, skips in expected.items():
        assert dict(preset(plain_encoder(3)).inputs)[node] == (*skips, below)


def test_channels_and_ratio_of_an_uneven_encoder():
    encoder = EncoderSpec(name="some", channels=(24, 32, 48), strides=(4, 16, 32))
    spec = unetpp(encoder, widths=(8, 16))
    assert [channels(spec, Node(i, 0)) for i in range(3)] == [24, 32, 48]
    assert [channels(spec, Node(*n)) for n in ((0, 1), (1, 1), (0, 2))] == [8, 16, 8]
    assert [up_ratio(spec, Node(i + 1, 0), Node(i, 1)) for i in (0, 1)] == [4, 2]
