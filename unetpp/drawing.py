"""A network as text: its grid, its in-edges, and what each node costs."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from unetpp.budget import ledger
from unetpp.grid import channels, head_weights, plain_encoder
from unetpp.nodes import Node
from unetpp.spec import GridSpec

_COLUMNS = 80
_STRUCTURE = {"encoder", "widths", "inputs", "heads", "node_widths"}
_FP32 = 4  # bytes


def grid_nodes(spec: GridSpec) -> set[Node]:
    """All nodes, the encoder's included."""
    return {entry.node for entry in spec.inputs} | {Node(i, 0) for i in range(spec.depth + 1)}


def triangle(depth: int) -> set[Node]:
    """All places of a grid of this depth."""
    return {Node(i, j) for i in range(depth + 1) for j in range(depth - i + 1)}


def draw(spec: GridSpec, *, within: int = 0) -> str:
    """The grid as text: a node is drawn with its channels, `*` marks a head, `.` an empty place.

    Lines are the way down the encoder, the in-edges from one level and one column away, and those
    on one level that pass over empty places only; `in_edges` lists all.

    Args:
        spec: the network.
        within: depth of the triangle whose places are drawn, where it is more than that of `spec`.
    """
    depth, nodes = max(within, spec.depth), grid_nodes(spec)
    cells = {place: _cell(spec, place) if place in nodes else "." for place in triangle(depth)}
    wide = [max(len(cells[Node(i, j)]) for i in range(depth - j + 1)) for j in range(depth + 1)]
    gap = max(1, min(6, (_COLUMNS - sum(wide)) // depth))
    starts = [sum(wide[:j]) + j * gap for j in range(depth + 1)]
    edges = {(source, node) for node, sources in spec.inputs for source in sources}
    lines: list[str] = []
    for i in range(depth + 1):
        row = [" "] * _COLUMNS
        for source, node in edges:
            if source.i == node.i == i and not any(
                Node(i, k) in nodes for k in range(source.j + 1, node.j)
            ):
                start, end = starts[source.j] + len(cells[source]), starts[node.j]
                blank = " " if gap > 2 else ""
                row[start:end] = f"{blank}{'-' * (end - start - 2 * len(blank))}{blank}"
        for j in range(depth - i + 1):
            row[starts[j] : starts[j] + len(cells[Node(i, j)])] = cells[Node(i, j)]
        lines.append("".join(row).rstrip())
        between = [" "] * _COLUMNS
        if i < spec.depth:
            between[2] = "|"
        for j in range(1, depth - i + 1):
            if (Node(i + 1, j - 1), Node(i, j)) in edges:
                between[starts[j] - (gap + 1) // 2] = "/"
        lines.append("".join(between).rstrip())
    return "\n".join(lines[:-1])


def _cell(spec: GridSpec, node: Node) -> str:
    head = "*" if node.i == 0 and node.j in spec.heads else ""
    return f"{node}:{channels(spec, node)}{head}"


def in_edges(spec: GridSpec) -> str:
    """One line a decoder node with all that it reads: `^` up-sampled, `v` pooled, else a skip."""
    lines: list[str] = []
    for node, sources in spec.inputs:
        marks = (f"{_direction(source, node)}{source}" for source in sources)
        lines += textwrap.wrap(
            f"{node} <- {'  '.join(marks)}", _COLUMNS, subsequent_indent=" " * (len(str(node)) + 4)
        )
    return "\n".join(lines)


def _direction(source: Node, node: Node) -> str:
    return "^" if source.i > node.i else "v" if source.i < node.i else ""


def options(spec: GridSpec) -> str:
    """The fields that differ from their defaults as one line, or "" when none does.

    Beside these a network is its encoder, edges, widths and heads, which are drawn.
    """
    found = [
        f"{field.name}={getattr(spec, field.name)}"
        for field in fields(GridSpec)
        if field.name not in _STRUCTURE and getattr(spec, field.name) != field.default
    ]
    encoder, usual = spec.encoder, plain_encoder(spec.depth)
    if encoder.name != "plain":
        found.append(f"encoder={encoder.name}")
    for name in ("strides", "block", "pyramid", "image_size", "multiple"):
        if getattr(encoder, name) != getattr(usual, name):
            found.append(f"encoder.{name}={getattr(encoder, name)}")
    return ", ".join(found)


def draw_network(spec: GridSpec, *, removed_from: GridSpec | None = None) -> str:
    """The network as text of 80 columns: a title, its options, the grid, and all in-edges.

    Args:
        spec: the network.
        removed_from: a larger one whose triangle is drawn, such as the one that `spec` was pruned
            from.
    """
    within = 0 if removed_from is None else removed_from.depth
    decoder, edges = len(spec.inputs), sum(len(entry.sources) for entry in spec.inputs)
    empty = len(triangle(max(within, spec.depth))) - decoder - spec.depth - 1
    heads = ", ".join(f"X_0_{j}" for j in spec.heads)
    title = (
        f"{spec.id}: depth {spec.depth}, {decoder} decoder nodes with {edges} in-edges, "
        f"head{'s' if spec.deep_supervision else ''} at {heads}."
    )
    key = "X_i_j:channels, * head" + (", . empty place" if empty else "")
    return "\n".join(
        [
            *textwrap.wrap(title, _COLUMNS),
            *textwrap.wrap(f"Not default: {options(spec) or 'nothing'}.", _COLUMNS),
            "",
            draw(spec, within=within),
            "",
            *textwrap.wrap(f"{key}; in-edges, ^ up-sampled, v pooled:", _COLUMNS),
            in_edges(spec),
        ]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCost:
    """What one node costs on one image.

    Attributes:
        node: "X_0_2", "encoder" for what is in none of its nodes (a module from timm), or
            "supervision" for learned weights of the heads.
        channels: of its output; 0 where there is none.
        size: of its output, in pixels; () where there is none.
        parameters: trainable; a head and its tail belong to their node.
        macs: multiply-accumulates of one forward pass on one image.
        activation_bytes: of its output for one image in fp32: 4 x channels x pixels. What a block
            computes on the way, the logits and gradients are not in it.
        head: "L2" for X[0,2] with a head, "L2*" where inference reads it, else "".
    """

    node: str
    channels: int
    size: tuple[int, ...]
    parameters: int
    macs: int
    activation_bytes: int
    head: str


def node_costs(
    spec: GridSpec, size: Sequence[int], *, encoder: tuple[int, int] = (0, 0)
) -> list[NodeCost]:
    """What every node costs, encoder first; the sums are those of the network.

    Args:
        spec: the network.
        size: (H, W), or (D, H, W), of the image in pixels.
        encoder: parameters and multiply-accumulates of a timm or own encoder, which are not known
            from the description.
    """
    parameters: dict[str, int] = {}
    macs: dict[str, int] = {}
    for layer in ledger(spec):
        node = layer.node or layer.name
        places = math.prod(math.ceil(s / layer.stride) for s in size)
        parameters[node] = parameters.get(node, 0) + layer.parameters
        macs[node] = macs.get(node, 0) + layer.macs * places
    rows = [] if spec.encoder.name == "plain" else [_bare("encoder", *encoder)]
    for node in sorted(grid_nodes(spec), key=lambda node: (node.j, node.i)):
        shape = tuple(math.ceil(s / spec.encoder.strides[node.i]) for s in size)
        rows.append(
            NodeCost(
                node=str(node),
                channels=channels(spec, node),
                size=shape,
                parameters=parameters.get(str(node), 0),
                macs=macs.get(str(node), 0),
                activation_bytes=_FP32 * channels(spec, node) * math.prod(shape),
                head=_head(spec, node),
            )
        )
    if spec.supervision == "learned":
        rows.append(_bare("supervision", parameters["supervision"], 0))
    return rows


def _bare(name: str, parameters: int, macs: int) -> NodeCost:
    return NodeCost(
        node=name,
        channels=0,
        size=(),
        parameters=parameters,
        macs=macs,
        activation_bytes=0,
        head="",
    )


def read_heads(spec: GridSpec) -> tuple[int, ...]:
    """The columns whose heads inference reads."""
    if spec.inference == "mean":
        return spec.heads
    return (spec.heads[-1] if spec.inference == "last" else spec.inference,)


def _head(spec: GridSpec, node: Node) -> str:
    if node.i > 0 or node.j not in spec.heads:
        return ""
    return f"L{node.j}{'*' if node.j in read_heads(spec) else ''}"


def cost_table(spec: GridSpec, rows: Iterable[NodeCost]) -> str:
    """The rows of `node_costs` with their sums, as text of 80 columns where the numbers allow it."""
    rows = list(rows)
    cells = [
        ("node", "head", "channels", "resolution", "parameters", "MACs", "output bytes"),
        *(
            (
                row.node,
                row.head,
                str(row.channels or "-"),
                "x".join(map(str, row.size)) or "-",
                f"{row.parameters:,}",
                f"{row.macs:,}",
                f"{row.activation_bytes:,}" if row.channels else "-",
            )
            for row in rows
        ),
        (
            "total", "", "", "",
            f"{sum(row.parameters for row in rows):,}",
            f"{sum(row.macs for row in rows):,}",
            f"{sum(row.activation_bytes for row in rows):,}",
        ),
    ]  # fmt: skip
    wide = [max(map(len, column)) for column in zip(*cells, strict=True)]
    gap = "  " if sum(wide) + 2 * (len(wide) - 1) <= _COLUMNS else " "
    lines = [
        gap.join(
            c.ljust(w) if k < 2 else c.rjust(w)
            for k, (c, w) in enumerate(zip(row, wide, strict=True))
        ).rstrip()
        for row in cells
    ]
    lines.insert(-1, "-" * len(lines[-1]))
    weights = ", ".join(
        f"L{column} {weight:.3g}"
        for column, weight in zip(spec.heads, head_weights(spec), strict=True)
    )
    read = "the mean of all" if spec.inference == "mean" else f"L{read_heads(spec)[0]}"
    notes = [
        (
            "A head and its tail are counted at their node. Output bytes: the output of the node "
            "for one image in fp32, 4 x channels x pixels; what a block computes on the way, "
            "logits and gradients are not in it."
        ),
        (
            f"Heads by their weight in the loss: {weights}; inference reads {read} (*)."
            if spec.deep_supervision
            else ""
        ),
    ]
    return "\n".join([*lines, "", *(line for n in notes for line in textwrap.wrap(n, _COLUMNS))])
