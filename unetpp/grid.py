"""Pure functions on a `GridSpec`: presets, channels, resampling ratios, pruning.

| preset      | nodes                | in-edges of X[i,j], j >= 1                              |
|-------------|----------------------|---------------------------------------------------------|
| `no_skips`  | X[i,0] and X[i,d-i]  | up(X[i+1,j-1])                                          |
| `unet`      | X[i,0] and X[i,d-i]  | X[i,0], up(X[i+1,j-1])                                  |
| `unet_e`    | triangle             | X[i,0], up(X[i+1,j-1])                                  |
| `unet_plus` | triangle             | X[i,j-1], up(X[i+1,j-1])                                |
| `unetpp`    | triangle             | X[i,0..j-1], up(X[i+1,j-1])                             |
| `unet3plus` | X[i,0] and X[i,d-i]  | pooled X[k,0] of k < i, X[i,0], up(X[k,d-k]) of k > i   |

`unetpp.budget` adds `wide_unet`, the `unet` whose widths are matched to a budget.

Names and in-edges: UNet++ (Zhou et al., DLMIA 2018 eq. 1; TMI 2019, sections III-A and III-B);
UNet 3+ (Huang et al., ICASSP 2020, section 2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypedDict, Unpack

from unetpp.errors import UserError
from unetpp.nodes import Node, NodeInputs, NodeWidth, ancestors, as_node
from unetpp.spec import (
    Activation,
    Block,
    EncoderSpec,
    Gate,
    GridSpec,
    Merge,
    Norm,
    Supervision,
    Up,
    restricted,
)

# Of a level or a node: a number of channels, a share of the encoder's, or the encoder's own.
Width = int | float | Literal["encoder"]


class Options(TypedDict, total=False):
    """The fields of `GridSpec` that every preset hands on."""

    in_channels: int
    classes: int
    norm: Norm
    inference: Literal["last", "mean"] | int
    spatial_dims: Literal[2, 3]
    block: Block
    conv_bias: bool
    activation: Activation
    leaky_slope: float
    dropout: float
    up: Up
    up_widths: tuple[int, ...]
    projection: int | None
    merge: Merge
    gate: Gate
    supervision: Supervision
    tail: tuple[int, ...]
    head_kernel: Literal[1, 3]
    overlapping: bool


class Widths(TypedDict, total=False):
    """How wide the decoder of a preset is.

    widths: of its levels, finest first, or one value for all; "encoder" when left out.
    node_widths: of single nodes, such as {"X_0_4": 16}.
    """

    widths: Width | Sequence[Width]
    node_widths: Mapping[str, Width]


class PresetOptions(Widths, Options, total=False):
    """Everything that a preset takes by name beside its encoder and its supervision."""


def plain_encoder(depth: int, *, width: int = 32, block: Block = "double_conv") -> EncoderSpec:
    """The paper's encoder: `width` x 2^i filters on level i = 0..depth, at stride 2^i."""
    if depth < 1:
        raise UserError(f"`depth` must be at least 1, but got {depth}")
    levels = range(depth + 1)
    return EncoderSpec(
        name="plain",
        channels=tuple(width * 2**i for i in levels),
        strides=tuple(2**i for i in levels),
        block=block,
    )


def no_skips(encoder: EncoderSpec | int, **options: Unpack[PresetOptions]) -> GridSpec:
    """The control without any skip: an encoder and a decoder, and nothing between them."""
    return _diagonal(_encoder(encoder), lambda node, _: (_below(node),), options)


def unet(encoder: EncoderSpec | int, **options: Unpack[PresetOptions]) -> GridSpec:
    """The plain U-Net: one decoder node a level, X[i,d-i], with the one long skip from X[i,0].

    Args:
        encoder: a description, or the depth of the paper's plain encoder.
        options: fields of `GridSpec`; `widths` and `node_widths` as in `Widths`.
    """
    return _diagonal(_encoder(encoder), lambda node, _: (Node(node.i, 0), _below(node)), options)


def unet_e(encoder: EncoderSpec | int, **options: Unpack[PresetOptions]) -> GridSpec:
    """UNet^e: U-Nets of depth 1..d on one encoder; only deep supervision trains the shallow ones."""
    return _triangle(
        _encoder(encoder), lambda node: (Node(node.i, 0),), options, deep_supervision=True
    )


def unet_plus(
    encoder: EncoderSpec | int,
    *,
    deep_supervision: bool = False,
    **options: Unpack[PresetOptions],
) -> GridSpec:
    """UNet+: every node of the triangle reads its left neighbour, without the dense skips."""
    return _triangle(
        _encoder(encoder),
        lambda node: (Node(node.i, node.j - 1),),
        options,
        deep_supervision=deep_supervision,
    )


def unetpp(
    encoder: EncoderSpec | int,
    *,
    deep_supervision: bool = False,
    **options: Unpack[PresetOptions],
) -> GridSpec:
    """UNet++: every node of the triangle reads all nodes to its left on its level."""
    return _triangle(
        _encoder(encoder),
        lambda node: tuple(Node(node.i, k) for k in range(node.j)),
        options,
        deep_supervision=deep_supervision,
    )


def unet3plus(encoder: EncoderSpec | int, **options: Unpack[PresetOptions]) -> GridSpec:
    """UNet 3+: one decoder node a level, which reads all finer and deeper levels at full scale.

    Every in-edge is brought to `projection` channels, 64 unless given; the node is one convolution
    over their d + 1 and as wide as they are together, unless `widths` say otherwise. The authors add
    supervision on coarse levels and a classification branch, which are not part of this.
    """
    encoder = _encoder(encoder)
    depth = len(encoder.channels) - 1

    def sources(node: Node, depth: int) -> tuple[Node, ...]:
        finer = (Node(k, 0) for k in range(node.i + 1))
        deeper = (Node(k, depth - k) for k in range(node.i + 1, depth + 1))
        return (*finer, *deeper)

    projection = options.get("projection") or 64
    defaults: PresetOptions = {
        "widths": projection * (depth + 1),
        "projection": projection,
        "block": "single_conv",
        "up": "bilinear",
        "head_kernel": 3,
    }
    return _diagonal(encoder, sources, defaults | options)


def _encoder(encoder: EncoderSpec | int) -> EncoderSpec:
    if isinstance(encoder, int):
        return plain_encoder(encoder)
    if not isinstance(encoder, EncoderSpec):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UserError(
            f"a preset is given a depth or an encoder, but got {encoder!r}; a model of timm is "
            "described by describe_encoder('resnet18', depth=4)"
        )
    return encoder


def _below(node: Node) -> Node:
    return Node(node.i + 1, node.j - 1)


def _diagonal(
    encoder: EncoderSpec, sources: Callable[[Node, int], tuple[Node, ...]], options: PresetOptions
) -> GridSpec:
    depth = len(encoder.channels) - 1
    nodes = [Node(depth - j, j) for j in range(1, depth + 1)]
    inputs = tuple(NodeInputs(node, sources(node, depth)) for node in nodes)
    return _spec(encoder, inputs, (depth,), options)


def _triangle(
    encoder: EncoderSpec,
    skips: Callable[[Node], tuple[Node, ...]],
    options: PresetOptions,
    *,
    deep_supervision: bool,
) -> GridSpec:
    depth = len(encoder.channels) - 1
    nodes = [Node(i, j) for j in range(1, depth + 1) for i in range(depth - j + 1)]
    inputs = tuple(NodeInputs(node, (*skips(node), _below(node))) for node in nodes)
    heads = tuple(range(1, depth + 1)) if deep_supervision else (depth,)
    return _spec(encoder, inputs, heads, options)


def _spec(
    encoder: EncoderSpec,
    inputs: tuple[NodeInputs, ...],
    heads: tuple[int, ...],
    options: PresetOptions,
) -> GridSpec:
    depth = len(encoder.channels) - 1
    given = options.get("widths", "encoder")
    widths: list[Width] = (
        list(given)
        if isinstance(given, Sequence) and not isinstance(given, str)
        else [given] * depth
    )
    if len(widths) != depth:
        raise UserError(
            f"`widths` must name one width per decoder level (={depth}), but got {tuple(widths)}"
        )
    given_nodes: Mapping[str, Width] = options.get("node_widths", {})
    nodes: list[tuple[Node, Width]] = [(as_node(name), given_nodes[name]) for name in given_nodes]
    strangers = [node for node, _ in nodes if not 0 <= node.i < depth]
    if strangers:
        raise UserError(
            f"`node_widths` must name decoder nodes of the grid, but got {strangers[0]}"
        )
    rest: Options = {  # pyright: ignore[reportAssignmentType]
        k: v for k, v in options.items() if k not in ("widths", "node_widths")
    }
    return GridSpec(
        encoder=encoder,
        widths=tuple(_resolved(width, encoder, level) for level, width in enumerate(widths)),
        node_widths=tuple(
            NodeWidth(node, _resolved(width, encoder, node.i)) for node, width in nodes
        ),
        inputs=inputs,
        heads=heads,
        **rest,
    )


def _resolved(width: Width, encoder: EncoderSpec, level: int) -> int:
    """The channels that a width stands for: itself, or a share of the encoder's on that level."""
    if width == "encoder":
        return encoder.channels[level]
    if isinstance(width, str):
        raise UserError(
            "a width must be a number of channels, a share of the encoder's such as 0.5, or "
            f"'encoder', but got {width!r}"
        )
    if isinstance(width, float):
        if not width > 0:
            raise UserError(f"a width that is a share must be above 0, but got {width}")
        return max(1, round(width * encoder.channels[level]))
    return width


def channels(spec: GridSpec, node: Node) -> int:
    """Output channels of X[i,j]."""
    if node.j == 0:
        return spec.encoder.channels[node.i]
    return dict(spec.node_widths).get(node, spec.widths[node.i])


def up_ratio(spec: GridSpec, source: Node, target: Node) -> int:
    """The factor by which `source` is up-sampled for `target`; 1 where it is not."""
    return max(1, spec.encoder.strides[source.i] // spec.encoder.strides[target.i])


def down_ratio(spec: GridSpec, source: Node, target: Node) -> int:
    """The factor by which `source` is pooled for `target`; 1 where it is not."""
    return max(1, spec.encoder.strides[target.i] // spec.encoder.strides[source.i])


def resampled_channels(spec: GridSpec, source: Node, target: Node) -> int:
    """Channels of `source` when it has the resolution of `target`."""
    if source.i <= target.i:
        return channels(spec, source)
    if spec.up_widths:
        return spec.up_widths[target.i]
    learned = spec.up in ("transposed", "pixel_shuffle")
    return channels(spec, target) if learned else channels(spec, source)


def merged_channels(spec: GridSpec, source: Node, target: Node) -> int:
    """Channels with which `source` enters the block of `target`, after projection or for a sum."""
    if spec.projection is not None:
        return spec.projection
    if spec.merge != "concat":
        return channels(spec, target)
    return resampled_channels(spec, source, target)


def prune_to_head(spec: GridSpec, depth: int) -> GridSpec:
    """L^depth: the ancestors of the head X[0,depth] and nothing else (paper, section III-D).

    The levels of the encoder below `depth` go too. The state dict of the full network holds that
    of the pruned one under the same names.

    Raises:
        UserError: when the spec has no head at that depth.
    """
    if depth not in spec.heads:
        raise UserError(
            f"pruning to L^{depth} needs a head at X_0_{depth}, but this network has heads at "
            f"{spec.heads}; train it with deep supervision"
        )
    kept = ancestors(spec.inputs, [Node(0, depth)])
    inputs = [entry for entry in spec.inputs if entry.node in kept]
    return restricted(spec, inputs, (depth,))


def head_weights(spec: GridSpec) -> tuple[float, ...]:
    """The weight of each head's loss, shallow to deep; they sum to 1.

    "equal" is the paper's (eta_i = 1, divided by their number). "decayed" halves with each
    column to the left of the last, as nnU-Net does with resolutions. "learned" starts as equal.
    """
    decay = 0.5 if spec.supervision == "decayed" else 1.0
    raw = [decay ** (spec.heads[-1] - column) for column in spec.heads]
    return tuple(value / sum(raw) for value in raw)
