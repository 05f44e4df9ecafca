"""Pure functions on a `GridSpec`: presets, pruning, channels, parameter counts, drawing.

| preset      | nodes                | in-edges of X[i,j], j >= 1           |
|-------------|----------------------|--------------------------------------|
| `unet`      | X[i,0] and X[i,d-i]  | X[i,0], up(X[i+1,j-1])               |
| `wide_unet` | the same             | the same, widths matched to a budget |
| `unet_e`    | triangle             | X[i,0], up(X[i+1,j-1])               |
| `unet_plus` | triangle             | X[i,j-1], up(X[i+1,j-1])             |
| `unetpp`    | triangle             | X[i,0..j-1], up(X[i+1,j-1])          |

Names and in-edges: UNet++ (Zhou et al., DLMIA 2018 eq. 1; TMI 2019, sections III-A and III-B).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

from unetpp.errors import UserError
from unetpp.spec import EncoderSpec, GridSpec, Node, NodeInputs, ancestors

Norm = Literal["batch", "none"]
Inference = Literal["last", "mean"]


def plain_encoder(depth: int, *, width: int = 32) -> EncoderSpec:
    """The paper's encoder: `width` x 2^i filters on level i = 0..depth, at stride 2^i."""
    if depth < 1:
        raise UserError(f"`depth` must be at least 1, but got {depth}")
    levels = range(depth + 1)
    return EncoderSpec(
        name="plain",
        channels=tuple(width * 2**i for i in levels),
        strides=tuple(2**i for i in levels),
    )


def unet(
    encoder: EncoderSpec,
    *,
    in_channels: int = 1,
    classes: int = 1,
    norm: Norm = "batch",
    widths: tuple[int, ...] | None = None,
) -> GridSpec:
    """The plain U-Net: one decoder node a level, X[i,d-i], with the one long skip from X[i,0]."""
    depth = len(encoder.channels) - 1
    inputs = tuple(
        NodeInputs(Node(depth - j, j), (Node(depth - j, 0), Node(depth - j + 1, j - 1)))
        for j in range(1, depth + 1)
    )
    return GridSpec(
        encoder=encoder,
        widths=widths or encoder.channels[:-1],
        inputs=inputs,
        heads=(depth,),
        in_channels=in_channels,
        classes=classes,
        norm=norm,
    )


def unet_e(
    encoder: EncoderSpec,
    *,
    in_channels: int = 1,
    classes: int = 1,
    norm: Norm = "batch",
    widths: tuple[int, ...] | None = None,
    inference: Inference = "last",
) -> GridSpec:
    """UNet^e: U-Nets of depth 1..d on one encoder; only deep supervision trains the shallow ones."""
    return _triangle(
        encoder,
        lambda node: (Node(node.i, 0),),
        deep_supervision=True,
        widths=widths,
        in_channels=in_channels,
        classes=classes,
        norm=norm,
        inference=inference,
    )


def unet_plus(
    encoder: EncoderSpec,
    *,
    deep_supervision: bool = False,
    in_channels: int = 1,
    classes: int = 1,
    norm: Norm = "batch",
    widths: tuple[int, ...] | None = None,
    inference: Inference = "last",
) -> GridSpec:
    """UNet+: every node of the triangle reads its left neighbour, without the dense skips."""
    return _triangle(
        encoder,
        lambda node: (Node(node.i, node.j - 1),),
        deep_supervision=deep_supervision,
        widths=widths,
        in_channels=in_channels,
        classes=classes,
        norm=norm,
        inference=inference,
    )


def unetpp(
    encoder: EncoderSpec,
    *,
    deep_supervision: bool = False,
    in_channels: int = 1,
    classes: int = 1,
    norm: Norm = "batch",
    widths: tuple[int, ...] | None = None,
    inference: Inference = "last",
) -> GridSpec:
    """UNet++: every node of the triangle reads all nodes to its left on its level."""
    return _triangle(
        encoder,
        lambda node: tuple(Node(node.i, k) for k in range(node.j)),
        deep_supervision=deep_supervision,
        widths=widths,
        in_channels=in_channels,
        classes=classes,
        norm=norm,
        inference=inference,
    )


def _triangle(
    encoder: EncoderSpec,
    skips: Callable[[Node], tuple[Node, ...]],
    *,
    deep_supervision: bool,
    widths: tuple[int, ...] | None,
    in_channels: int,
    classes: int,
    norm: Norm,
    inference: Inference,
) -> GridSpec:
    depth = len(encoder.channels) - 1
    nodes = [Node(i, j) for j in range(1, depth + 1) for i in range(depth - j + 1)]
    return GridSpec(
        encoder=encoder,
        widths=widths or encoder.channels[:-1],
        inputs=tuple(NodeInputs(n, (*skips(n), Node(n.i + 1, n.j - 1))) for n in nodes),
        heads=tuple(range(1, depth + 1)) if deep_supervision else (depth,),
        in_channels=in_channels,
        classes=classes,
        norm=norm,
        inference=inference,
    )


def wide_unet(like: GridSpec, *, tolerance: float = 0.01) -> GridSpec:
    """The plain U-Net whose widths are scaled until its parameters are those of `like`.

    The control of the paper (section IV-B): more parameters without nested skips. Every width of
    the U-Net (of the decoder alone, when the encoder comes from timm) is the rounded multiple of
    the width in `like`; the multiple with the nearest count is taken, and the widths are then
    moved by one, coarsest level first, while that brings the count nearer; two at a time, where
    one at a time does not come within `tolerance`.

    Args:
        like: any spec; its encoder, `in_channels`, `classes` and `norm` are kept.
        tolerance: largest relative difference of the counts of `count_parameters`.

    Raises:
        UserError: when no integer widths come within `tolerance`.
    """
    target = count_parameters(like)

    def distance(spec: GridSpec) -> int:
        return abs(count_parameters(spec) - target)

    best = min((_scaled_unet(like, 1 + step / 512) for step in range(-128, 513)), key=distance)
    best = _descended(best, distance, _neighbours)
    if distance(best) > tolerance * target:
        best = _descended(best, distance, _second_neighbours)
    if distance(best) > tolerance * target:
        raise UserError(
            f"no integer widths give a U-Net within {tolerance:.0%} of {target:,} parameters "
            f"(nearest: {count_parameters(best):,}); choose larger widths"
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
    return unet(
        encoder,
        widths=tuple(map(scale, like.widths)),
        in_channels=like.in_channels,
        classes=like.classes,
        norm=like.norm,
    )


def _neighbours(spec: GridSpec) -> Iterator[GridSpec]:
    """The spec with the width of one level moved by one, encoder and decoder together."""
    plain = spec.encoder.name == "plain"
    for level in reversed(range(spec.depth + 1 if plain else spec.depth)):
        for step in (-1, 1):
            widths = _moved(spec.widths, level, step)
            channels = (
                _moved(spec.encoder.channels, level, step) if plain else spec.encoder.channels
            )
            if min(*widths, *channels) >= 1:
                yield replace(spec, widths=widths, encoder=replace(spec.encoder, channels=channels))


def _second_neighbours(spec: GridSpec) -> Iterator[GridSpec]:
    return (second for first in _neighbours(spec) for second in _neighbours(first))


def _moved(values: tuple[int, ...], index: int, step: int) -> tuple[int, ...]:
    return tuple(v + step if k == index else v for k, v in enumerate(values))


def channels(spec: GridSpec, node: Node) -> int:
    """Output channels of X[i,j]."""
    return spec.encoder.channels[node.i] if node.j == 0 else spec.widths[node.i]


def up_ratio(spec: GridSpec, level: int) -> int:
    """The factor by which level `level` + 1 is up-sampled to level `level`; 2 in the paper."""
    return spec.encoder.strides[level + 1] // spec.encoder.strides[level]


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
    deepest = max(node.i for node in kept)
    return replace(
        spec,
        encoder=replace(
            spec.encoder,
            channels=spec.encoder.channels[: deepest + 1],
            strides=spec.encoder.strides[: deepest + 1],
        ),
        widths=spec.widths[:deepest],
        inputs=tuple(entry for entry in spec.inputs if entry.node in kept),
        heads=(depth,),
        inference="last",
    )


def count_parameters(spec: GridSpec) -> int:
    """Trainable parameters of everything that the grid owns, in closed form.

    For a timm encoder its own parameters are not included: only torch knows them.
    """
    total = len(spec.heads) * (spec.widths[0] * spec.classes + spec.classes)
    if spec.encoder.name == "plain":
        incoming = (spec.in_channels, *spec.encoder.channels)
        total += sum(
            _block_parameters(spec, incoming[i], incoming[i + 1]) for i in range(spec.depth + 1)
        )
    for node, sources in spec.inputs:
        width, gathered = spec.widths[node.i], 0
        for source in sources:
            if source.i == node.i:
                gathered += channels(spec, source)
            else:
                total += up_ratio(spec, node.i) ** 2 * channels(spec, source) * width + width
                gathered += width
        total += _block_parameters(spec, gathered, width)
    return total


def _block_parameters(spec: GridSpec, incoming: int, width: int) -> int:
    """Two 3x3 convolutions with bias, and scale and shift of two norms where there are any."""
    convolutions = 9 * incoming * width + width + 9 * width * width + width
    return convolutions + (4 * width if spec.norm == "batch" else 0)


def draw(spec: GridSpec) -> str:
    """The grid as text: a node is drawn with its channels, `*` marks a head, `.` an empty place."""
    nodes = {node for node, _ in spec.inputs} | {Node(i, 0) for i in range(spec.depth + 1)}
    lines: list[str] = []
    for i in range(spec.depth + 1):
        row: list[str] = []
        for j in range(spec.depth - i + 1):
            node = Node(i, j)
            head = "*" if i == 0 and j in spec.heads else ""
            row.append(f"{node}:{channels(spec, node)}{head}" if node in nodes else ".")
        lines.append("  ".join(f"{cell:<11}" for cell in row).rstrip())
    return "\n".join(lines)
