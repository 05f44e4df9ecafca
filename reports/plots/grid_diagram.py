"""One network as a picture: nodes, edges, heads and widths, in the manner of the paper's figure 1.

With `removed_from` it is the manner of figure 2: what a larger network has more is drawn in grey.
Other figures draw grids in panels of their own with `draw_small`, `draw_edge` and `draw_node`.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyArrowPatch
from matplotlib.path import Path as Curve

from reports.plots.grid_parts import (
    RADIUS,
    WIDTH_DROP,
    GridParts,
    curve,
    grid_parts,
    position,
)
from unetpp.errors import UserError
from unetpp.nodes import as_node
from unetpp.spec import GridSpec

__all__ = [
    "GridParts", "curve", "draw_edge", "draw_grid_parts", "draw_node", "draw_small", "frame_panel",
    "grid_diagram", "grid_parts", "legend_of", "position", "save_grid_diagram",
]  # fmt: skip

_STYLE = Path(__file__).parents[1] / "style.mplstyle"
_UNIT = 0.76  # inches
_NARROWEST = 4.2  # columns; room for the legend
_LEGEND_COLUMNS = 3
# Of a small panel: columns and levels beyond the middles of the outermost nodes, and of a head.
_MARGIN, _HEAD_HEIGHT = 0.4, 0.8

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
    legend = legend_of(parts)
    (left, _), (right, highest) = _bounds(parts)
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
        _draw_known_edge(axes, row, width=1.1)
    for row in nodes.to_dict("records"):
        draw_node(axes, row, fontsize=9, width_size=7.5)
    num_heads = (parts.heads["state"] == "kept").sum()
    for row in parts.heads.to_dict("records"):
        _draw_head(axes, row, top, named=True, alone=num_heads == 1)
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


def draw_small(axes: Axes, parts: GridParts, *, depth: int) -> None:
    """The picture without names, widths and weights, for panels of two inches and less.

    Args:
        axes: of the panel; all panels of one size and depth show nodes of one size.
        parts: of the network.
        depth: of the deepest network beside it.
    """
    frame_panel(axes, depth)
    for row in parts.edges.sort_values("state", ascending=False).to_dict("records"):
        _draw_known_edge(axes, row, width=0.8, head=0.6)
    for row in parts.nodes[parts.nodes["state"] != "empty"].to_dict("records"):
        draw_node(axes, row, line=0.8)
    for row in parts.heads.to_dict("records"):
        _draw_head(axes, row, _HEAD_HEIGHT, named=False, size=3.2)


def frame_panel(axes: Axes, depth: int, *, above: float = _HEAD_HEIGHT) -> None:
    """Limits that hold the triangle of this depth; one unit is as long across as down.

    Args:
        axes: of the panel.
        depth: of the triangle.
        above: what the panel has above the middles of level 0.
    """
    axes.set(xlim=(-_MARGIN, depth + _MARGIN), ylim=(-depth - _MARGIN, above + _MARGIN / 2))
    axes.set_aspect("equal")
    axes.set_axis_off()


def _bounds(parts: GridParts) -> np.ndarray:
    points = np.concatenate([_points(row) for row in parts.edges.to_dict("records")])
    return np.stack([points.min(axis=0), points.max(axis=0)])


def _draw_known_edge(axes: Axes, row: dict, *, width: float, head: float = 1.0) -> None:
    """In the colour of its kind; grey where it is removed."""
    _, colour, dashes = _EDGES[row["kind"]]
    removed = row["state"] == "removed"
    draw_edge(
        axes, row, colour=_GREY if removed else colour, dashes=dashes,
        width=0.73 * width if removed else width, head=head, order=1 if removed else 2,
    )  # fmt: skip


def draw_edge(
    axes: Axes,
    row: dict,
    *,
    colour: object,
    dashes: object,
    width: float,
    head: float,
    order: float,
) -> None:
    """An arrow along the curve of an edge, from rim to rim.

    Args:
        axes: in units of columns and levels.
        row: of `GridParts.edges`.
        colour: of the line and its head.
        dashes: of the line, as matplotlib takes them.
        width: of the line, in points.
        head: size of the arrow's head; 1 is 3.2 points long.
        order: what is drawn above what.
    """
    points = _points(row)
    from_source, from_target = (np.linalg.norm(points - points[k], axis=1) for k in (0, -1))
    points = points[(from_source > RADIUS + 0.01) & (from_target > RADIUS + 0.03)]
    axes.add_patch(
        FancyArrowPatch(
            path=Curve(points),
            arrowstyle=f"-|>,head_length={3.2 * head:.3g},head_width={1.6 * head:.3g}",
            mutation_scale=1,
            color=colour,
            linestyle=dashes,
            linewidth=width,
            joinstyle="miter",
            zorder=order,
        )
    )


def _points(row: dict) -> np.ndarray:
    return curve(as_node(row["source"]), as_node(row["target"]), row["bend"])


def draw_node(
    axes: Axes, row: dict, *, fontsize: float = 0, width_size: float = 0, line: float = 1.1
) -> None:
    """A circle, or a point for an empty place.

    Args:
        axes: in units of columns and levels.
        row: of `GridParts.nodes`.
        fontsize: of its name; 0 for none.
        width_size: size of the number of its channels; 0 for none.
        line: width of its rim, in points.
    """
    x, y, state = row["x"], row["y"], row["state"]
    if state == "empty":
        axes.add_patch(Circle((x, y), 0.035, color=_GREY, linewidth=0, zorder=1))
        return
    ink = _INK if state == "kept" else _GREY_INK
    fill = _FILLS[row["kind"]] if state == "kept" else _GREY_FILL
    edge = _INK if state == "kept" else _GREY
    axes.add_patch(Circle((x, y), RADIUS, facecolor=fill, edgecolor=edge, linewidth=line, zorder=3))
    if fontsize:
        place = as_node(row["node"])
        name = f"$X^{{{place.i},{place.j}}}$"
        axes.text(
            x, y, name, ha="center", va="center", color=ink, fontsize=fontsize, zorder=4
        )  # fmt: skip
    if width_size:
        axes.text(
            x,
            y - WIDTH_DROP,
            str(row["width"]),
            ha="center",
            va="center",
            color=ink,
            fontsize=width_size if row["width"] < 1000 else width_size - 1,
            zorder=2.5,
            bbox={"boxstyle": "square,pad=0.05", "facecolor": "white", "edgecolor": "none"},
        )


def _draw_head(
    axes: Axes, row: dict, top: float, *, named: bool, alone: bool = False, size: float = 6
) -> None:
    """A red line from the node to its loss, above all curves; grey where the head is removed."""
    place, kept = as_node(row["node"]), row["state"] == "kept"
    x, y = position(place)
    colour, bold = _HEAD if kept else _GREY, size / 6
    axes.plot([x, x], [y + RADIUS, top], color=colour, linewidth=1.4 * bold, zorder=2.2)
    if kept:
        rim = 0.4 + 1.4 * bold
        axes.add_patch(
            Circle((x, y), RADIUS, fill=False, edgecolor=colour, linewidth=rim, zorder=3)
        )
    face = colour if row["read"] else "white"
    axes.plot(x, top, "s", color=colour, markerfacecolor=face, markersize=size, zorder=3)
    if named:
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


def legend_of(*several: GridParts) -> list[Line2D]:
    """An entry for everything that is there in any of the networks."""
    kinds = {kind for parts in several for kind in parts.edges["kind"]}
    states = {s for parts in several for s in (*parts.nodes["state"], *parts.edges["state"])}
    read = [
        bool(row["read"])
        for parts in several
        for row in parts.heads.to_dict("records")
        if row["state"] == "kept"
    ]
    entries = [
        Line2D([], [], color=colour, linestyle=dashes, linewidth=1.3, label=name)
        for kind, (name, colour, dashes) in _EDGES.items()
        if kind in kinds
    ]
    marks: list[tuple[bool, str, str, str, str]] = [
        (any(read), "s", _HEAD, _HEAD, "head, read"),
        (not all(read), "s", _HEAD, "white", "head, loss only"),
        ("removed" in states, "o", _GREY, _GREY_FILL, "removed"),
        ("empty" in states, ".", _GREY, _GREY, "empty place"),
    ]
    return entries + [
        Line2D([], [], color=edge, marker=m, markerfacecolor=face, linestyle="", label=name)
        for shown, m, edge, face, name in marks
        if shown
    ]
