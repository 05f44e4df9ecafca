"""The network as text, and what each node costs."""

from __future__ import annotations

import re

import pytest
import torch
from helpers import grid_specs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from unetpp.budget import count_grid_macs, count_parameters
from unetpp.drawing import (
    cost_table,
    draw,
    draw_network,
    grid_nodes,
    in_edges,
    node_costs,
    options,
    triangle,
)
from unetpp.grid import (
    channels,
    no_skips,
    plain_encoder,
    prune_to_head,
    unet,
    unet3plus,
    unet_e,
    unet_plus,
    unetpp,
)
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.nodes import Node, NodeInputs, as_node, in_order
from unetpp.spec import EncoderSpec, GridSpec

_NESTED = """\
X_0_0:4 ----- X_0_1:4* ---- X_0_2:4*
  |        /             /
X_1_0:8 ----- X_1_1:8
  |        /
X_2_0:16"""

_PLAIN = """\
X_0_0:4 ------.----------- X_0_2:4*
  |                     /
X_1_0:8 ----- X_1_1:8
  |        /
X_2_0:16"""


def test_the_smallest_nested_grid_and_the_plain_one():
    encoder = plain_encoder(2, width=4)
    assert draw(unetpp(encoder, deep_supervision=True)) == _NESTED
    assert draw(unet(encoder)) == _PLAIN


@given(grid_specs())
@settings(max_examples=40, deadline=None)
def test_every_node_is_drawn_with_its_channels_and_every_other_place_as_a_dot(spec: GridSpec):
    text = draw(spec)
    found = re.findall(r"(X_\d_\d):(\d+)(\*?)", text)
    heads = {str(Node(0, j)) for j in spec.heads}
    assert {(name, int(width), bool(star)) for name, width, star in found} == {
        (str(node), channels(spec, node), str(node) in heads) for node in grid_nodes(spec)
    }
    assert text.count(".") == len(triangle(spec.depth) - grid_nodes(spec))


@given(grid_specs())
@settings(max_examples=40, deadline=None)
def test_the_listed_in_edges_are_those_of_the_spec(spec: GridSpec):
    read: list[NodeInputs] = []
    for line in in_edges(spec).splitlines():
        node, sources = line.split(" <- ")
        marked = re.findall(r"([v^]?)(X_\d_\d)", sources)
        read.append(NodeInputs(as_node(node), tuple(as_node(name) for _, name in marked)))
        for mark, name in marked:
            below = as_node(name).i - as_node(node).i
            assert mark == ("^" if below > 0 else "v" if below < 0 else "")
    assert in_order(read) == spec.inputs


@pytest.mark.parametrize("preset", [no_skips, unet, unet_e, unet_plus, unetpp, unet3plus])
@pytest.mark.parametrize("depth", [1, 4, 6])
def test_nothing_is_wider_than_80_columns(preset, depth: int):
    spec = preset(plain_encoder(depth, width=64), norm="instance", activation="leaky_relu")
    text = "\n".join([draw_network(spec), cost_table(spec, node_costs(spec, (512, 512)))])
    assert max(map(len, text.splitlines())) <= 80
    assert spec.id in text


def test_a_pruned_network_is_drawn_inside_the_full_one():
    full = unetpp(plain_encoder(4), deep_supervision=True)
    text = draw_network(prune_to_head(full, 2), removed_from=full)
    places = draw(prune_to_head(full, 2), within=4)
    assert places in text
    assert places.count(".") == 15 - 6
    assert ". empty place" in text


def test_options_are_the_fields_that_differ():
    assert options(unetpp(3)) == ""
    found = options(unetpp(plain_encoder(3, block="residual"), norm="group", dropout=0.1))
    assert found == "norm=group, dropout=0.1, encoder.block=residual"
    encoder = EncoderSpec(name="resnet18", channels=(64, 64), strides=(2, 4))
    assert options(unetpp(encoder)) == "encoder=resnet18, encoder.strides=(2, 4)"


@given(grid_specs(), st.integers(1, 70))
@settings(max_examples=40, deadline=None)
def test_the_nodes_cost_together_what_the_network_costs(spec: GridSpec, side: int):
    size = (side, 33, 40)[: spec.spatial_dims]
    rows = node_costs(spec, size)
    assert sum(row.parameters for row in rows) == count_parameters(spec)
    assert sum(row.macs for row in rows) == count_grid_macs(spec, size)
    assert {row.node for row in rows} - {"supervision"} == {str(n) for n in grid_nodes(spec)}


@given(grid_specs(max_depth=3))
@settings(max_examples=10, deadline=None)
def test_output_bytes_are_those_of_the_tensors(spec: GridSpec):
    size = (17, 18, 19)[: spec.spatial_dims]
    model, seen = UNetPlusPlus(spec).eval(), dict[str, int]()
    for name, node in model.nodes.items():

        def note(_module: nn.Module, _inputs: object, output: Tensor, name: str = name) -> None:
            seen[name] = output.numel() * 4

        node.register_forward_hook(note)
    with torch.no_grad():
        model.heads(torch.zeros(1, spec.in_channels, *size))
    rows = {row.node: row.activation_bytes for row in node_costs(spec, size)}
    assert {name: count for name, count in rows.items() if count} == seen


def test_heads_are_marked_and_the_one_that_is_read_has_a_star():
    spec = unetpp(3, deep_supervision=True, inference=2)
    heads = {row.node: row.head for row in node_costs(spec, (32, 32)) if row.head}
    assert heads == {"X_0_1": "L1", "X_0_2": "L2*", "X_0_3": "L3"}
    mean = unetpp(2, deep_supervision=True, inference="mean", supervision="learned")
    rows = node_costs(mean, (32, 32))
    assert [row.head for row in rows if row.head] == ["L1*", "L2*"]
    assert (rows[-1].node, rows[-1].parameters) == ("supervision", 2)


def test_an_encoder_that_only_torch_knows_has_a_line_of_its_own():
    encoder = EncoderSpec(name="resnet18", channels=(64, 64), strides=(2, 4))
    spec = unetpp(encoder, widths=8)
    rows = node_costs(spec, (32, 32), encoder=(1000, 5000))
    assert (rows[0].node, rows[0].parameters, rows[0].macs) == ("encoder", 1000, 5000)
    assert [row.parameters for row in rows[1:3]] == [0, 0]
    assert rows[1].size == (16, 16)
    total = cost_table(spec, rows).split("total")[1].split()[0]
    assert int(total.replace(",", "")) == 1000 + count_parameters(spec)
