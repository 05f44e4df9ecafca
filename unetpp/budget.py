"""What a network costs, counted from its description alone: no torch in it.

A ledger lists every layer of the grid with its parameters and its multiply-accumulates; what torch
counts on the built network is the same to the digit. A timm or own encoder is not in the ledger:
only torch knows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from unetpp.errors import UserError
from unetpp.grid import (
    channels,
    merged_channels,
    resampled_channels,
    unet,
    up_ratio,
)
from unetpp.nodes import Node
from unetpp.spec import Block, GridSpec

Match = Literal["parameters", "macs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One entry of the ledger.

    Attributes:
        node: where it belongs, "X_0_2"; a head or a tail belongs to its node.
        name: within the node.
        parameters: weights and biases.
        macs: multiply-accumulates at one position of the resolution that `stride` gives.
        stride: of that resolution against the image.
    """

    node: str
    name: str
    parameters: int
    macs: int
    stride: int


def ledger(spec: GridSpec) -> list[Layer]:
    """Every layer that the grid owns, in the order in which they are computed."""
    layers: list[Layer] = []
    if spec.encoder.name == "plain":
        incoming = (spec.in_channels, *spec.encoder.channels)
        for level, stride in enumerate(spec.encoder.strides):
            layers += _Place(spec, f"X_{level}_0", stride).block(
                spec.encoder.block, [incoming[level]], incoming[level + 1]
            )
    for node, sources in spec.inputs:
        layers += _decoder_node(spec, node, sources)
    for column in spec.heads:
        layers += _tail_and_head(spec, Node(0, column))
    if spec.supervision == "learned":
        count = len(spec.heads)
        layers.append(Layer(node="", name="supervision", parameters=count, macs=0, stride=1))
    return layers


def count_parameters(spec: GridSpec) -> int:
    """Trainable parameters of everything that the grid owns; a timm or own encoder's are not in."""
    return sum(layer.parameters for layer in ledger(spec))


def count_grid_macs(spec: GridSpec, size: Sequence[int]) -> int:
    """Multiply-accumulates of one forward pass on one image; a timm or own encoder's are not in.

    Args:
        spec: the network.
        size: (H, W), or (D, H, W), in pixels; odd sizes are rounded up at every stride.
    """
    return sum(
        layer.macs * math.prod(math.ceil(s / layer.stride) for s in size) for layer in ledger(spec)
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """Makes the layers of one node."""

    spec: GridSpec
    node: str
    stride: int

    def conv(
        self, name: str, incoming: int, width: int, kernel: int, *, bias: bool, groups: int = 1
    ) -> Layer:
        weights = kernel**self.spec.spatial_dims * incoming * width // groups
        return self.layer(name, weights + width * bias, weights)

    def layer(self, name: str, parameters: int, macs: int = 0, *, stride: int = 0) -> Layer:
        return Layer(
            node=self.node,
            name=name,
            parameters=parameters,
            macs=macs,
            stride=stride or self.stride,
        )

    def norm(self, name: str, width: int) -> Layer:
        return self.layer(name, 0 if self.spec.norm == "none" else 2 * width)

    def separable(self, name: str, incoming: int, width: int, *, bias: bool) -> Iterator[Layer]:
        yield self.conv(f"{name}.depthwise", incoming, incoming, 3, bias=False, groups=incoming)
        yield self.conv(f"{name}.pointwise", incoming, width, 1, bias=bias)

    def block(self, block: Block, incoming: Sequence[int], width: int) -> Iterator[Layer]:
        bias = self.spec.conv_bias
        for k, gathered in enumerate(incoming):
            if block == "separable":
                yield from self.separable(f"edges.{k}", gathered, width, bias=False)
            else:
                kernel = 1 if block == "convnext" else 3
                yield self.conv(f"edges.{k}", gathered, width, kernel, bias=False)
            if block == "residual":
                yield self.conv(f"shortcuts.{k}", gathered, width, 1, bias=False)
        yield self.layer("bias", width * bias)
        yield self.norm("norm1", width)
        match block:
            case "single_conv":
                return
            case "convnext":
                yield self.conv("conv2.depthwise", width, width, 7, bias=bias, groups=width)
                yield self.norm("conv2.norm", width)
                yield self.conv("conv2.widen", width, 4 * width, 1, bias=True)
                yield self.conv("conv2.narrow", 4 * width, width, 1, bias=True)
                return
            case "separable":
                yield from self.separable("conv2", width, width, bias=bias)
            case "double_conv" | "residual":
                yield self.conv("conv2", width, width, 3, bias=bias)
        yield self.norm("norm2", width)

    def up(self, name: str, incoming: int, width: int, ratio: int) -> Iterator[Layer]:
        dims = self.spec.spatial_dims
        below = self.stride * ratio
        match self.spec.up:
            case "transposed":
                weights = ratio**dims * incoming * width
                yield self.layer(name, weights + width, weights, stride=below)
            case "pixel_shuffle":
                weights = 3**dims * incoming * width * ratio**dims
                yield self.layer(name, weights + width * ratio**dims, weights, stride=below)
            case "nearest" | "bilinear" | "bilinear_aligned":
                if incoming != width:
                    weights = incoming * width
                    yield self.layer(name, weights + width, weights, stride=below)

    def scse(self, name: str, incoming: Sequence[int]) -> Iterator[Layer]:
        total = sum(incoming)
        hidden = max(1, total // 16)
        # Squeezed to one position: its multiply-accumulates do not grow with the image.
        parameters = 2 * total * hidden + hidden + total
        yield self.layer(f"{name}.channels", parameters, 2 * total * hidden, stride=_WHOLE)
        yield self.layer(f"{name}.position", total + 1, total)


# A stride that leaves one position of any image.
_WHOLE = 2**62


def _decoder_node(spec: GridSpec, node: Node, sources: Sequence[Node]) -> Iterator[Layer]:
    place = _Place(spec, str(node), spec.encoder.strides[node.i])
    width = channels(spec, node)
    resampled = {s: resampled_channels(spec, s, node) for s in sources}
    merged = {s: merged_channels(spec, s, node) for s in sources}
    below = [s for s in sources if up_ratio(spec, s, node) > 1]
    for s in below:
        ratio = up_ratio(spec, s, node)
        yield from place.up(f"ups.{s}", channels(spec, s), resampled[s], ratio)
    for s in sources:
        if spec.projection is not None:
            yield place.conv(f"projections.{s}", resampled[s], merged[s], 3, bias=spec.conv_bias)
            yield place.norm(f"projections.{s}.norm", merged[s])
        elif resampled[s] != merged[s]:
            yield place.conv(f"projections.{s}", resampled[s], merged[s], 1, bias=True)
    if spec.gate == "scse":
        yield from place.scse("scse_in", list(merged.values()))
    if spec.gate == "attention" and below:
        for s in sources:
            if s not in below:
                between = max(1, merged[s] // 2)
                yield place.conv(f"gates.{s}.skip", merged[s], between, 1, bias=True)
                gating = sum(merged[b] for b in below)
                yield place.conv(f"gates.{s}.gating", gating, between, 1, bias=False)
                yield place.conv(f"gates.{s}.psi", between, 1, 1, bias=True)
    if spec.merge == "weighted_sum" and len(sources) > 1:
        yield place.layer("merge_weights", len(sources))
    incoming = [merged[s] for s in sources] if spec.merge == "concat" else [width]
    yield from place.block(spec.block, incoming, width)
    if spec.gate == "scse":
        yield from place.scse("scse_out", [width])


def _tail_and_head(spec: GridSpec, node: Node) -> Iterator[Layer]:
    stride, incoming = spec.encoder.strides[0], channels(spec, node)
    learned = spec.up in ("transposed", "pixel_shuffle")
    for k, width in enumerate(spec.tail):
        stride //= 2
        place = _Place(spec, str(node), stride)
        resampled = width if learned else incoming
        layers = [
            *place.up("up", incoming, resampled, 2),
            *place.block(spec.block, [resampled], width),
            *(place.scse("scse_out", [width]) if spec.gate == "scse" else ()),
        ]
        yield from (replace(layer, name=f"tail.{k}.{layer.name}") for layer in layers)
        incoming = width
    place = _Place(spec, str(node), stride)
    yield place.conv("head", incoming, spec.classes, spec.head_kernel, bias=True)


def wide_unet(like: GridSpec, *, match: Match = "parameters", tolerance: float = 0.01) -> GridSpec:
    """The plain U-Net whose widths are scaled until it costs what `like` does.

    The control of the paper (section IV-B): more parameters without nested skips. Every width of
    the U-Net (of the decoder alone, when the encoder is not the plain one) is the rounded multiple
    of the width in `like`; the multiple with the nearest cost is taken, and the widths are then
    moved by one, coarsest level first, while that brings the cost nearer; two at a time, where
    one at a time does not come within `tolerance`.

    Args:
        like: any spec; everything but its widths, edges and heads is kept.
        match: "parameters", or "macs": multiply-accumulates at any size that all strides divide.
        tolerance: largest relative difference of the costs.

    Raises:
        UserError: when no integer widths come within `tolerance`.
    """
    deepest = [like.encoder.strides[-1]] * like.spatial_dims

    def cost(spec: GridSpec) -> int:
        return count_parameters(spec) if match == "parameters" else count_grid_macs(spec, deepest)

    target = cost(like)

    def distance(spec: GridSpec) -> int:
        return abs(cost(spec) - target)

    best = min((_scaled_unet(like, 1 + step / 512) for step in range(-128, 513)), key=distance)
    best = _descended(best, distance, _neighbours)
    if distance(best) > tolerance * target:
        best = _descended(best, distance, _second_neighbours)
    if distance(best) > tolerance * target:
        raise UserError(
            f"no integer widths give a U-Net within {tolerance:.0%} of {target:,} {match} "
            f"(nearest: {cost(best):,}); choose larger widths"
        )
    return best


def _descended(
    spec: GridSpec,
    distance: Callable[[GridSpec], int],
    neighbours: Callable[[GridSpec], Iterator[GridSpec]],
) -> GridSpec:
    """The spec after steps to the nearest neighbour, until none is nearer."""
    while True:
        nearest = min(neighbours(spec), key=distance)
        if distance(nearest) >= distance(spec):
            return spec
        spec = nearest


def _scaled_unet(like: GridSpec, factor: float) -> GridSpec:
    def scale(width: int) -> int:
        return max(1, round(factor * width))

    encoder = like.encoder
    if encoder.name == "plain":
        encoder = replace(encoder, channels=tuple(map(scale, encoder.channels)))
    plain = unet(encoder)
    return replace(
        like,
        encoder=encoder,
        widths=tuple(map(scale, like.widths)),
        up_widths=tuple(map(scale, like.up_widths)),
        tail=tuple(map(scale, like.tail)),
        node_widths=(),
        inputs=plain.inputs,
        heads=plain.heads,
        inference="last",
        supervision="equal",
    )


def _neighbours(spec: GridSpec) -> Iterator[GridSpec]:
    """The spec with the width of one level moved by one, encoder and decoder together."""
    plain = spec.encoder.name == "plain"
    for level in reversed(range(spec.depth + 1 if plain else spec.depth)):
        for step in (-1, 1):
            widths = _moved(spec.widths, level, step)
            encoded = spec.encoder.channels
            encoded = _moved(encoded, level, step) if plain else encoded
            if min(*widths, *encoded) >= 1:
                yield replace(spec, widths=widths, encoder=replace(spec.encoder, channels=encoded))


def _second_neighbours(spec: GridSpec) -> Iterator[GridSpec]:
    return (second for first in _neighbours(spec) for second in _neighbours(first))


def _moved(values: tuple[int, ...], index: int, step: int) -> tuple[int, ...]:
    return tuple(v + step if k == index else v for k, v in enumerate(values))
