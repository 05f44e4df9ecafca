from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from concat_form import concat_heads
from helpers import grid_specs, image_for, randomise
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_unetpp import ReferenceUNetPlusPlus, reference_state

from unetpp.errors import UserError
from unetpp.grid import plain_encoder, unet, unet_e, unet_plus, unetpp
from unetpp.models.blocks import GridNode
from unetpp.models.cost import count_trainable
from unetpp.models.layers import InEdge
from unetpp.models.unetpp import UNetPlusPlus, mean_logits, prune
from unetpp.spec import GridSpec

_PRESETS = [unet, unet_e, unet_plus, unetpp]


def _supervised(preset, depth: int, **options) -> GridSpec:
    if preset in (unet_plus, unetpp):
        options["deep_supervision"] = True
    return preset(plain_encoder(depth, width=3), **options)


def _gradients(model: torch.nn.Module, outputs: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    # Weights per head and pixel, so that no two paths are interchangeable.
    loss = sum(
        (k * output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output))
        .square()
        .sum()
        for k, output in enumerate(outputs, start=1)
    )
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_network_is_the_one_of_the_paper(batch_norm: bool, training: bool):
    filters = (3, 4, 5, 6, 7)
    encoder = replace(plain_encoder(4), channels=filters)
    norm = "batch" if batch_norm else "none"
    spec = unetpp(encoder, deep_supervision=True, in_channels=2, norm=norm)
    ours = UNetPlusPlus(spec).double()
    randomise(ours)
    oracle = ReferenceUNetPlusPlus(in_channels=2, filters=filters, batch_norm=batch_norm).double()
    oracle.load_state_dict(reference_state(ours.state_dict()))
    ours.train(training)
    oracle.train(training)
    image = torch.randn(2, 2, 32, 48, dtype=torch.float64)

    heads, expected = ours.heads(image), oracle(image)
    assert list(heads) == [1, 2, 3, 4]
    for head, reference in zip(heads.values(), expected, strict=True):
        torch.testing.assert_close(head, reference)

    found = reference_state(_gradients(ours, list(heads.values())))
    wanted = _gradients(oracle, list(expected))
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        # A bias in front of a norm has no gradient but what rounding leaves of it.
        torch.testing.assert_close(found[name], gradient, rtol=1e-7, atol=1e-6, msg=name)
    if training and batch_norm:
        after, reference_after = reference_state(ours.state_dict()), oracle.state_dict()
        torch.testing.assert_close(
            after["X04.norm1.running_mean"], reference_after["X04.norm1.running_mean"]
        )
        torch.testing.assert_close(
            after["X40.norm2.running_var"], reference_after["X40.norm2.running_var"]
        )


def test_the_oracle_counts_the_parameters_of_the_paper():
    heads_that_the_paper_drops = 3 * (32 + 1)
    assert count_trainable(ReferenceUNetPlusPlus()) - heads_that_the_paper_drops == 9_041_601


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_any_grid_computes_what_its_concatenating_form_does(data: st.DataObject):
    spec = data.draw(grid_specs(max_depth=3))
    model = UNetPlusPlus(spec).double()
    randomise(model)
    model.train(data.draw(st.booleans()))
    image = image_for(spec, data)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    heads = model.heads(image)
    # A batch norm in training has moved its statistics; the slow form starts from the same ones.
    found = _gradients(model, list(heads.values()))
    model.load_state_dict(state)
    model.zero_grad()
    expected = concat_heads(model, image)
    assert heads.keys() == expected.keys()
    for j, logits in heads.items():
        assert logits.shape == (len(image), spec.classes, *image.shape[2:])
        torch.testing.assert_close(logits, expected[j], rtol=1e-6, atol=1e-8)
    wanted = _gradients(model, list(expected.values()))
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        scale = max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(
            found[name] / scale, gradient / scale, msg=name, rtol=1e-5, atol=1e-6
        )


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_pruned_network_is_its_head_bit_for_bit_and_all_of_it_is_alive(data: st.DataObject):
    spec = data.draw(grid_specs())
    model = UNetPlusPlus(spec)
    randomise(model)
    model.eval()
    image = image_for(spec, data).float()
    heads = model.heads(image)
    for depth in spec.heads:
        pruned = prune(model, depth=depth)
        output = pruned(image)
        assert torch.equal(output, heads[depth])
        output.sum().backward()
        assert [n for n, p in pruned.named_parameters() if p.grad is None] == []
        shared = {v.data_ptr() for v in model.parameters()} & {
            v.data_ptr() for v in pruned.parameters()
        }
        assert shared == set()


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("preset", _PRESETS)
def test_no_parameter_is_dead(preset, depth: int):
    model = UNetPlusPlus(_supervised(preset, depth))
    randomise(model)
    model.eval()  # in training, a norm takes the gradient from the bias before it
    sum(
        logits.square().sum() for logits in model.heads(torch.randn(2, 1, 33, 40)).values()
    ).backward()  # pyright: ignore[reportAttributeAccessIssue]
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    silent = [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("in_channels", [1, 2, 3, 4])
@pytest.mark.parametrize("classes", [1, 3])
def test_channels_in_and_classes_out(in_channels: int, classes: int):
    spec = _supervised(unetpp, 2, in_channels=in_channels, classes=classes)
    heads = UNetPlusPlus(spec).heads(torch.zeros(2, in_channels, 9, 10))
    assert {j: logits.shape for j, logits in heads.items()} == {
        1: (2, classes, 9, 10),
        2: (2, classes, 9, 10),
    }


@pytest.mark.parametrize("preset", _PRESETS)
def test_heads_stand_only_where_they_are_supervised(preset):
    plain = UNetPlusPlus(preset(plain_encoder(3, width=2)))
    expected = [1, 2, 3] if preset is unet_e else [3]
    assert [int(name[-1]) for name in plain.head_convs] == expected
    assert list(plain.heads(torch.zeros(1, 1, 16, 16))) == expected
    some = replace(_supervised(unetpp, 3), heads=(1, 3))
    assert list(UNetPlusPlus(some).head_convs) == ["X_0_1", "X_0_3"]


def test_names_in_the_state_dict_are_those_of_the_paper():
    names = UNetPlusPlus(unetpp(plain_encoder(2, width=2))).state_dict().keys()
    trained = {n for n in names if ".norm" not in n}
    assert trained == {
        *(f"nodes.{node}.{part}" for node in _NODES for part in _PARTS),
        "nodes.X_0_0.edges.image.weight",
        "nodes.X_1_0.edges.X_0_0.weight",
        "nodes.X_2_0.edges.X_1_0.weight",
        "nodes.X_0_1.edges.X_0_0.weight",
        "nodes.X_0_1.edges.X_1_0.weight",
        "nodes.X_0_1.ups.X_1_0.weight",
        "nodes.X_0_1.ups.X_1_0.bias",
        "nodes.X_1_1.edges.X_1_0.weight",
        "nodes.X_1_1.edges.X_2_0.weight",
        "nodes.X_1_1.ups.X_2_0.weight",
        "nodes.X_1_1.ups.X_2_0.bias",
        "nodes.X_0_2.edges.X_0_0.weight",
        "nodes.X_0_2.edges.X_0_1.weight",
        "nodes.X_0_2.edges.X_1_1.weight",
        "nodes.X_0_2.ups.X_1_1.weight",
        "nodes.X_0_2.ups.X_1_1.bias",
        "head_convs.X_0_2.weight",
        "head_convs.X_0_2.bias",
    }


_NODES = ("X_0_0", "X_1_0", "X_2_0", "X_0_1", "X_1_1", "X_0_2")
_PARTS = ("bias", "conv2.weight", "conv2.bias")


@pytest.mark.parametrize("spread", [1.0, 30.0, 1000.0])
def test_mean_logits_are_the_logits_of_the_mean_probability(spread: float):
    logits = [spread * torch.randn(2, 1, 5, 6, dtype=torch.float64) for _ in range(3)]
    mean = mean_logits(logits, overlapping=False)
    assert mean.isfinite().all()
    probability = torch.stack([torch.sigmoid(x) for x in logits]).mean(0)
    torch.testing.assert_close(torch.sigmoid(mean), probability)
    if spread == 1:
        torch.testing.assert_close(mean, torch.logit(probability))


def test_mean_logits_of_several_classes_are_log_probabilities():
    logits = [torch.randn(2, 4, 3, 3, dtype=torch.float64) for _ in range(3)]
    expected = torch.stack([x.softmax(1) for x in logits]).mean(0)
    torch.testing.assert_close(mean_logits(logits, overlapping=False).exp(), expected)


def test_mean_logits_of_overlapping_classes_are_those_of_each_alone():
    logits = [torch.randn(2, 4, 3, 3, dtype=torch.float64) for _ in range(3)]
    mean = mean_logits(logits, overlapping=True)
    for k in range(4):
        alone = mean_logits([x[:, k : k + 1] for x in logits], overlapping=False)
        assert torch.equal(mean[:, k : k + 1], alone)


def test_forward_is_the_last_head_or_the_mean_as_the_spec_says():
    spec = _supervised(unetpp, 2)
    last = UNetPlusPlus(spec).eval()
    mean = UNetPlusPlus(replace(spec, inference="mean")).eval()
    mean.load_state_dict(last.state_dict())
    image = torch.randn(1, 1, 12, 12)
    heads = last.heads(image)
    assert torch.equal(last(image), heads[2])
    assert torch.equal(mean(image), mean_logits(list(heads.values()), overlapping=False))
    several = UNetPlusPlus(replace(spec, inference="mean", classes=3, overlapping=True)).eval()
    heads = list(several.heads(image).values())
    assert torch.equal(several(image), mean_logits(heads, overlapping=True))


def test_pruning_keeps_precision_memory_format_and_mode():
    model = UNetPlusPlus(_supervised(unetpp, 2))
    model = model.double().to(memory_format=torch.channels_last)
    assert not model.training or prune(model, depth=1).training
    pruned = prune(model.eval(), depth=1)
    weight = pruned.state_dict()["nodes.X_0_1.conv2.weight"]
    assert weight.dtype == torch.float64
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not pruned.training


def test_pruning_leaves_the_random_state_alone():
    model = UNetPlusPlus(_supervised(unetpp, 2))
    before = torch.random.get_rng_state()
    prune(model, depth=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_pruning_without_a_head_is_refused():
    model = UNetPlusPlus(unetpp(plain_encoder(2, width=2)))
    with pytest.raises(UserError, match="pruning to L\\^1 needs a head at X_0_1"):
        prune(model, depth=1)


def test_the_same_random_state_builds_the_same_network():
    def build(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        state = UNetPlusPlus(_supervised(unetpp, 2)).state_dict()
        return torch.cat([v.double().flatten() for v in state.values()])

    assert torch.equal(build(1), build(1))
    assert not torch.equal(build(1), build(2))


_TINY = unet(plain_encoder(1, width=1), norm="none")


def _node(edges: list[InEdge], width: int) -> GridNode:
    return GridNode(edges, width=width, spec=_TINY, block="double_conv", place="decoder")


def _edge(name: str, channels: int, *, width: int, up: int = 1) -> InEdge:
    resampled = width if up > 1 else channels
    return InEdge(name=name, channels=channels, resampled=resampled, merged=resampled, up_ratio=up)


def test_a_node_starts_like_one_convolution_over_the_concatenation():
    node = _node([_edge("a", 40, width=64), _edge("b", 60, width=64, up=2)], 64)
    weights = torch.cat([node.get_parameter(f"edges.{n}.weight") for n in "ab"], 1)
    fan_in = weights[0].numel()
    assert weights.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.02)
    assert not node.get_parameter("bias").any()


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 5), (10, 9)])
def test_a_source_that_does_not_fit_is_cropped_or_its_border_repeated(height: int, width: int):
    node = _node([_edge("a", 1, width=1), _edge("b", 1, width=1, up=2)], 1)
    randomise(node)
    skip, below = torch.randn(1, 1, height, width), torch.randn(1, 1, 4, 4)
    up = torch.nn.functional.conv_transpose2d(
        below, node.get_parameter("ups.b.weight"), node.get_parameter("ups.b.bias"), stride=2
    )
    rows = torch.arange(height).clamp(max=7)
    columns = torch.arange(width).clamp(max=7)
    fitted = _node([_edge("a", 1, width=1), _edge("b", 1, width=1)], 1)
    fitted.load_state_dict({k: v for k, v in node.state_dict().items() if "ups" not in k})
    expected = fitted([skip, up[:, :, rows][..., columns]], torch.Size((height, width)))
    torch.testing.assert_close(node([skip, below], torch.Size((height, width))), expected)


@pytest.mark.parametrize(
    ("norm", "training", "batch"),
    [("batch", True, 1), ("instance", True, 3), ("instance", False, 3)],
)
def test_an_image_too_small_for_a_norm_is_told_the_smallest_size(
    norm: Literal["batch", "instance"], training: bool, batch: int
):
    model = UNetPlusPlus(unetpp(plain_encoder(3, width=2), norm=norm)).train(training)
    with pytest.raises(UserError, match=f"the norm {norm} needs .* 8-fold .* 8 x 5.* size is 9"):
        model(torch.zeros(batch, 1, 8, 5))
    assert model(torch.zeros(batch, 1, 9, 1)).shape == (batch, 1, 9, 1)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_one_pixel_is_an_image(norm: Literal["batch", "none"]):
    model = UNetPlusPlus(unetpp(plain_encoder(3, width=2), norm=norm)).eval()
    assert model(torch.zeros(1, 1, 1, 1)).shape == (1, 1, 1, 1)


@pytest.mark.parametrize("shape", [(1, 2, 9, 9), (1, 9, 9), (1, 1, 9, 9, 9)])
def test_an_image_of_another_form_is_refused(shape: tuple[int, ...]):
    model = UNetPlusPlus(unetpp(plain_encoder(1, width=2)))
    with pytest.raises(UserError, match=r"\[batch, 1 channels, 2 axes\], but got \(1, "):
        model(torch.zeros(shape))
