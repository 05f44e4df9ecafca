"""Other libraries' networks with random weights give the same logits after `load_peer`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from helpers import randomise
from nested_unet import NestedUNet
from torch import Tensor, nn

from unetpp.errors import UserError
from unetpp.models.interop import load_peer
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.spec import Node, NodeWidth

SMALL = "tu-mobilenetv3_small_050"
SLOW = pytest.mark.slow


def smp_network(name: str, encoder: str = "resnet18", *, depth: int = 5, **options: Any) -> Any:
    smp = import_module("segmentation_models_pytorch")
    channels = options.pop("decoder_channels", (256, 128, 64, 32, 16)[-depth:])
    return getattr(smp, name)(
        encoder, encoder_weights=None, encoder_depth=depth, decoder_channels=channels, **options
    )


def monai_network(dims: int, **options: Any) -> nn.Module:
    nets = import_module("monai.networks.nets")
    defaults: dict[str, Any] = {"in_channels": 2, "out_channels": 3}
    return nets.BasicUNetPlusPlus(dims, **defaults | options)


def image(channels: int, *size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, *(size or (64, 64)), generator=generator)


def num_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def as_list(output: Any) -> list[Tensor]:
    return list(output) if isinstance(output, (list, tuple)) else [output]


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


Bounds = tuple[tuple[torch.dtype, float], ...]
# Of the largest difference, relative to the largest logit.
SINGLE: Bounds = ((torch.float32, 1e-5),)
DOUBLE: Bounds = ((torch.float64, 1e-12),)
BOTH = SINGLE + DOUBLE


def check_same(
    peer: nn.Module, x: Tensor, *, bounds: Bounds = BOTH, **arguments: Any
) -> UNetPlusPlus:
    """The logits of all heads, with random weights and running statistics."""
    return check_same_as_it_is(randomise(peer), x, bounds=bounds, **arguments)


@torch.no_grad()
def check_same_as_it_is(
    peer: nn.Module, x: Tensor, *, bounds: Bounds, **arguments: Any
) -> UNetPlusPlus:
    peer.eval()
    model = load_peer(peer.state_dict(), **arguments)
    assert not model.training
    for precision, bound in bounds:
        expected = as_list(peer.to(precision)(x.to(precision)))
        found = list(model.to(precision).heads(x.to(precision)).values())
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert theirs.std() > 1e-3, "a constant would prove nothing"
            assert relative_difference(ours, theirs) < bound
        assert torch.equal(model(x.to(precision)), found[-1])
    return model


# smp


@pytest.mark.parametrize("depth", [2, pytest.param(3, marks=SLOW), pytest.param(4, marks=SLOW), 5])
def test_smp_unetplusplus_of_every_depth(depth: int) -> None:
    peer = smp_network("UnetPlusPlus", depth=depth)
    model = check_same(peer, image(3), architecture="smp_unetplusplus", encoder="resnet18")
    assert model.spec.depth == depth - 1
    assert model.spec.encoder.name == "resnet18"
    if depth == 5:
        assert num_parameters(model) == num_parameters(peer) == 15_970_449
        assert NodeWidth(Node(0, 4), 32) in model.spec.node_widths


def test_smp_unet() -> None:
    peer = smp_network("Unet")
    model = check_same(peer, image(3), architecture="smp_unet", encoder="resnet18")
    assert num_parameters(model) == num_parameters(peer)


def test_smp_with_other_channels_classes_and_widths() -> None:
    peer = smp_network(
        "UnetPlusPlus", in_channels=5, classes=7, decoder_channels=(48, 40, 24, 20, 12)
    )
    model = check_same(peer, image(5), architecture="smp_unetplusplus", encoder="resnet18")
    assert (model.spec.in_channels, model.spec.classes) == (5, 7)
    assert model.spec.tail == (12,)


@pytest.mark.parametrize(
    ("name", "architecture"), [("UnetPlusPlus", "smp_unetplusplus"), ("Unet", "smp_unet")]
)
@pytest.mark.parametrize("encoder", ["tu-convnext_atto", SMALL])
def test_smp_with_an_encoder_of_timm(encoder: str, name: str, architecture: str) -> None:
    peer = smp_network(name, encoder)
    model = check_same(peer, image(3), architecture=architecture, encoder=encoder)
    assert num_parameters(model) == num_parameters(peer)
    assert len(model.spec.tail) == (2 if "convnext" in encoder else 1)


@pytest.mark.parametrize("encoder", [pytest.param("tu-convnext_atto", marks=SLOW), SMALL])
def test_smp_with_fewer_levels_of_timm(encoder: str) -> None:
    peer = smp_network("UnetPlusPlus", encoder, depth=4, in_channels=1)
    check_same(peer, image(1), architecture="smp_unetplusplus", encoder=encoder)


@pytest.mark.parametrize("depth", [3, pytest.param(5, marks=SLOW)])
def test_smp_with_scse(depth: int) -> None:
    peer = smp_network("UnetPlusPlus", depth=depth, decoder_attention_type="scse")
    arguments: dict[str, Any] = {"architecture": "smp_unetplusplus", "encoder": "resnet18"}
    check_same_as_it_is(peer, image(3), bounds=SINGLE, **arguments)
    # With random statistics the gates make it ill-conditioned: at depth 5, smp's own logits in
    # single precision are up to 2e-4 away from its own in double. So the recipe is checked there.
    model = check_same(peer, image(3), bounds=DOUBLE, **arguments)
    assert model.spec.gate == "scse"
    # attention1 of the last block, which smp never calls, has 195 at depth 5; with fewer levels
    # smp keeps stages of the encoder as well.
    if depth == 5:
        assert num_parameters(peer) - num_parameters(model) == 195


@pytest.mark.parametrize("norm", [False, {"type": "instancenorm", "affine": True}])
def test_smp_with_another_norm(norm: Any) -> None:
    peer = smp_network("UnetPlusPlus", SMALL, depth=3, decoder_use_norm=norm)
    model = check_same(peer, image(3), architecture="smp_unetplusplus", encoder=SMALL)
    assert model.spec.norm == ("instance" if norm else "none")


def test_smp_with_bilinear_interpolation() -> None:
    peer = smp_network("UnetPlusPlus", SMALL, depth=3, decoder_interpolation="bilinear")
    arguments: dict[str, Any] = {"architecture": "smp_unetplusplus", "encoder": SMALL}
    check_same(peer, image(3), interpolation="bilinear", **arguments)


def test_smp_encoder_module_instead_of_a_name() -> None:
    peer = smp_network("UnetPlusPlus", "efficientnet-b0", depth=3)
    arguments = {"architecture": "smp_unetplusplus", "own_encoder": peer.encoder}
    model = check_same(peer, image(3), **arguments)
    assert model.spec.encoder.name == "own"
    assert num_parameters(model) == num_parameters(peer)


def test_own_encoder_is_copied_and_gets_the_weights_of_the_file() -> None:
    peer = randomise(smp_network("UnetPlusPlus", depth=3)).eval()
    other = smp_network("UnetPlusPlus", depth=3)
    before = other.encoder.conv1.weight.clone()
    model = load_peer(peer.state_dict(), architecture="smp_unetplusplus", own_encoder=other.encoder)
    x = image(3)
    with torch.no_grad():
        assert relative_difference(model(x), peer(x)) < 1e-5
    assert torch.equal(other.encoder.conv1.weight, before)


@SLOW
@pytest.mark.parametrize(
    ("encoder", "name", "architecture"),
    [
        *(
            (encoder, *network)
            for encoder in ("vgg11_bn", "densenet121", "efficientnet-b0")
            for network in (("UnetPlusPlus", "smp_unetplusplus"), ("Unet", "smp_unet"))
        ),
        ("mit_b0", "Unet", "smp_unet"),  # smp refuses it for UnetPlusPlus
    ],
)
def test_smp_encoders_that_timm_lacks(encoder: str, name: str, architecture: str) -> None:
    peer = smp_network(name, encoder)
    model = check_same(peer, image(3), architecture=architecture, own_encoder=peer.encoder)
    dead = 4_720_640 if (encoder, name) == ("vgg11_bn", "UnetPlusPlus") else 0
    assert num_parameters(peer) - num_parameters(model) == dead


@SLOW
@pytest.mark.parametrize("encoder", ["tu-dla34", "vgg11"])
def test_smp_encoder_module_with_other_levels_or_another_first_map(encoder: str) -> None:
    peer = smp_network("UnetPlusPlus", encoder, in_channels=2)
    model = check_same(peer, image(2), architecture="smp_unetplusplus", own_encoder=peer.encoder)
    assert model.spec.in_channels == 2


@SLOW
def test_smp_number_of_parameters() -> None:
    peer = smp_network("UnetPlusPlus", "resnet34")
    model = load_peer(peer.state_dict(), architecture="smp_unetplusplus", encoder="resnet34")
    assert num_parameters(model) == num_parameters(peer) == 26_078_609


# MONAI

MODES = {
    "deconv": "transposed",
    "nontrainable": "bilinear_aligned",
    "pixelshuffle": "pixel_shuffle",
}


@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("features", [(12, 12, 13, 14, 15, 16), (9, 11, 13, 14, 15, 7)])
@pytest.mark.parametrize("upsample", MODES)
def test_monai_in_two_dimensions(
    upsample: str, features: tuple[int, ...], deep_supervision: bool
) -> None:
    peer = monai_network(2, features=features, upsample=upsample, deep_supervision=deep_supervision)
    model = check_same(
        peer,
        image(2, 32, 48),
        architecture="monai_basicunetplusplus",
        deep_supervision=deep_supervision,
    )
    assert model.spec.up == MODES[upsample]
    assert model.spec.heads == ((1, 2, 3, 4) if deep_supervision else (4,))
    # Without deep supervision three heads of 1x1 have no effect: weights and a bias a class.
    dead = 0 if deep_supervision else 3 * 3 * (features[0] + 1)
    assert num_parameters(peer) - num_parameters(model) == dead


@pytest.mark.parametrize("upsample", MODES)
def test_monai_in_three_dimensions(upsample: str) -> None:
    peer = monai_network(3, features=(4, 5, 6, 7, 8, 3), upsample=upsample, deep_supervision=True)
    check_same(
        peer,
        image(2, 32, 16, 16),
        architecture="monai_basicunetplusplus",
        deep_supervision=True,
    )


@SLOW
@pytest.mark.parametrize("upsample", MODES)
@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("features", [(12, 12, 13, 14, 15, 16), (32, 32, 64, 128, 256, 32)])
def test_monai_in_three_dimensions_wide(
    upsample: str, features: tuple[int, ...], deep_supervision: bool
) -> None:
    peer = monai_network(3, features=features, upsample=upsample, deep_supervision=deep_supervision)
    check_same(
        peer,
        image(2, 32, 32, 16),
        architecture="monai_basicunetplusplus",
        deep_supervision=deep_supervision,
    )


@pytest.mark.parametrize(("dims", "count"), [(2, 2_410_180), (3, 6_979_844)])
def test_monai_number_of_parameters(dims: int, count: int) -> None:
    peer = monai_network(dims, in_channels=1, out_channels=1)
    arguments: dict[str, Any] = {"architecture": "monai_basicunetplusplus"}
    whole = load_peer(peer.state_dict(), deep_supervision=True, **arguments)
    assert num_parameters(whole) == num_parameters(peer) == count
    last = load_peer(peer.state_dict(), **arguments)
    assert num_parameters(last) == count - 3 * 33


def test_monai_with_batch_norm_without_bias_and_another_slope() -> None:
    peer = monai_network(
        2,
        features=(4, 5, 6, 7, 8, 3),
        norm="batch",
        bias=False,
        act=("LeakyReLU", {"negative_slope": 0.25}),
    )
    arguments = {"architecture": "monai_basicunetplusplus", "leaky_slope": 0.25}
    model = check_same(peer, image(2), **arguments)
    assert (model.spec.norm, model.spec.conv_bias) == ("batch", False)


# NestedUNet


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_nested_unet(deep_supervision: bool) -> None:
    peer = NestedUNet(2, 3, deep_supervision=deep_supervision, base=6)
    model = check_same(peer, image(3), architecture="nested_unet")
    assert num_parameters(model) == num_parameters(peer)


@pytest.mark.parametrize(("deep_supervision", "count"), [(False, 9_163_329), (True, 9_163_428)])
def test_nested_unet_number_of_parameters(deep_supervision: bool, count: int) -> None:
    peer = NestedUNet(1, 3, deep_supervision=deep_supervision)
    model = load_peer(peer.state_dict(), architecture="nested_unet")
    assert num_parameters(model) == num_parameters(peer) == count


# Training


def trained_a_step(network: nn.Module, x: Tensor, output: Callable[[Tensor], Tensor]) -> None:
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    output(x).square().mean().backward()
    optimizer.step()
    network.eval()


@pytest.mark.parametrize("peer_name", ["smp", "nested_unet", "monai"])
def test_a_training_step_is_the_same_too(peer_name: str) -> None:
    """Gradients, batch norm in training and its running statistics, all in one comparison."""
    arguments: dict[str, Any]
    if peer_name == "smp":
        peer, x = smp_network("UnetPlusPlus", SMALL, depth=3), image(3)
        arguments = {"architecture": "smp_unetplusplus", "encoder": SMALL}
    elif peer_name == "monai":
        peer, x = monai_network(2, features=(4, 5, 6, 7, 8, 3), norm="batch"), image(2)
        arguments = {"architecture": "monai_basicunetplusplus"}
    else:
        peer, x = NestedUNet(2, 3, base=4), image(3)
        arguments = {"architecture": "nested_unet"}
    randomise(peer.double())
    x = x.double()
    model = load_peer(peer.state_dict(), **arguments)
    before = copy.deepcopy(model.state_dict())
    trained_a_step(peer, x, lambda x: as_list(peer(x))[-1])
    trained_a_step(model, x, model)
    expected = load_peer(peer.state_dict(), **arguments).state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-10, msg=name)
        # A bias before a batch norm has no gradient; all else moves.
        if value.ndim > 1 or name.endswith(("running_mean", "running_var", "norm1.weight")):
            assert not torch.equal(value, before[name]), name


# What the result keeps, and what is refused


def test_precision_is_kept_and_nothing_is_shared_or_drawn() -> None:
    state = NestedUNet(1, 1, base=2).to(torch.bfloat16).state_dict()
    random_state = torch.get_rng_state()
    model = load_peer(state, architecture="nested_unet")
    assert torch.equal(torch.get_rng_state(), random_state)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    theirs = {value.data_ptr() for value in state.values()}
    assert theirs.isdisjoint(value.data_ptr() for value in model.state_dict().values())
    assert all(p.requires_grad for p in model.parameters())


def test_a_file_of_another_architecture_is_refused_with_both_sides() -> None:
    state = NestedUNet(1, 1, base=2).state_dict()
    with pytest.raises(UserError) as error:
        load_peer(state, architecture="monai_basicunetplusplus")
    text = str(error.value)
    assert "must hold the 202 tensors of monai_basicunetplusplus" in text
    assert "of its 212 it lacks 202 (conv_0_0.conv_0.conv.weight" in text
    assert "has 212 (conv0_0.conv1.weight, conv0_0.conv1.bias, conv0_0.bn1.weight, ..)" in text
    assert "none of another shape" in text


def test_a_whole_checkpoint_is_refused() -> None:
    checkpoint: Any = {"state_dict": NestedUNet(1, 1, base=2).state_dict(), "epoch": 3}
    with pytest.raises(UserError, match="'state_dict' is a OrderedDict; of a checkpoint, give"):
        load_peer(checkpoint, architecture="nested_unet")


def test_single_differences_are_named() -> None:
    state = NestedUNet(1, 1, base=2).state_dict()
    del state["conv1_2.bn2.bias"]
    state["extra"] = torch.zeros(1)
    state["conv0_3.conv1.weight"] = torch.zeros(2, 9, 3, 3)
    with pytest.raises(
        UserError,
        match=(
            r"lacks 1 \(conv1_2.bn2.bias\), has 1 \(extra\) that the recipe does not know, and 1 "
            r"\(conv0_3.conv1.weight \(\(2, 9, 3, 3\) instead of \(2, 10, 3, 3\)\)\) of another"
        ),
    ):
        load_peer(state, architecture="nested_unet")


def test_smp_unet_is_not_unetplusplus() -> None:
    state = smp_network("Unet", SMALL, depth=3).state_dict()
    with pytest.raises(UserError, match=r"lacks \d+ \(.*has \d+ \(decoder.blocks.0.conv1.0"):
        load_peer(state, architecture="smp_unetplusplus", encoder=SMALL)


def test_the_wrong_encoder_is_refused() -> None:
    state = smp_network("UnetPlusPlus", depth=3).state_dict()
    with pytest.raises(
        UserError, match=r"lacks 58 \(encoder.model.conv_stem.* has 120 \(encoder.conv1"
    ):
        load_peer(state, architecture="smp_unetplusplus", encoder=SMALL)


def test_scse_at_stride_4_is_refused() -> None:
    state = smp_network("Unet", "tu-convnext_atto", decoder_attention_type="scse").state_dict()
    with pytest.raises(UserError, match="starts at stride 4, as convnext_atto does"):
        load_peer(state, architecture="smp_unet", encoder="tu-convnext_atto")


@pytest.mark.parametrize("encoder", ["xception", "tu-dla34", "efficientnet-b0", "tu-nothing"])
def test_an_encoder_that_timm_computes_otherwise_is_refused(encoder: str) -> None:
    with pytest.raises(UserError, match=rf"got '{encoder}'; pass the module itself"):
        load_peer({}, architecture="smp_unet", encoder=encoder)


@SLOW
def test_an_encoder_that_starts_at_full_resolution_is_refused() -> None:
    with pytest.raises(UserError, match="those of timm's vgg11 start at 1; pass the module"):
        load_peer({}, architecture="smp_unet", encoder="tu-vgg11")


class WithChannels(nn.Module):
    out_channels = (3, 8, 16)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"architecture": "keras"}, "must be one of smp_unetplusplus, .* but got 'keras'"),
        ({"architecture": "smp_unet"}, "but got neither"),
        (
            {"architecture": "smp_unet", "encoder": "resnet18", "own_encoder": nn.Identity()},
            "but got both",
        ),
        ({"architecture": "nested_unet", "encoder": "resnet18"}, "`encoder` has no effect"),
        ({"architecture": "nested_unet", "deep_supervision": True}, "`deep_supervision` has no"),
        ({"architecture": "nested_unet", "leaky_slope": 0.2}, "`leaky_slope` has no effect"),
        (
            {"architecture": "smp_unet", "encoder": "resnet18", "interpolation": "bicubic"},
            "must be nearest or bilinear, but got 'bicubic'",
        ),
        (
            {"architecture": "smp_unet", "own_encoder": nn.Identity()},
            "its `out_channels`, .* but got Identity with None",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load_peer({}, **arguments)


def test_own_encoder_of_another_depth_is_refused() -> None:
    state = {"decoder.blocks.4.conv1.0.weight": torch.zeros(1)}
    with pytest.raises(UserError, match="depth of the file's decoder, 5, but its depth is 2"):
        load_peer(state, architecture="smp_unet", own_encoder=WithChannels())
