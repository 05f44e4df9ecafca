from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import grid_specs, image_for, randomise
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from torch import Tensor

from unetpp.errors import UserError
from unetpp.grid import no_skips, plain_encoder, unet, unet3plus, unet_plus, unetpp
from unetpp.models.blocks import GridNode
from unetpp.models.cost import count_trainable
from unetpp.models.edges import without_edge
from unetpp.models.encoders import describe_encoder
from unetpp.models.layers import InEdge
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.spec import EncoderSpec, GridSpec, Node, NodeInputs


def _random(spec: GridSpec) -> UNetPlusPlus:
    model = UNetPlusPlus(spec)
    randomise(model)
    return model.eval()


def _silenced(model: UNetPlusPlus, source: Node, target: Node, image: Tensor) -> dict[int, Tensor]:
    """The heads of the whole network when zeros come over the edge, at its merge."""
    node = model.nodes[str(target)]
    assert isinstance(node, GridNode)
    prepare = node._prepared

    def silent(edge: InEdge, x: Tensor, size: torch.Size) -> Tensor:
        if edge.name != str(source):
            return prepare(edge, x, size)
        return x.new_zeros(len(x), edge.merged, *size)

    if node.merge_weights is not None:
        index = [edge.name for edge in node.in_edges].index(str(source))
        node.merge_weights.data[index] = 0
    node._prepared = silent
    return model.heads(image)


def _loses_its_gates(spec: GridSpec, source: Node, target: Node) -> bool:
    below = [s for s in dict(spec.inputs)[target] if s.i > target.i]
    return spec.gate == "attention" and below == [source]


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_it_is_the_whole_network_with_nothing_coming_over_the_edge_and_all_of_it_is_alive(
    data: st.DataObject,
):
    spec = data.draw(grid_specs())
    edges = [(s, node) for node, sources in spec.inputs for s in sources if len(sources) > 1]
    assume(edges)
    source, target = data.draw(st.sampled_from(edges))
    assume(not _loses_its_gates(spec, source, target))
    model = _random(spec).double()
    try:
        smaller = without_edge(model, source, target)
    except UserError:  # the deepest level would not be read, and nodes have no place without it
        reject()
    assert smaller.spec == spec.without_edge(source, target, drop_unreachable=True)
    image = image_for(spec, data)
    heads = smaller.heads(image)
    expected = _silenced(model, source, target, image)
    assert list(heads) == list(expected)
    for depth, logits in heads.items():
        torch.testing.assert_close(logits, expected[depth], rtol=1e-7, atol=1e-9)
    torch.stack([x.sum() for x in heads.values()]).sum().backward()
    assert [
        n for n, p in smaller.named_parameters() if p.grad is None and n != "head_log_variances"
    ] == []
    with torch.random.fork_rng():
        assert count_trainable(smaller) == count_trainable(UNetPlusPlus(smaller.spec))
    shared = {v.data_ptr() for v in model.parameters()} & {
        v.data_ptr() for v in smaller.parameters()
    }
    assert shared == set()


@pytest.mark.parametrize("up", ["transposed", "nearest", "bilinear"])
def test_of_a_usual_network_it_is_the_one_with_zero_weights_bit_for_bit(up: Any):
    # Large enough for the joined forms, single precision, in the layout of the CPU.
    spec = unetpp(plain_encoder(3, width=4), deep_supervision=True, conv_bias=False, up=up)
    model = _random(spec)
    model.to(memory_format=torch.channels_last)
    image = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    for source, target in spec.skips:
        smaller = without_edge(model, source, target)
        state = model.state_dict()
        for name, value in state.items():
            if name.startswith(f"nodes.{target}.edges.{source}."):
                state[name] = torch.zeros_like(value)
        zeroed = UNetPlusPlus(spec).eval()
        zeroed.load_state_dict(state)
        zeroed.to(memory_format=torch.channels_last)
        with torch.inference_mode():
            heads, expected = smaller.heads(image), zeroed.heads(image)
        for depth, logits in heads.items():
            assert torch.equal(logits, expected[depth]), (source, target, depth)


def test_only_the_parameters_of_the_edge_are_gone():
    model = _random(unetpp(plain_encoder(4, width=2)))
    names = model.state_dict().keys()
    skip = without_edge(model, "X_0_1", "X_0_3").state_dict().keys()
    assert names - skip == {"nodes.X_0_3.edges.X_0_1.weight"}
    assert skip <= names
    below = without_edge(model, Node(1, 2), Node(0, 3)).state_dict().keys()
    assert names - below == {
        "nodes.X_0_3.edges.X_1_2.weight",
        "nodes.X_0_3.ups.X_1_2.weight",
        "nodes.X_0_3.ups.X_1_2.bias",
    }


def test_what_only_the_edge_made_useful_goes_with_it():
    model = _random(unet_plus(plain_encoder(3, width=2)))
    smaller = without_edge(model, "X_0_2", "X_0_3")
    assert set(model.nodes) - set(smaller.nodes) == {"X_0_1", "X_0_2"}


@pytest.mark.parametrize("encoder", [plain_encoder(3, width=2), "resnet18"])
def test_a_level_of_the_encoder_that_only_the_edge_read_goes_with_it(encoder: EncoderSpec | str):
    if isinstance(encoder, str):
        encoder = describe_encoder(encoder, depth=3)
    read = NodeInputs(Node(0, 1), (Node(0, 0), Node(1, 0), Node(3, 0)))
    spec = GridSpec(encoder=encoder, widths=(2, 2, 2), inputs=(read,), heads=(1,), in_channels=3)
    model = _random(spec)
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    smaller = without_edge(model, "X_3_0", "X_0_1")
    assert smaller.spec.depth == 1
    expected = _silenced(model, Node(3, 0), Node(0, 1), image)[1]
    torch.testing.assert_close(smaller(image), expected, rtol=1e-4, atol=1e-5)
    smaller(image).sum().backward()
    assert [n for n, p in smaller.named_parameters() if p.grad is None] == []
    assert count_trainable(smaller) < count_trainable(model) / 4


def test_a_weight_that_is_left_alone_in_a_merge_keeps_its_factor():
    spec = unet(plain_encoder(2, width=3), merge="weighted_sum", block="residual")
    model = _random(spec)
    image = torch.randn(1, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    node = model.nodes["X_0_2"]
    assert isinstance(node, GridNode)
    assert node.merge_weights is not None
    node.merge_weights.data = torch.tensor([2.0, 3e-4])
    smaller = without_edge(model, "X_0_0", "X_0_2")
    assert "nodes.X_0_2.merge_weights" not in smaller.state_dict()
    factor = 3e-4 / (3e-4 + 1e-4)
    for name in ("nodes.X_0_2.edges.sum.weight", "nodes.X_0_2.shortcuts.sum.weight"):
        whole = model.state_dict()[name]
        torch.testing.assert_close(smaller.state_dict()[name], factor * whole)
    expected = _silenced(model, Node(0, 0), Node(0, 2), image)[2]
    torch.testing.assert_close(smaller(image), expected)


def test_gates_go_with_the_last_edge_that_feeds_them():
    spec = unetpp(plain_encoder(2, width=2), deep_supervision=True, gate="attention")
    smaller = without_edge(_random(spec), "X_1_0", "X_0_1")
    gates = {name: len(n.gates) for name, n in smaller.nodes.items() if isinstance(n, GridNode)}
    assert gates["X_0_1"] == 0
    assert gates["X_0_2"] == 2


def test_gates_of_several_edges_from_below_keep_those_of_the_others():
    spec = unet3plus(plain_encoder(3, width=2), projection=3, gate="attention")
    model = _random(spec)
    image = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    smaller = without_edge(model, "X_1_2", "X_0_3")
    expected = _silenced(model, Node(1, 2), Node(0, 3), image)[3]
    torch.testing.assert_close(smaller(image), expected)
    for new, old in ((0, 1), (1, 2)):
        name = "nodes.X_0_3.gates.X_0_0.gating.{}.weight"
        assert torch.equal(
            smaller.state_dict()[name.format(new)], model.state_dict()[name.format(old)]
        )


def test_scse_whose_hidden_units_would_change_is_refused():
    model = _random(unet(plain_encoder(1, width=16), gate="scse"))
    with pytest.raises(
        UserError, match=r"that of X_0_1 would have 1 for 16 channels, not 2 for 32; train"
    ):
        without_edge(model, "X_0_0", "X_0_1")


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_an_encoder_from_timm_keeps_what_is_read(name: str):
    spec = unetpp(describe_encoder(name, depth=3), in_channels=3, widths=(2, 3, 4))
    model = _random(spec)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    smaller = without_edge(model, "X_0_0", "X_0_2")
    expected = _silenced(model, Node(0, 0), Node(0, 2), image)[3]
    torch.testing.assert_close(smaller(image), expected, rtol=1e-4, atol=1e-5)
    state = model.state_dict()
    encoder = {n: v for n, v in smaller.state_dict().items() if n.startswith("encoder.")}
    assert encoder
    assert all(torch.equal(value, state[n]) for n, value in encoder.items())


def test_an_own_encoder_is_copied():
    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Conv2d(1, 2, 3, padding=1)
            self.second = torch.nn.Conv2d(2, 3, 2, stride=2)

        def forward(self, image: Tensor) -> list[Tensor]:
            x = self.first(image)
            return [x, self.second(x)]

    spec = unet(EncoderSpec(name="own", channels=(2, 3), strides=(1, 2)))
    model = UNetPlusPlus(spec, own_encoder=Own())
    randomise(model)
    image = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    smaller = without_edge(model.eval(), "X_0_0", "X_0_1")
    assert smaller.encoder is not model.encoder
    expected = _silenced(model, Node(0, 0), Node(0, 1), image)[1]
    torch.testing.assert_close(smaller(image), expected)


def test_precision_memory_format_mode_and_random_state_are_kept():
    model = UNetPlusPlus(unetpp(plain_encoder(2, width=2), gate="scse"))
    model = model.double().to(memory_format=torch.channels_last)
    before = torch.random.get_rng_state()
    smaller = without_edge(model, "X_0_1", "X_0_2")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert smaller.training
    assert smaller.channels_last == model.channels_last
    for name, value in smaller.state_dict().items():
        if value.ndim == 4:
            assert value.dtype == torch.float64
            assert value.is_contiguous(memory_format=torch.channels_last), name
    assert not without_edge(model.eval(), "X_0_1", "X_0_2").training


def test_an_edge_that_is_not_there_or_the_last_of_its_node_is_refused():
    model = _random(unetpp(plain_encoder(2, width=2)))
    with pytest.raises(UserError, match=r"X_0_2 does not read X_1_0; it reads X_0_0, X_0_1, X_1_1"):
        without_edge(model, "X_1_0", "X_0_2")
    bare = _random(no_skips(plain_encoder(2, width=2)))
    with pytest.raises(UserError, match=r"keep an in-edge, but X_0_2 reads X_1_1 alone; take out"):
        without_edge(bare, "X_1_1", "X_0_2")
    flat = _random(unet(plain_encoder(1, width=2)))
    with pytest.raises(UserError, match="a level below the finest"):
        without_edge(flat, "X_1_0", "X_0_1")
