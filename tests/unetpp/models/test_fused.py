from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import grid_specs, image_for, randomise
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from unetpp.grid import plain_encoder, unetpp
from unetpp.models import fused
from unetpp.models.cost import count_macs
from unetpp.models.layers import normed, norming_again
from unetpp.models.unetpp import UNetPlusPlus, prune

_CHANNELS_LAST = torch.channels_last


def _plain_nearest(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)


def _plain_transposed(
    x: Tensor, up_weight: Tensor, up_bias: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    up = F.conv_transpose2d(x, up_weight, up_bias, stride=2)
    return F.conv2d(up, weight, bias, padding=1)


def _with_gradients(function: Callable[..., Tensor], *inputs: Tensor | None) -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_() if x is not None else None for x in inputs]
    y = function(*leaves)
    # Another weight for every number of the output: no two places are interchangeable.
    y.backward(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y))
    return [y.detach(), *(x.grad for x in leaves if x is not None and x.grad is not None)]


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


_SIZES = st.integers(1, 6)


@given(_SIZES, _SIZES, _SIZES, _SIZES, st.integers(1, 2), st.booleans())
@settings(max_examples=40, deadline=None)
def test_nearest_then_conv_is_one_transposed_convolution(
    height: int, width: int, incoming: int, out: int, batch: int, biased: bool
):
    bias = _random(out) if biased else None
    inputs = (_random(batch, incoming, height, width), _random(out, incoming, 3, 3), bias)
    found = _with_gradients(fused.nearest_then_conv, *inputs)
    expected = _with_gradients(_plain_nearest, *inputs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@given(_SIZES, _SIZES, _SIZES, _SIZES, _SIZES, st.booleans())
@settings(max_examples=40, deadline=None)
def test_transposed_then_conv_is_one_transposed_convolution(
    height: int, width: int, incoming: int, between: int, out: int, biased: bool
):
    inputs = (
        _random(2, incoming, height, width),
        _random(incoming, between, 2, 2),
        _random(between),
        _random(out, between, 3, 3),
        _random(out) if biased else None,
    )
    found = _with_gradients(fused.transposed_then_conv, *inputs)
    expected = _with_gradients(_plain_transposed, *inputs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("autocast", [False, True])
def test_joined_forms_keep_layout_and_precision(autocast: bool):
    x = torch.randn(2, 4, 6, 5).contiguous(memory_format=_CHANNELS_LAST)
    weight, bias = torch.randn(3, 4, 3, 3), torch.randn(3)
    up_weight, up_bias = torch.randn(4, 4, 2, 2), torch.randn(4)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        pairs = [
            (fused.nearest_then_conv(x, weight, bias), _plain_nearest(x, weight, bias)),
            (
                fused.transposed_then_conv(x, up_weight, up_bias, weight, bias),
                _plain_transposed(x, up_weight, up_bias, weight, bias),
            ),
        ]
    for found, expected in pairs:
        assert found.dtype == expected.dtype == (torch.bfloat16 if autocast else torch.float32)
        assert found.is_contiguous(memory_format=_CHANNELS_LAST)
        # bf16 has 8 bits; two roundings of sums of 36 products of size 1.
        tolerance = 0.3 if autocast else 1e-4
        torch.testing.assert_close(found, expected, rtol=0.02, atol=tolerance)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_instance_norm_is_that_of_torch(height: int, width: int, channels: int, batch: int):
    if height * width == 1:
        height = 2  # one value a channel has no variance
    x = _random(batch, channels, height, width).contiguous(memory_format=_CHANNELS_LAST)
    inputs = (x, _random(channels), _random(channels))
    found = _with_gradients(lambda x, w, b: fused.instance_norm(x, w, b, 1e-5), *inputs)
    expected = _with_gradients(lambda x, w, b: F.instance_norm(x, weight=w, bias=b), *inputs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-8)


_NORMS = [nn.BatchNorm2d(3), nn.InstanceNorm2d(3, affine=True), nn.GroupNorm(1, 3)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", _NORMS, ids=lambda m: type(m).__name__)
def test_forgetting_changes_nothing_but_what_is_kept(norm: nn.Module, training: bool):
    norm = norm.double().train(training)
    conv = nn.Conv2d(3, 4, 3, padding=1).double()
    parameters = [*norm.parameters(), *conv.parameters()]
    x = _random(2, 3, 5, 6).requires_grad_()
    other = copy.deepcopy(norm)

    def forgetful() -> Tensor:
        again = norming_again(norm)
        return fused.forgetting(
            x,
            first=lambda x: normed(norm, x),
            again=lambda x: F.relu(again(x)),
            rest=lambda x: conv(F.relu(x, inplace=True)),
        )

    y, plain = forgetful(), conv(F.relu(other(x)))
    norm.train(not training)  # what backward computes again is still of the mode of forward
    direction = torch.randn_like(y)
    found = torch.autograd.grad(y, [x, *parameters], direction, retain_graph=True)
    twice = torch.autograd.grad(y, [x, *parameters], direction)
    theirs = [x, *other.parameters(), *conv.parameters()]
    expected = torch.autograd.grad(plain, theirs, direction)
    assert torch.equal(y, plain)
    for a, b, c in zip(found, twice, expected, strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, c)
    # One step of the running statistics, not two.
    buffers = zip(norm.buffers(), other.buffers(), strict=True)
    assert all(torch.equal(a, b) for a, b in buffers)


def test_joining_is_decided_by_products_and_size():
    wide, narrow = torch.empty(128, 128, 3, 3), torch.empty(32, 32, 3, 3)
    assert fused.joining_pays(narrow, None, 4096)
    assert not fused.joining_pays(narrow, None, 64)  # the kernel costs more than it saves
    assert fused.joining_pays(narrow, torch.empty(32, 32, 2, 2), 4096)
    assert not fused.joining_pays(wide, torch.empty(256, 128, 2, 2), 1024)


def _run(model: UNetPlusPlus, image: Tensor, *, off: bool) -> tuple[list[Tensor], list[Tensor]]:
    with fused.disabled() if off else contextlib.nullcontext():
        heads = list(model.heads(image).values())
        gradients = torch.autograd.grad(
            [h.square().sum() for h in heads], list(model.parameters()), allow_unused=True
        )
    return heads, [g for g in gradients if g is not None]


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_grid_is_its_plain_form(data: st.DataObject):
    spec = data.draw(grid_specs(max_depth=3))
    model = UNetPlusPlus(spec).double()
    randomise(model)
    model.train(data.draw(st.booleans()))
    image = image_for(spec, data)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.MonkeyPatch.context() as patch:
        # So small maps would not be joined.
        patch.setattr(fused, "_LEAST_POSITIONS", 1)
        patch.setattr(fused, "_LARGEST_SHARE", 100.0)
        heads, gradients = _run(model, image, off=False)
    model.load_state_dict(state)
    expected, expected_gradients = _run(model, image, off=True)
    for found, wanted in zip(heads, expected, strict=True):
        assert found.is_contiguous()
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        scale = max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(found / scale, wanted / scale, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("up", ["nearest", "transposed"])
def test_a_network_of_usual_size_is_its_plain_form_and_still_prunes_exactly(up: Any):
    spec = unetpp(plain_encoder(3, width=8), up=up, deep_supervision=True)
    model = UNetPlusPlus(spec)
    randomise(model)
    model.eval()
    image = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        heads = model.heads(image)
        with fused.disabled():
            plain = model.heads(image)
        for depth, logits in heads.items():
            torch.testing.assert_close(logits, plain[depth], rtol=1e-3, atol=1e-3)
            assert torch.equal(prune(model, depth=depth)(image), logits)
        # The maps are large enough for the joined forms, so rounding differs somewhere.
        assert not all(torch.equal(heads[j], plain[j]) for j in heads)


def test_disabled_ends_with_its_block_even_after_an_error():
    x = torch.zeros(1, 2, 3, 3)
    assert fused.applies(x)
    with fused.disabled():
        assert not fused.applies(x)
    with pytest.raises(ZeroDivisionError), fused.disabled():
        raise ZeroDivisionError
    assert fused.applies(x)
    assert not fused.applies(x.to("meta"))


def test_a_captured_graph_is_the_plain_one():
    model = UNetPlusPlus(unetpp(plain_encoder(2, width=4), up="nearest")).eval()
    image = torch.randn(2, 1, 64, 64)
    program = torch.export.export(model, (image,))
    names = {str(node.target) for node in program.graph.nodes}
    assert not any("transpose" in name for name in names)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(image), model(image), rtol=1e-4, atol=1e-4)


def test_less_is_kept_for_backward():
    model = UNetPlusPlus(unetpp(plain_encoder(2, width=8))).train()
    image = torch.randn(2, 1, 64, 64)
    own = {p.data_ptr() for p in [*model.parameters(), *model.buffers()]}

    def kept(*, off: bool) -> int:
        sizes: dict[int, int] = {}
        holders: list[Any] = []

        def pack(tensor: Tensor) -> Tensor:
            if tensor.data_ptr() not in own:
                sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            holders.append(tensor)  # alive, so that no address is used twice
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x)
        with fused.disabled() if off else contextlib.nullcontext(), hooks:
            holders.append(model(image))
        return sum(sizes.values())

    assert kept(off=False) < 0.8 * kept(off=True)


def test_joined_layers_count_as_the_description_has_them():
    model = UNetPlusPlus(unetpp(plain_encoder(2, width=8), up="nearest"))
    found = count_macs(model, in_channels=1, shape=(64, 64))
    with fused.disabled():
        assert found == count_macs(model, in_channels=1, shape=(64, 64))


def test_the_network_compiles_as_one_graph():
    model = UNetPlusPlus(unetpp(plain_encoder(2, width=4))).train()
    image = torch.randn(2, 1, 64, 64)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with fused.disabled():
        expected = copy.deepcopy(model)(image)
    torch.testing.assert_close(compiled(image), expected)


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("up", ["nearest", "bilinear_aligned"])
def test_second_derivatives_are_those_of_the_plain_form(up: Any, norm: Any):
    model = UNetPlusPlus(unetpp(plain_encoder(1, width=3), up=up, norm=norm)).double().train()
    randomise(model)
    image = torch.randn(2, 1, 6, 6, dtype=torch.float64, requires_grad=True)

    def second() -> list[Tensor]:
        (gradient,) = torch.autograd.grad(model(image).square().sum(), image, create_graph=True)
        return list(torch.autograd.grad(gradient.square().sum(), [*model.nodes.parameters()]))

    found = second()
    with fused.disabled():
        expected = second()
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6 * float(b.abs().max() + 1))
