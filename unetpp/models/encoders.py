"""Encoders from timm: what they declare, and how they are built, trained or not.

timm: Wightman, PyTorch Image Models (Apache-2.0). The i-th feature map becomes X[i,0], whatever its
stride (2 for ResNet, 4 for ConvNeXt). A flat model, whose maps all have one stride (ViT), gets a
simple feature pyramid over its last map. docs/encoders.md lists timm's families.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
from functools import lru_cache
from pathlib import Path

import timm
import torch
from safetensors import safe_open
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn
from torch.nn import functional as F

from unetpp.errors import UserError
from unetpp.models.simple_pyramid import SimplePyramid, pyramid_strides, pyramid_width
from unetpp.models.strided import pick_pixels_first
from unetpp.models.timm_models import (
    create,
    declared,
    feature_maps,
    flexible_options,
    map_shapes,
    measured,
    meta_model,
    probe_side,
    shortfall,
)
from unetpp.models.unused import Step, take_out, unused_parts
from unetpp.spec import EncoderSpec

_SHORTFALL = "map_shortfall"
_LARGEST_SMALLEST = 4096  # pixels; a model that needs more is not searched any further


def trained_scale(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation, a channel each, of what timm trained the model on; intensities 0..1.

    Raises:
        UserError: timm does not say.
    """
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.mean:
        raise UserError(
            f"a fixed normalisation is the one an encoder was trained with, but timm knows none of "
            f"{name!r}; normalise by case"
        )
    return tuple(config.mean), tuple(config.std)


def describe_encoder(name: str, *, depth: int) -> EncoderSpec:
    """The first `depth` + 1 levels of a timm model, as measured.

    A model with a pyramid is taken as it is. A flat one gets the levels of `SimplePyramid`.

    Raises:
        UserError: unknown name (with the nearest ones), no pyramid, or fewer levels than asked.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, ["plain", *timm.list_models()], n=4)
        hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() names them"
        raise UserError(f"`encoder` must be plain or a model of timm, but got {name!r}; {hint}")
    stated = declared(name).strides
    simple = len(set(stated)) == 1
    strides = pyramid_strides(max(stated)) if simple else tuple(sorted(set(stated)))
    if any(coarse % fine for fine, coarse in itertools.pairwise(strides)):
        raise UserError(
            f"an encoder must give a feature pyramid, in which each stride divides the next, but "
            f"timm's {name} has the strides {stated}; choose another, such as resnet18"
        )
    if len(strides) <= depth:
        raise UserError(
            f"a grid of depth {depth} needs {depth + 1} levels, but {name} has {len(strides)} "
            f"(strides {strides}); use a depth of at most {len(strides) - 1}"
        )
    found = measured(name, _last_map(name) if simple else _native_maps(name, strides[: depth + 1]))
    return EncoderSpec(
        name=name,
        channels=(pyramid_width(found.channels[-1]),) * (depth + 1) if simple else found.channels,
        strides=strides[: depth + 1],
        pyramid="simple" if simple else "native",
        image_size=found.image_size,
        multiple=found.multiple,
    )


def build_encoder(spec: EncoderSpec, *, in_channels: int, weights: Path | str | None) -> nn.Module:
    """A timm model that returns the feature maps of `spec`.

    It holds no parameter that these do not depend on: what belongs to later levels only is taken
    out. What stays has timm's names; the levels of a simple pyramid are at `pyramid`.

    Args:
        spec: from `describe_encoder`.
        in_channels: timm adapts a trained first convolution to them.
        weights: None for an untrained one, "hub" for timm's own (downloaded), or a local file
            in timm's naming.

    Raises:
        UserError: when the weights cannot be read or do not fit, or the model does not take the
            channels.
    """
    maps = _maps(spec)
    steps, lacking, embed_dim = _plan(spec, in_channels)
    try:
        if isinstance(weights, Path):
            _check_names(spec.name, weights)
        encoder = create(
            spec.name,
            in_channels=in_channels,
            levels=maps,
            weights=weights,
            options=_options(spec),
        )
    except UserError:
        raise
    except Exception as error:
        if weights is None:
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the weights {weights} must fit timm's {spec.name}, but loading them failed "
            f"({reason}); give a file saved from that model"
        ) from error
    take_out(encoder, steps)
    pick_pixels_first(encoder)
    # Not a weight and not of the spec: it follows from what the model does to its border.
    setattr(encoder, _SHORTFALL, lacking)
    if spec.pyramid == "simple":
        assert isinstance(encoder, FeatureGetterNet)  # it does not run what is put beside `model`
        encoder.pyramid = SimplePyramid(
            embed_dim=embed_dim,
            patch=declared(spec.name).strides[-1],
            num_levels=len(spec.channels),
        )
    return encoder


def encoder_features(encoder: nn.Module, image: Tensor, spec: EncoderSpec) -> list[Tensor]:
    """The feature maps [B, C, H, W] of each level, finest first.

    A map has ceil(size / stride) rows and columns. Where the spec says so, the image is padded
    with zeros (`multiple`) or resampled bilinearly (`image_size`) on the way in, and the maps are
    cropped or resampled on the way out. A map that lost its border to a model without padding has
    it given back as zeros.

    Args:
        encoder: from `build_encoder`, or a module that gives the maps of the spec.
        image: [B, C, H, W].
        spec: of the encoder.

    Raises:
        UserError: when the image is smaller than the encoder can halve, or the maps have other
            channels than the spec says.
    """
    if torch.compiler.is_compiling():
        return _levels(encoder, image, spec)
    try:
        return _levels(encoder, image, spec)
    except UserError:
        raise
    except Exception as error:
        _check_size(image, spec, error)
        raise


@lru_cache
def smallest_size(spec: EncoderSpec) -> int:
    """Rows and columns, in pixels, of the smallest image that the encoder takes.

    Any size of at least this works. It is 1 where the image is resampled, and for plain encoders.
    """
    if not timm.is_model(spec.name) or spec.image_size is not None:
        return 1
    model = meta_model(spec.name, levels=_maps(spec))

    def works(multiples: int) -> bool:
        side = multiples * spec.multiple
        return map_shapes(model, (side, side)) is not None

    enough = 1
    while not works(enough) and enough * spec.multiple < _LARGEST_SMALLEST:
        enough *= 2
    too_few = enough // 2
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        too_few, enough = (too_few, middle) if works(middle) else (middle, enough)
    return (enough - 1) * spec.multiple + 1


def _levels(encoder: nn.Module, image: Tensor, spec: EncoderSpec) -> list[Tensor]:
    height, width = image.shape[-2:]
    if spec.image_size is not None:
        image = F.interpolate(image, size=spec.image_size, mode="bilinear", align_corners=False)
    elif spec.multiple > 1:
        image = F.pad(image, (0, -width % spec.multiple, 0, -height % spec.multiple))
    features = feature_maps(encoder, image)
    for level, missing in enumerate(getattr(encoder, _SHORTFALL, ())):
        before, after = missing // 2, missing - missing // 2
        features[level] = F.pad(features[level], (before, after, before, after))
    if spec.pyramid == "simple":
        features = encoder.get_submodule("pyramid")(features[-1])
    found = tuple(feature.shape[1] for feature in features)
    if found != spec.channels:
        raise UserError(
            f"the maps of {spec.name} must have the channels of its description, {spec.channels}, "
            f"but have {found}; describe it again with the timm that is installed"
        )
    if spec.image_size is None and spec.multiple == 1:
        return features
    return [
        _placed(feature, (-(-height // stride), -(-width // stride)), spec)
        for feature, stride in zip(features, spec.strides, strict=True)
    ]


def _placed(feature: Tensor, size: tuple[int, int], spec: EncoderSpec) -> Tensor:
    if spec.image_size is not None:
        return F.interpolate(feature, size=size, mode="bilinear", align_corners=False)
    return feature[..., : size[0], : size[1]]


def _check_size(image: Tensor, spec: EncoderSpec, error: Exception) -> None:
    height, width = image.shape[-2:]
    smallest = smallest_size(spec)
    if min(height, width) < smallest:
        raise UserError(
            f"images must be at least {smallest} x {smallest} pixels for the encoder {spec.name} "
            f"with {len(spec.strides)} levels, but got {height} x {width}; enlarge them, or use a "
            "smaller depth"
        ) from error
    if "more than 1 value per channel" in str(error):
        raise UserError(
            f"a batch norm learns from more than one value a channel, but {len(image)} image of "
            f"{height} x {width} pixels has one at the coarsest stride of {spec.name}, "
            f"{spec.strides[-1]}; train on larger images or larger batches"
        ) from error


def _maps(spec: EncoderSpec) -> tuple[int, ...]:
    """The numbers at timm of the maps that the levels are made from."""
    return (
        _last_map(spec.name) if spec.pyramid == "simple" else _native_maps(spec.name, spec.strides)
    )


def _last_map(name: str) -> tuple[int, ...]:
    return (declared(name).numbers[-1],)


def _native_maps(name: str, strides: tuple[int, ...]) -> tuple[int, ...]:
    """The last map of each stride: of two at one resolution, the second has seen more."""
    stated = declared(name)
    last = dict(zip(stated.strides, stated.numbers, strict=True))
    return tuple(last[stride] for stride in strides)


def _options(spec: EncoderSpec) -> tuple[tuple[str, bool], ...]:
    return flexible_options(spec.name) if spec.image_size is None else ()


@lru_cache
def _plan(spec: EncoderSpec, in_channels: int) -> tuple[tuple[Step, ...], tuple[int, ...], int]:
    """What to take out of the model, what its maps lack at the border, and the last one's channels.

    Raises:
        UserError: when the model does not take the channels.
    """
    maps = _maps(spec)
    flexible = spec.image_size is None
    model = meta_model(spec.name, levels=maps, flexible=flexible, in_channels=in_channels)
    side = -(-probe_side(spec.name) // spec.multiple) * spec.multiple
    size = spec.image_size or (side, side)
    shapes = map_shapes(model, size, in_channels=in_channels)
    if shapes is None:
        raise UserError(
            f"`in_channels` must be 3 for the encoder {spec.name}, whose first layer timm cannot "
            f"adapt, but got {in_channels}; choose another, such as resnet18"
        )
    lacking: tuple[int, ...] = ()
    if spec.multiple > 1 or spec.image_size is not None:
        numbers, strides = declared(spec.name).numbers, declared(spec.name).strides
        lacking = shortfall(shapes, size, tuple(strides[numbers.index(m)] for m in maps))
    device = next(model.parameters()).device
    image = torch.zeros(1, in_channels, *size, device=device)
    with torch.random.fork_rng(devices=[]):
        steps = unused_parts(model.eval(), image, feature_maps)
    return steps, lacking if any(lacking) else (), shapes[-1][0]


def _check_names(name: str, file: Path) -> None:
    """Refuse a file that lacks a weight: timm would leave that one untrained without a word."""
    weights_fingerprint(file)
    with safe_open(file, framework="pt") as stream:
        given = set(stream.keys())
    whole = timm.create_model(name, num_classes=0).state_dict()
    lacking = [k for k in whole if k not in given and not k.endswith("num_batches_tracked")]
    if lacking:
        raise UserError(
            f"the weights {file} must hold every weight of timm's {name}, but lack {len(lacking)} "
            f"of {len(whole)} ({lacking[0]} first); give a file saved from that model"
        )


def weights_fingerprint(file: Path) -> str:
    """Fingerprint of a local weight file, "sha256:<hex>", as a recipe names it.

    Raises:
        UserError: when there is no such file, or it is not a safetensors file by its name.
    """
    if not file.is_file():
        raise UserError(f"`encoder_weights` must be hub or an existing file, but {file} is none")
    if file.suffix != ".safetensors":
        raise UserError(
            f"weights are read from .safetensors files only, but got {file}; "
            "convert it with safetensors.torch.save_file"
        )
    with file.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
