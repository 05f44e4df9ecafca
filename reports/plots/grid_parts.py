"""What a picture of a network shows, and where: nodes, edges, heads; no drawing.

Columns and levels are 1 apart. With a larger network beside it, what that has more is "removed".
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from unetpp.drawing import grid_nodes, read_heads, triangle
from unetpp.grid import channels, head_weights
from unetpp.nodes import Node
from unetpp.spec import GridSpec

RADIUS = 0.25  # of a node
WIDTH_DROP = RADIUS + 0.14  # from the middle of a node down to that of its width
_CLEAR_OF_WIDTH = 0.15
_CLEAR = RADIUS + 0.05  # what an edge keeps from the middle of a node that it does not join


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GridParts:
    """What is drawn.

    Attributes:
        nodes: one row a place: `node`, `kind` (encoder, decoder), `state` (kept, removed, empty),
            `x`, `y` (levels go down), `width` (channels; 0 for an empty place).
        edges: one row an edge: `source`, `target`, `kind` (down, up, skip, pooled), `state` (kept,
            removed), `bend` (sideways way of the middle of the curve, in columns; positive is to
            the left of the edge's direction).
        heads: one row a head: `node`, `state`, `weight` (of its loss, text; w_j where it is learned), `read` (by inference).
    """

    nodes: pd.DataFrame
    edges: pd.DataFrame
    heads: pd.DataFrame


def grid_parts(spec: GridSpec, removed_from: GridSpec | None = None) -> GridParts:
    """The nodes, edges and heads of `spec`, and what `removed_from` has more than it.

    Places of the triangle that neither has are empty.
    """
    full = spec if removed_from is None else removed_from
    depth = max(spec.depth, full.depth)
    kept, drawn = grid_nodes(spec), grid_nodes(spec) | grid_nodes(full)
    nodes = [
        {
            "node": str(place),
            "kind": "decoder" if place.j else "encoder",
            "state": "kept" if place in kept else "removed" if place in drawn else "empty",
            "x": position(place)[0],
            "y": position(place)[1],
            "width": channels(spec if place in kept else full, place) if place in drawn else 0,
        }
        for place in sorted(triangle(depth))
    ]
    kept_edges = _edges_of(spec)
    edges = [
        {
            "source": str(source),
            "target": str(target),
            "kind": kind,
            "state": "kept" if (source, target, kind) in kept_edges else "removed",
            "bend": _bend(source, target, drawn),
        }
        for source, target, kind in sorted(kept_edges | _edges_of(full))
    ]
    return GridParts(nodes=pd.DataFrame(nodes), edges=pd.DataFrame(edges), heads=_heads(spec, full))


def position(node: Node) -> tuple[float, float]:
    """Where X[i,j] is drawn: columns 1 apart, each level half a column further right and 1 down."""
    return node.j + node.i / 2, -float(node.i)


def curve(source: Node, target: Node, bend: float) -> np.ndarray:
    """Points [60, 2] along an edge, from middle to middle: a cubic Bezier curve.

    On a level it leaves and enters steeply and is flat in between, so that it stays on that level
    and the edges of one node still fan out.
    """
    start, end = np.array(position(source)), np.array(position(target))
    span = np.linalg.norm(end - start)
    along, shoulder = (end - start) / span, 0.45 if source.i == target.i else 0.3 * span
    aside = 4 / 3 * bend * np.array([-along[1], along[0]])
    first, second = start + shoulder * along + aside, end - shoulder * along + aside
    t = np.linspace(0, 1, 60)[:, None]
    inner = 3 * t * (1 - t) * ((1 - t) * first + t * second)
    return (1 - t) ** 3 * start + inner + t**3 * end


def _edges_of(spec: GridSpec) -> set[tuple[Node, Node, str]]:
    down = {(Node(i, 0), Node(i + 1, 0), "down") for i in range(spec.depth)}
    return down | {(s, node, _kind(s, node)) for node, sources in spec.inputs for s in sources}


def _kind(source: Node, target: Node) -> str:
    return "up" if source.i > target.i else "pooled" if source.i < target.i else "skip"


def _bend(source: Node, target: Node, nodes: Iterable[Node]) -> float:
    """The least bend with which an edge passes over no node and, between levels, no width.

    Skips bend upward only. Where every bend meets something: the one that stays farthest from it.
    """
    level = source.i == target.i
    obstacles = [(*position(node), _CLEAR) for node in nodes if node not in (source, target)]
    if not level:
        obstacles += [(x, y - WIDTH_DROP, _CLEAR_OF_WIDTH) for x, y in map(position, nodes)]
    middles, clear = np.array(obstacles).reshape(-1, 3)[:, :2], np.array([o[2] for o in obstacles])

    def room(bend: float) -> float:
        points = curve(source, target, bend)
        distances = np.linalg.norm(points[:, None] - middles, axis=2)
        return float((distances - clear).min(initial=math.inf))

    span = math.dist(position(source), position(target))
    # Above level 0 there is room for curves that lie farther apart.
    least = 0.15 + (0.085 if level and source.i > 0 else 0.13) * span
    sizes = [least + 0.06 * step for step in range(12)]
    # To the right of an edge that goes up is the outside of the triangle.
    both = [sign * size for size in sizes for sign in (-1, 1)]
    choices = [0.0, *(sizes if level else both)]
    return next((b for b in choices if room(b) >= 0), max(choices, key=room))


def _heads(spec: GridSpec, full: GridSpec) -> pd.DataFrame:
    shares = head_weights(spec)
    rows = [
        {
            "node": f"X_0_{column}",
            "state": "kept",
            "weight": f"$w_{column}$" if spec.supervision == "learned" else f"{share:.2g}",
            "read": column in read_heads(spec),
        }
        for column, share in zip(spec.heads, shares, strict=True)
    ]
    gone = [column for column in full.heads if column not in spec.heads]
    rows += [{"node": f"X_0_{j}", "state": "removed", "weight": "", "read": False} for j in gone]
    return pd.DataFrame(rows).sort_values("node", ignore_index=True)
