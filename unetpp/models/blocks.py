"""The node of the grid: X[i,j] with one convolution per in-edge.

A convolution over concatenated inputs is the sum of one convolution per input, each with its
slice of the weight. So no concatenation is ever materialised: fewer activations are kept for
backward, and an edge is a module of its own, to be removed, searched or measured.

Shapes: B batch, C channels, *S the two or three axes of space.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unetpp.models import fused
from unetpp.models.gates import AttentionGate, SqueezeExcite
from unetpp.models.layers import (
    InEdge,
    activation,
    can_be_normed_again,
    convolution,
    convolve,
    fitted,
    joins,
    max_pool,
    norm,
    normed,
    norming_again,
    separable,
    up_convolve,
    up_sampling,
    works_in_place,
)
from unetpp.spec import Block, GridSpec

# EfficientDet's, in its fast normalised fusion: keeps the sum of the weights away from zero.
MERGE_EPSILON = 1e-4


class GridNode(nn.Module):
    """X[i,j] = H(its in-edges), H being the block of the spec (paper, eq. 1).

    The order is: resample each source, project it, gate it, merge all, block, gate the output;
    the spec says which of these there are.

    Args:
        edges: in the order in which `forward` gets their sources.
        width: output channels.
        spec: of the network.
        block: of this node; the plain encoder's may be another than the decoder's.
        place: in the "encoder" neither gates nor merges apply, in the "tail", which has one
            in-edge, only the gate of the output.
    """

    def __init__(
        self,
        edges: Sequence[InEdge],
        *,
        width: int,
        spec: GridSpec,
        block: Block,
        place: Literal["encoder", "decoder", "tail"],
    ) -> None:
        super().__init__()
        dims, bias = spec.spatial_dims, spec.conv_bias
        self.in_edges, self.block, self.dropout = tuple(edges), block, spec.dropout
        self.activation = activation(spec)
        self.ups = nn.ModuleDict({e.name: up_sampling(spec, e) for e in edges if e.up_ratio > 1})
        decoder = place == "decoder"
        self.summed = decoder and spec.merge != "concat"
        merged = {"sum": width} if self.summed else {e.name: e.merged for e in edges}
        self.edges = nn.ModuleDict(
            {name: _first(block, dims, incoming, width) for name, incoming in merged.items()}
        )
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.norm1 = norm(spec.norm, dims, width)
        self.conv2 = _second(block, spec, width)
        self.norm2 = (
            norm(spec.norm, dims, width) if block not in ("single_conv", "convnext") else None
        )
        self.shortcuts = nn.ModuleDict(
            {
                name: convolution(dims, incoming, width, 1, bias=False)
                for name, incoming in merged.items()
                if block == "residual"
            }
        )
        self.projections = _projections(edges, spec) if decoder else nn.ModuleDict()
        self.merge_weights = (
            nn.Parameter(torch.ones(len(edges)))
            if decoder and spec.merge == "weighted_sum" and len(edges) > 1
            else None
        )
        attention = decoder and spec.gate == "attention"
        self.gates = _attention_gates(edges, dims) if attention else nn.ModuleDict()
        scse = spec.gate == "scse"
        self.scse_in = SqueezeExcite(dims, [e.merged for e in edges]) if scse and decoder else None
        self.scse_out = SqueezeExcite(dims, [width]) if scse and place != "encoder" else None
        # Only their own 3x3 convolution reads what these edges bring up.
        self.joinable = {
            e.name
            for e in edges
            if dims == 2
            and e.up_ratio == 2
            and spec.up != "pixel_shuffle"
            and block in ("double_conv", "single_conv")
            and not (self.summed or self.projections or attention or self.scse_in)
        }
        self.norm_name = spec.norm
        self.forgets = works_in_place(spec) and not spec.dropout and can_be_normed_again(self.norm1)
        self._initialise()

    def _initialise(self) -> None:
        # He-normal with the fan-in of all edges together: the weights are then distributed as
        # those of one convolution over the concatenation.
        for group in (self.edges, self.shortcuts):
            last = [_weight(_last_convolution(module)) for module in group.values()]
            fan_in = sum(weight[0].numel() for weight in last)
            for weight in last:
                nn.init.normal_(weight, std=(2 / fan_in) ** 0.5)
        if self.conv2 is not None:
            conv = _last_convolution(self.conv2)
            nn.init.kaiming_normal_(_weight(conv), nonlinearity="relu")
            if isinstance(conv.bias, Tensor):
                nn.init.zeros_(conv.bias)

    def forward(self, sources: Sequence[Tensor], size: torch.Size) -> Tensor:
        """The node's features.

        Args:
            sources: one [B, C, *S] per in-edge, in the order of the constructor.
            size: of this level. Where a level has an odd size, an up-sampled source is larger
                (the pooling rounded up) and cropped at the end of the axis, or smaller (it
                rounded down, as in ConvNeXt) and its last slice repeated.

        Returns:
            [B, width, *size].
        """
        inputs = [
            self._prepared(edge, self._laid_out(source), size)
            for edge, source in zip(self.in_edges, sources, strict=True)
        ]
        inputs = self._merged(self._gated(inputs))
        x = self._laid_out(self._gathered(self.edges, inputs, size, self.bias))
        if self.block == "convnext":
            assert self.conv2 is not None
            x = self.norm1(x)
            x = x + self.conv2(x)
        elif self.conv2 is None or self.norm2 is None:
            x = self._activated(normed(self.norm1, x))
        else:
            x = normed(self.norm2, self._normed_and_convolved(x, self.conv2))
            if self.shortcuts:
                x = x + self._gathered(self.shortcuts, inputs, size, None)
            x = self._activated(x)
        return x if self.scse_out is None else self.scse_out([x])[0]

    def _normed_and_convolved(self, x: Tensor, conv: nn.Module) -> Tensor:
        """First norm, activation, second convolution."""
        norm1 = self.norm1
        if not (self.forgets and x.requires_grad and torch.is_grad_enabled() and fused.applies(x)):
            return conv(self._activated(normed(norm1, x)))
        again = norming_again(norm1)
        return fused.forgetting(
            x,
            first=lambda x: normed(norm1, x),
            again=lambda x: self.activation(again(x)),
            rest=lambda x: conv(self.activation(x)),
        )

    def _laid_out(self, x: Tensor) -> Tensor:
        return x if self.norm_name == "group" else fused.in_fast_layout(x)

    def _prepared(self, edge: InEdge, x: Tensor, size: torch.Size) -> Tensor:
        """One source at the node's resolution and with the channels that the merge wants; or as it
        is, if the up-sampling is one with the convolution.
        """
        if edge.name in self.joinable and joins(
            self.ups[edge.name], self.edges[edge.name], x, size
        ):
            return x
        if edge.up_ratio > 1:
            x = self.ups[edge.name](x)
        if edge.down_ratio > 1:
            x = max_pool(x, edge.down_ratio)
        x = fitted(x, size)
        return self.projections[edge.name](x) if edge.name in self.projections else x

    def _gated(self, inputs: list[Tensor]) -> list[Tensor]:
        if self.scse_in is not None:
            return self.scse_in(inputs)
        gating = [x for edge, x in zip(self.in_edges, inputs, strict=True) if edge.up_ratio > 1]
        return [
            self.gates[edge.name](x, gating) if edge.name in self.gates else x
            for edge, x in zip(self.in_edges, inputs, strict=True)
        ]

    def _merged(self, inputs: list[Tensor]) -> list[Tensor]:
        """As they are for a concatenation, which the edges then stand for; else their sum."""
        if not self.summed:
            return inputs
        if self.merge_weights is not None:
            weights = F.relu(self.merge_weights)
            weights = weights / (weights.sum() + MERGE_EPSILON)
            inputs = [w * x for w, x in zip(weights, inputs, strict=True)]
        total = inputs[0]
        for x in inputs[1:]:
            total = total + x
        return [total]

    def _gathered(
        self, convs: nn.ModuleDict, inputs: list[Tensor], size: torch.Size, bias: Tensor | None
    ) -> Tensor:
        """The sum of one convolution an input: that of their concatenation."""
        total: Tensor | None = None
        for (name, conv), x in zip(convs.items(), inputs, strict=True):
            # The bias of the sum rides on the first convolution: no pass over memory of its own.
            rider = bias if total is None else None
            if x.shape[2:] == size:
                y = convolve(conv, x, rider)
            else:
                y = up_convolve(self.ups[name], conv, x, rider)
            # In place: no convolution keeps its output for backward.
            total = y if total is None else total.add_(y)
        assert total is not None
        return total

    def _activated(self, x: Tensor) -> Tensor:
        x = self.activation(x)
        return F.dropout(x, self.dropout, training=self.training) if self.dropout else x


def _first(block: Block, dims: int, incoming: int, width: int) -> nn.Module:
    """The convolution of one edge, without the bias that the edges share."""
    match block:
        case "separable":
            return separable(dims, incoming, width, bias=False)
        case "convnext":
            return convolution(dims, incoming, width, 1, bias=False)
        case "double_conv" | "single_conv" | "residual":
            return convolution(dims, incoming, width, 3, bias=False)


def _second(block: Block, spec: GridSpec, width: int) -> nn.Module | None:
    """What follows the first norm; None where one convolution is all."""
    dims, bias = spec.spatial_dims, spec.conv_bias
    match block:
        case "single_conv":
            return None
        case "separable":
            return separable(dims, width, width, bias=bias)
        case "double_conv" | "residual":
            return convolution(dims, width, width, 3, bias=bias)
        case "convnext":
            return nn.Sequential(
                OrderedDict(
                    depthwise=convolution(dims, width, width, 7, bias=bias, groups=width),
                    norm=norm(spec.norm, dims, width),
                    widen=convolution(dims, width, 4 * width, 1, bias=True),
                    activation=_Activation(spec),
                    narrow=convolution(dims, 4 * width, width, 1, bias=True),
                )
            )


def _projections(edges: Sequence[InEdge], spec: GridSpec) -> nn.ModuleDict:
    """UNet 3+'s convolution of every edge, or the 1x1 that a sum needs where channels differ."""
    dims = spec.spatial_dims
    if spec.projection is None:
        return nn.ModuleDict(
            {
                e.name: convolution(dims, e.resampled, e.merged, 1, bias=True)
                for e in edges
                if e.resampled != e.merged
            }
        )
    return nn.ModuleDict(
        {
            e.name: nn.Sequential(
                OrderedDict(
                    conv=convolution(dims, e.resampled, e.merged, 3, bias=spec.conv_bias),
                    norm=norm(spec.norm, dims, e.merged),
                    activation=_Activation(spec),
                )
            )
            for e in edges
        }
    )


def _attention_gates(edges: Sequence[InEdge], dims: int) -> nn.ModuleDict:
    """One for every edge that does not come from below, where something comes from below."""
    gating = [e.merged for e in edges if e.up_ratio > 1]
    return nn.ModuleDict(
        {e.name: AttentionGate(dims, e.merged, gating) for e in edges if gating and e.up_ratio == 1}
    )


class _Activation(nn.Module):
    """The activation of the spec where a sequence wants a module."""

    def __init__(self, spec: GridSpec) -> None:
        super().__init__()
        self.function = activation(spec)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _last_convolution(module: nn.Module) -> nn.Module:
    return [m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))][-1]


def _weight(module: nn.Module) -> Tensor:
    assert isinstance(module.weight, Tensor)
    return module.weight
