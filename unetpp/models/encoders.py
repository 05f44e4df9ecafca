"""Encoders from timm: what they declare, and how they are built, trained or not.

timm: Wightman, PyTorch Image Models (Apache-2.0). Of its models those with a feature pyramid are
taken: the i-th feature map becomes X[i,0], whatever its stride (2 for ResNet, 4 for ConvNeXt). Some
of them want one input size; others are refused when a study is prepared.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import warnings
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import safe_open
from timm.layers.format import Format
from timm.models import FeatureInfo
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from torch import Tensor, nn

from unetpp.errors import UserError
from unetpp.spec import EncoderSpec


def describe_encoder(name: str, *, depth: int) -> EncoderSpec:
    """Channels and strides of the first `depth` + 1 feature maps of a timm model.

    Raises:
        UserError: unknown name (with the nearest ones), no pyramid, or fewer levels than asked.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, ["plain", *timm.list_models()], n=4)
        hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() names them"
        raise UserError(f"`encoder` must be plain or a model of timm, but got {name!r}; {hint}")
    info = _feature_info(_features_only(name))
    channels, strides = tuple(info.channels()), tuple(info.reduction())
    if any(coarse <= fine for fine, coarse in itertools.pairwise(strides)):
        raise UserError(
            f"an encoder must halve its resolution from level to level, but {name} has the "
            f"strides {strides}; choose one with a feature pyramid, such as resnet18"
        )
    if len(channels) <= depth:
        raise UserError(
            f"a grid of depth {depth} needs {depth + 1} levels, but {name} has {len(channels)} "
            f"(strides {strides}); use a depth of at most {len(channels) - 1}"
        )
    return EncoderSpec(name=name, channels=channels[: depth + 1], strides=strides[: depth + 1])


def build_encoder(spec: EncoderSpec, *, in_channels: int, weights: Path | str | None) -> nn.Module:
    """A timm model that returns the feature maps of `spec`, and holds no deeper stage.

    HRNet and pre-activation Xception are exceptions: their stages cannot be taken apart, so with
    fewer levels than they have they keep some weights that no feature map depends on.

    Args:
        spec: from `describe_encoder`.
        in_channels: timm adapts a trained first convolution to them.
        weights: None for an untrained one, "hub" for timm's own (downloaded), or a local file
            in timm's naming.

    Raises:
        UserError: when the weights cannot be read or do not fit.
    """
    levels = tuple(range(len(spec.channels)))
    try:
        if isinstance(weights, Path):
            _check_names(spec.name, weights)
        encoder = _features_only(spec.name, in_channels=in_channels, levels=levels, weights=weights)
        if isinstance(encoder, (EfficientNetFeatures, MobileNetV3Features)):
            # Alone among timm's extractors, these two run all stages whatever they return.
            encoder.blocks = encoder.blocks[: _feature_info(encoder).get("stage")[-1]]
        return encoder
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


def _feature_info(encoder: nn.Module) -> FeatureInfo:
    info = encoder.feature_info
    assert isinstance(info, FeatureInfo)
    return info


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


def encoder_features(encoder: nn.Module, image: Tensor, spec: EncoderSpec) -> list[Tensor]:
    """The feature maps [B, C, H, W] of each level, finest first; channels-last ones are turned.

    Raises:
        UserError: when timm declares other channels than the model gives.
    """
    features: list[Tensor] = encoder(image)
    if getattr(encoder, "output_fmt", None) == Format.NHWC:
        features = [feature.permute(0, 3, 1, 2) for feature in features]
    found = tuple(feature.shape[1] for feature in features)
    if found != spec.channels:
        raise UserError(
            f"the channels that timm declares for {spec.name}, {spec.channels}, must be those of "
            f"its feature maps, but these have {found}; choose another encoder"
        )
    return features


def _features_only(
    name: str,
    *,
    in_channels: int = 3,
    levels: tuple[int, ...] | None = None,
    weights: Path | str | None = None,
) -> nn.Module:
    overlay = {"file": str(weights)} if isinstance(weights, Path) else None
    arguments: dict[str, Any] = {} if levels is None else {"out_indices": levels}
    with warnings.catch_warnings():
        # timm warns of its own renamed models and layers; the user can do nothing about it here.
        warnings.simplefilter("ignore")
        try:
            return timm.create_model(
                name,
                pretrained=weights is not None,
                features_only=True,
                in_chans=in_channels,
                pretrained_cfg_overlay=overlay,
                **arguments,
            )
        except (RuntimeError, AttributeError, NotImplementedError) as error:
            if weights is not None or isinstance(error, torch.OutOfMemoryError):
                raise
            raise UserError(
                f"an encoder must give a feature pyramid, but timm's {name} has none "
                f"({type(error).__name__}); choose another, such as resnet18"
            ) from error
