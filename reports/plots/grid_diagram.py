"""One network as a picture: nodes, edges, heads and widths, in the manner of the paper's figure 1.

With `removed_from` it is the manner of figure 2: what a larger network has more is drawn in grey.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyArrowPatch
from matplotlib.path import Path as Curve

from unetpp.drawing import grid_nodes, read_heads, triangle
from unetpp.errors import UserError
from unetpp.grid import channels, head_weights
from unetpp.nodes import Node
from unetpp.spec import GridSpec

_STYLE = Path(__file__).parents[1] / "style.mplstyle"
_RADIUS = 0.25  # of a node; columns and levels are 1 apart
_UNIT = 0.76  # inches
_NARROWEST = 4.2  # columns; room for the legend
_LEGEND_COLUMNS = 3
_WIDTH_DROP = _RADIUS + 0.14  # from the middle of a node down to that of its width
_CLEAR_OF_WIDTH = 0.15
_CLEAR = _RADIUS + 0.05  # what an edge keeps from the middle of a node that it does not join

_INK, _HEAD, _HEAD_INK = "#222222", "#D55E00", "#A34700"
_GREY, _GREY_INK, _GREY_FILL = "#BDBDBD", "#767676", "#F4F4F4"
_FILLS = {"encoder": "#D6EAF8", "decoder": "#FFFFFF"}
# Kind of an edge -> its name in the legend, colour (Okabe and Ito) and dashes.
_EDGES = {
    "down": ("encoder", _INK, "-"),
    "up": ("up-sampled", "#0072B2", "-"),
    "skip": ("skip", "#007A5A", (0, (4, 2))),
    "pooled": ("pooled", "#A0487F", (0, (1, 1.4))),
}


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
    kept_edges = _edges(spec)
    edges = [
        {
            "source": str(source),
            "target": str(target),
            "kind": kind,
            "state": "kept" if (source, target, kind) in kept_edges else "removed",
            "bend": _bend(source, target, drawn),
        }
        for source, target, kind in sorted(kept_edges | _edges(full))
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


def _edges(spec: GridSpec) -> set[tuple[Node, Node, str]]:
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
        obstacles += [(x, y - _WIDTH_DROP, _CLEAR_OF_WIDTH) for x, y in map(position, nodes)]
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


def grid_diagram(spec: GridSpec, *, removed_from: GridSpec | None = None) -> Figure:
    """The picture of `spec`; what `removed_from` has more is grey."""
    return draw_grid_parts(grid_parts(spec, removed_from))


def save_grid_diagram(spec: GridSpec, path: Path, *, removed_from: GridSpec | None = None) -> None:
    """Write the picture as .svg or .png, in the style of the reports.

    Raises:
        UserError: when the name has another suffix, or the file cannot be written.
    """
    if path.suffix not in (".svg", ".png"):
        raise UserError(f"a picture is written as .svg or .png, but got {path}; name it so")
    with mpl.rc_context(fname=_STYLE):
        figure = grid_diagram(spec, removed_from=removed_from)
        FigureCanvasAgg(figure)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # The same network gives the same bytes.
            key = "Date" if path.suffix == ".svg" else "Software"
            figure.savefig(path, metadata={key: None}, dpi=220)
        except OSError as error:
            raise UserError(
                f"the file of a picture must be writable, but {path} is not ({error.strerror}); "
                "choose another"
            ) from None


def draw_grid_parts(parts: GridParts) -> Figure:
    """Nodes as circles with their widths below, edges by kind, heads in red above level 0."""
    nodes, edges = parts.nodes, parts.edges
    legend = _legend(parts)
    points = np.concatenate([_points(row) for row in edges.to_dict("records")])
    (left, _), (right, highest) = points.min(axis=0), points.max(axis=0)
    top = max(0.62, highest + 0.2)
    spare = max(0.0, _NARROWEST - (right - left)) / 2
    left, right = left - 0.5 - spare, right + 0.5 + spare
    num_rows = -(-len(legend) // _LEGEND_COLUMNS)
    bottom, upper = nodes["y"].min() - 0.75 - 0.24 * num_rows, top + 0.55
    size = ((right - left) * _UNIT, (upper - bottom) * _UNIT)
    figure = Figure(figsize=size, layout="none")  # pyright: ignore[reportArgumentType]
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(left, right), ylim=(bottom, upper))
    axes.set_axis_off()
    for row in edges.sort_values("state", ascending=False).to_dict("records"):
        _draw_edge(axes, row)
    for row in nodes.to_dict("records"):
        _draw_node(axes, row)
    num_heads = (parts.heads["state"] == "kept").sum()
    for row in parts.heads.to_dict("records"):
        _draw_head(axes, row, top, alone=num_heads == 1)
    axes.legend(
        handles=legend,
        loc="lower center",
        ncols=min(_LEGEND_COLUMNS, len(legend)),
        fontsize=8,
        handlelength=2.2,
        columnspacing=1.4,
        labelspacing=0.35,
        borderaxespad=0.3,
    )
    return figure


def _node(name: str) -> Node:
    _, i, j = name.split("_")
    return Node(int(i), int(j))


def _draw_edge(axes: Axes, row: dict) -> None:
    _, colour, dashes = _EDGES[row["kind"]]
    removed = row["state"] == "removed"
    points = _points(row)
    from_source, from_target = (np.linalg.norm(points - points[k], axis=1) for k in (0, -1))
    points = points[(from_source > _RADIUS + 0.01) & (from_target > _RADIUS + 0.03)]
    axes.add_patch(
        FancyArrowPatch(
            path=Curve(points),
            arrowstyle="-|>,head_length=3.2,head_width=1.6",
            mutation_scale=1,
            color=_GREY if removed else colour,
            linestyle=dashes,
            linewidth=0.8 if removed else 1.1,
            joinstyle="miter",
            zorder=1 if removed else 2,
        )
    )


def _points(row: dict) -> np.ndarray:
    return curve(_node(row["source"]), _node(row["target"]), row["bend"])


def _draw_node(axes: Axes, row: dict) -> None:
    x, y, state = row["x"], row["y"], row["state"]
    if state == "empty":
        axes.add_patch(Circle((x, y), 0.035, color=_GREY, linewidth=0, zorder=1))
        return
    ink = _INK if state == "kept" else _GREY_INK
    fill = _FILLS[row["kind"]] if state == "kept" else _GREY_FILL
    edge = _INK if state == "kept" else _GREY
    axes.add_patch(Circle((x, y), _RADIUS, facecolor=fill, edgecolor=edge, linewidth=1.1, zorder=3))
    i, j = _node(row["node"])
    axes.text(x, y, f"$X^{{{i},{j}}}$", ha="center", va="center", color=ink, fontsize=9, zorder=4)
    axes.text(
        x,
        y - _WIDTH_DROP,
        str(row["width"]),
        ha="center",
        va="center",
        color=ink,
        fontsize=7.5 if row["width"] < 1000 else 6.5,
        zorder=2.5,
        bbox={"boxstyle": "square,pad=0.05", "facecolor": "white", "edgecolor": "none"},
    )


def _draw_head(axes: Axes, row: dict, top: float, *, alone: bool) -> None:
    """A red line from the node to its loss, above all curves; grey where the head is removed."""
    place, kept = _node(row["node"]), row["state"] == "kept"
    x, y = position(place)
    colour = _HEAD if kept else _GREY
    axes.plot([x, x], [y + _RADIUS, top], color=colour, linewidth=1.4, zorder=2.2)
    if kept:
        ring = Circle((x, y), _RADIUS, fill=False, edgecolor=colour, linewidth=1.8, zorder=3)
        axes.add_patch(ring)
    face = colour if row["read"] else "white"
    axes.plot(x, top, "s", color=colour, markerfacecolor=face, markersize=6, zorder=3)
    name = f"$L^{place.j}$"
    axes.text(
        x,
        top + 0.14,
        name if alone or not kept else f"{name}: {row['weight']}",
        ha="center",
        va="bottom",
        fontsize=8.5,
        color=_HEAD_INK if kept else _GREY_INK,
    )


def _legend(parts: GridParts) -> list[Line2D]:
    """An entry for everything that is there."""
    kinds, states = set(parts.edges["kind"]), {*parts.nodes["state"], *parts.edges["state"]}
    kept = parts.heads[parts.heads["state"] == "kept"]
    entries = [
        Line2D([], [], color=colour, linestyle=dashes, linewidth=1.3, label=name)
        for kind, (name, colour, dashes) in _EDGES.items()
        if kind in kinds
    ]
    marks: list[tuple[bool, str, str, str, str]] = [
        (bool(kept["read"].any()), "s", _HEAD, _HEAD, "head, read"),
        (not kept["read"].all(), "s", _HEAD, "white", "head, loss only"),
        ("removed" in states, "o", _GREY, _GREY_FILL, "removed"),
        ("empty" in states, ".", _GREY, _GREY, "empty place"),
    ]
    return entries + [
        Line2D([], [], color=edge, marker=m, markerfacecolor=face, linestyle="", label=name)
        for shown, m, edge, face, name in marks
        if shown
    ]
