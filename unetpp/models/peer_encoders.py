"""Encoders of segmentation_models_pytorch as those of a grid: timm's twin, or smp's own module."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import timm
from timm.models import FeatureInfo
from torch import Tensor, nn

from unetpp.errors import UserError
from unetpp.models.encoders import describe_encoder
from unetpp.models.layers import norm
from unetpp.models.peer_recipes import Architecture, Shapes, smp_depth
from unetpp.spec import EncoderSpec

# Of smp's own encoders, those that have the names and the computation of timm's.
_TWINS = re.compile(r"resnet\d+|resnext\d+_32x\d+d")
# smp reads other feature maps of these than timm's first ones.
_OWN_LEVELS = re.compile(r"tu-.*(tresnet|dla)")


class PeerEncoder(nn.Module):
    """An encoder of smp that returns the levels of the grid only.

    Args:
        encoder: from [B, C, H, W] to feature maps, finest first.
        num_unread: of its first maps, which the decoder does not read.
        center: what Unet has between the deepest map and the decoder, if anything.
    """

    def __init__(self, encoder: nn.Module, *, num_unread: int, center: nn.Module | None) -> None:
        super().__init__()
        self.encoder, self.num_unread, self.center = encoder, num_unread, center

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps [B, C, H, W] of levels 0..depth."""
        maps = list(self.encoder(image)[self.num_unread :])
        if self.center is not None:
            maps[-1] = self.center(maps[-1])
        return maps


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SmpEncoder:
    """An encoder of smp.

    Attributes:
        spec: its levels on our grid.
        in_channels: of the image.
        module: for a spec that is "own".
        peer_name: from our names below "encoder." to the peer's whole names.
        dead: pattern of its entries on which no level depends.
    """

    spec: EncoderSpec
    in_channels: int
    module: PeerEncoder | None
    peer_name: Callable[[str], str]
    dead: str


def named_encoder(name: str, shapes: Shapes, architecture: Architecture) -> SmpEncoder:
    """An encoder that timm computes too, under smp's name."""
    own = "pass the module itself as `own_encoder`"
    timm_name = name.removeprefix("tu-")
    twin = _TWINS.fullmatch(name) or (name.startswith("tu-") and not _OWN_LEVELS.match(name))
    if not twin or not timm.is_model(timm_name):
        raise UserError(
            f"`encoder` must be tu- with a model of timm, or a resnet or resnext of smp, but got "
            f"{name!r}; {own}"
        )
    with warnings.catch_warnings():
        # timm warns of its own renamed models, as in `describe_encoder`.
        warnings.simplefilter("ignore")
        whole = timm.create_model(timm_name, features_only=True)
    assert isinstance(whole.feature_info, FeatureInfo)
    first = whole.feature_info.reduction()[0]
    if first not in (2, 4):
        raise UserError(
            f"the levels of an encoder of smp start at stride 2 or 4, but those of timm's "
            f"{timm_name} start at {first}; {own}"
        )
    depth = smp_depth(shapes, architecture) - (1 if first == 2 else 2)
    prefix = "encoder.model." if name.startswith("tu-") else "encoder."
    return SmpEncoder(
        spec=describe_encoder(timm_name, depth=depth),
        in_channels=_in_channels(whole, prefix, shapes, own=3),
        module=None,
        peer_name=lambda rest: prefix + rest,
        dead="|".join(re.escape(prefix + entry) + "$" for entry in whole.state_dict()),
    )


def given_encoder(
    module: nn.Module | None, shapes: Shapes, architecture: Architecture
) -> SmpEncoder:
    """An encoder that the user has as smp's module; with the center of Unet, if it has one."""
    channels = getattr(module, "out_channels", None)
    if module is None or not isinstance(channels, Sequence) or len(channels) < 3:
        raise UserError(
            "`own_encoder` must be an encoder of smp with its `out_channels`, one for the image "
            f"and two or more for the levels, but got {type(module).__name__} with {channels}"
        )
    blocks = smp_depth(shapes, architecture, default=len(channels) - 1)
    if len(channels) - 1 != blocks:
        raise UserError(
            f"`own_encoder` must have the depth of the file's decoder, {blocks}, but its depth is "
            f"{len(channels) - 1}; build it with that depth"
        )
    # VGG's first map is not the image, and so no measure of its channels; smp keeps them here.
    in_channels = getattr(module, "_in_channels", channels[0])
    # The first map is of full resolution, which smp does not read; the next may have no channels.
    num_unread = 1 if channels[1] else 2
    strides = [2**level for level in range(num_unread, len(channels))]
    center = (
        _center(channels[-1], shapes)
        if architecture == "smp_unet" and any(n.startswith("decoder.center.") for n in shapes)
        else None
    )
    return SmpEncoder(
        spec=EncoderSpec(name="own", channels=tuple(channels[num_unread:]), strides=tuple(strides)),
        in_channels=in_channels,
        module=PeerEncoder(copy.deepcopy(module), num_unread=num_unread, center=center),
        peer_name=lambda rest: f"decoder.{rest}" if rest.startswith("center.") else rest,
        dead="",
    )


def _in_channels(module: nn.Module, prefix: str, shapes: Shapes, *, own: int) -> int:
    """Channels of the image: `own`, those of `module`, unless the file's stem has others.

    A stem that takes the image apart first has more than the image.
    """
    name, stem = next((n, value) for n, value in module.named_parameters() if value.ndim == 4)
    shape = shapes.get(prefix + name, ())
    return own if len(shape) != 4 or shape == tuple(stem.shape) else shape[1]


def _center(width: int, shapes: Shapes) -> nn.Module:
    """Two convolutions that keep the channels, under the names that smp gives them."""
    plain = "decoder.center.0.0.bias" in shapes
    return nn.Sequential(
        *(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1, bias=plain),
                norm("none" if plain else "batch", 2, width),
                nn.ReLU(),
            )
            for _ in range(2)
        )
    )
