"""The network: it walks the grid of a `GridSpec`, nothing else.

UNet++: Zhou, Siddiquee, Tajbakhsh, Liang, "UNet++: Redesigning Skip Connections to Exploit
Multiscale Features in Image Segmentation", IEEE TMI 39(6), 2020. Own implementation; names in the
state dict are the paper's, for example `nodes.X_0_2.edges.X_0_1.weight`.

Shapes: B batch, C channels, *S the two axes of an image or the three of a volume, K classes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unetpp.errors import UserError
from unetpp.grid import (
    channels,
    down_ratio,
    merged_channels,
    prune_to_head,
    resampled_channels,
    up_ratio,
)
from unetpp.models import fused
from unetpp.models.blocks import GridNode
from unetpp.models.encoders import build_encoder, encoder_features
from unetpp.models.layers import InEdge, convolution, interpolate, likes_channels_last, max_pool
from unetpp.spec import GridSpec, Node, NodeInputs


class UNetPlusPlus(nn.Module):
    """Any network on the grid: U-Net, UNet+, UNet++ and all between are specs, not subclasses.

    Args:
        spec: the description.
        encoder_weights: for an encoder from timm, see `build_encoder`; the grid itself always
            starts from He-normal weights out of torch's current random state.
        own_encoder: the module for a spec whose encoder is "own": from [B, C, *S] to a list of
            feature maps with the channels and strides of the spec, finest first.

    Raises:
        UserError: when an own encoder is given and not wanted, or wanted and not given.

    Example: a UNet++ of depth 4 with deep supervision on 1-channel images.
        >>> from unetpp.grid import plain_encoder, unetpp
        >>> model = UNetPlusPlus(unetpp(plain_encoder(4, width=8), deep_supervision=True))
        >>> list(model.heads(torch.zeros(2, 1, 96, 96)))
        [1, 2, 3, 4]
    """

    def __init__(
        self,
        spec: GridSpec,
        *,
        encoder_weights: Path | str | None = None,
        own_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = _encoder_module(spec, encoder_weights, own_encoder)
        self.channels_last = likes_channels_last(self.encoder) and spec.norm != "group"
        self.nodes = nn.ModuleDict()
        for level in range(spec.depth + 1) if self.encoder is None else ():
            self.nodes[f"X_{level}_0"] = GridNode(
                [_encoder_edge(spec, level)],
                width=spec.encoder.channels[level],
                spec=spec,
                block=spec.encoder.block,
                place="encoder",
            )
        for entry in spec.inputs:
            self.nodes[str(entry.node)] = GridNode(
                _in_edges(spec, entry),
                width=channels(spec, entry.node),
                spec=spec,
                block=spec.block,
                place="decoder",
            )
        self.tails = nn.ModuleDict(
            {f"X_0_{column}": _tail(spec, column) for column in spec.heads if spec.tail}
        )
        self.head_convs = nn.ModuleDict(
            {
                f"X_0_{column}": convolution(
                    spec.spatial_dims,
                    spec.tail[-1] if spec.tail else channels(spec, Node(0, column)),
                    spec.classes,
                    spec.head_kernel,
                    bias=True,
                )
                for column in spec.heads
            }
        )
        # log of the variance of each head's task (Kendall et al. 2018); training reads it.
        self.head_log_variances = (
            nn.Parameter(torch.zeros(len(spec.heads))) if spec.supervision == "learned" else None
        )

    def heads(self, image: Tensor) -> dict[int, Tensor]:
        """Logits of every supervised head, shallow to deep.

        Args:
            image: [B, C, *S], any size.

        Returns:
            {depth: [B, K, *S]}, at the resolution of the image. A grid that starts at a coarser
            stride has its logits enlarged bilinearly, or goes through its tail.

        Raises:
            UserError: when the image has other channels than the spec, or is too small to be
                trained on.
        """
        features = self.features(image)
        logits = {
            column: self._logits(features[Node(0, column)], column, image.shape[2:])
            for column in self.spec.heads
        }
        return {j: x.contiguous() for j, x in logits.items()} if image.is_contiguous() else logits

    def features(self, image: Tensor) -> dict[Node, Tensor]:
        """What every node gives, [B, C, *S] at the resolution of its level; see `heads`."""
        self._check(image)
        features = self._encode(fused.in_fast_layout(image) if self.channels_last else image)
        for node, sources in self.spec.inputs:
            size = features[Node(node.i, 0)].shape[2:]
            features[node] = self.nodes[str(node)]([features[s] for s in sources], size)
        return features

    def forward(self, image: Tensor) -> Tensor:
        """Logits [B, K, *S] of the head or the mean that `inference` of the spec names."""
        heads = self.heads(image)
        if self.spec.inference == "mean":
            return mean_logits(list(heads.values()), overlapping=self.spec.overlapping)
        return heads[primary_head(self.spec)]

    def _check(self, image: Tensor) -> None:
        spec = self.spec
        if image.ndim != spec.spatial_dims + 2 or image.shape[1] != spec.in_channels:
            raise UserError(
                f"images must be [batch, {spec.in_channels} channels, {spec.spatial_dims} axes], "
                f"but got {tuple(image.shape)}; give the spec other `in_channels` or `spatial_dims`"
            )
        learning = self.training and spec.norm == "batch" and image.shape[0] == 1
        if self.encoder is not None or not (learning or spec.norm == "instance"):
            return
        stride = spec.encoder.strides[-1]
        if max(image.shape[2:]) <= stride:
            raise UserError(
                f"the norm {spec.norm} needs more than one value a channel, but {stride}-fold "
                f"pooling leaves one of an image of {' x '.join(map(str, image.shape[2:]))}; the "
                f"smallest size is {stride + 1}"
            )

    def _encode(self, image: Tensor) -> dict[Node, Tensor]:
        if self.encoder is not None:
            if self.spec.encoder.name == "own":
                maps = self.encoder(image)[: self.spec.depth + 1]
            else:
                maps = encoder_features(self.encoder, image, self.spec.encoder)
            return {Node(i, 0): feature for i, feature in enumerate(maps)}
        features: dict[Node, Tensor] = {}
        x = image
        for level in range(self.spec.depth + 1):
            ratio = _stride_ratio(self.spec, level)
            x = max_pool(x, ratio) if ratio > 1 else x
            x = self.nodes[f"X_{level}_0"]([x], x.shape[2:])
            features[Node(level, 0)] = x
        return features

    def _logits(self, x: Tensor, column: int, size: torch.Size) -> Tensor:
        if self.tails:
            tail = self.tails[f"X_0_{column}"]
            assert isinstance(tail, nn.ModuleList)
            for block in tail:
                x = block([x], torch.Size(2 * s for s in x.shape[2:]))
        logits = self.head_convs[f"X_0_{column}"](x)
        if self.tails:
            return logits[(..., *(slice(0, wanted) for wanted in size))]
        return logits if logits.shape[2:] == size else interpolate(logits, size)


def primary_head(spec: GridSpec) -> int:
    """The column of the head that inference reads; the deepest where it reads all."""
    return spec.inference if isinstance(spec.inference, int) else spec.heads[-1]


def mean_logits(logits: list[Tensor], *, overlapping: bool) -> Tensor:
    """Logits of the mean probability: the paper's ensemble mode, in a form that cannot overflow.

    Args:
        logits: [B, K, *S] each.
        overlapping: whether K > 1 means a sigmoid each, not a softmax over axis 1.

    Returns:
        [B, K, *S]. After a softmax they are log-probabilities.
    """
    stacked = torch.stack(logits)
    if stacked.shape[2] > 1 and not overlapping:
        return torch.logsumexp(F.log_softmax(stacked, dim=2), dim=0) - math.log(len(logits))
    return torch.logsumexp(F.logsigmoid(stacked), 0) - torch.logsumexp(F.logsigmoid(-stacked), 0)


def prune(model: UNetPlusPlus, *, depth: int) -> UNetPlusPlus:
    """L^depth as a network of its own: the head's ancestors, with copies of their weights.

    Its output equals `model.heads(x)[depth]` bit for bit, and it holds no parameter that its
    output does not depend on (paper, section III-D). An own encoder is copied whole: what it
    could do without is not known here.

    Raises:
        UserError: when the model has no head at that depth.
    """
    return stand_alone(model, prune_to_head(model.spec, depth), model.state_dict())


def stand_alone(model: UNetPlusPlus, spec: GridSpec, state: Mapping[str, Tensor]) -> UNetPlusPlus:
    """A part of a network as a network of its own, which shares no memory with it.

    Args:
        model: gives its mode, its layout and a copy of its own encoder, if it has one.
        spec: of the part.
        state: holds at least what the state dict of the part names.
    """
    own = copy.deepcopy(model.encoder) if model.spec.encoder.name == "own" else None
    with torch.random.fork_rng(devices=[]):
        part = UNetPlusPlus(spec, own_encoder=own)
    # The stages that decided on it may be gone, and another layout rounds otherwise.
    part.channels_last = model.channels_last
    # Assigned, not copied into: the clones keep device, precision and memory format.
    part.load_state_dict({n: state[n].clone() for n in part.state_dict()}, assign=True)
    return part.train(model.training)


def _encoder_module(
    spec: GridSpec, weights: Path | str | None, own: nn.Module | None
) -> nn.Module | None:
    if (spec.encoder.name == "own") != (own is not None):
        raise UserError(
            "an own encoder is given if and only if the spec says so, but the spec names "
            f"{spec.encoder.name!r} and `own_encoder` is {type(own).__name__}"
        )
    if spec.encoder.name in ("plain", "own"):
        return own
    return build_encoder(spec.encoder, in_channels=spec.in_channels, weights=weights)


def _encoder_edge(spec: GridSpec, level: int) -> InEdge:
    incoming = spec.encoder.channels[level - 1] if level else spec.in_channels
    name = f"X_{level - 1}_0" if level else "image"
    return InEdge(name=name, channels=incoming, resampled=incoming, merged=incoming)


def _stride_ratio(spec: GridSpec, level: int) -> int:
    """By how much the plain encoder pools on its way to `level`."""
    strides = (1, *spec.encoder.strides)
    return strides[level + 1] // strides[level]


def _in_edges(spec: GridSpec, entry: NodeInputs) -> list[InEdge]:
    return [
        InEdge(
            name=str(source),
            channels=channels(spec, source),
            resampled=resampled_channels(spec, source, entry.node),
            merged=merged_channels(spec, source, entry.node),
            up_ratio=up_ratio(spec, source, entry.node),
            down_ratio=down_ratio(spec, source, entry.node),
        )
        for source in entry.sources
    ]


def _tail(spec: GridSpec, column: int) -> nn.ModuleList:
    """The blocks that bring X[0,column] to the resolution of the image, one for each doubling."""
    learned = spec.up in ("transposed", "pixel_shuffle")
    blocks: list[nn.Module] = []
    incoming = channels(spec, Node(0, column))
    for width in spec.tail:
        resampled = width if learned else incoming
        edge = InEdge(
            name="below", channels=incoming, resampled=resampled, merged=resampled, up_ratio=2
        )
        blocks.append(GridNode([edge], width=width, spec=spec, block=spec.block, place="tail"))
        incoming = width
    return nn.ModuleList(blocks)
