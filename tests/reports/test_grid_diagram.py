"""The picture of a network: what is in it is the spec, and no edge passes over a node."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from helpers import grid_specs
from hypothesis import given, settings
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from reports.plots.grid_diagram import (
    curve,
    draw_grid_parts,
    grid_diagram,
    grid_parts,
    position,
    save_grid_diagram,
)
from unetpp.drawing import grid_nodes, triangle
from unetpp.errors import UserError
from unetpp.grid import (
    channels,
    no_skips,
    plain_encoder,
    prune_to_head,
    unet,
    unet3plus,
    unet_e,
    unet_plus,
    unetpp,
)
from unetpp.nodes import Node, as_node
from unetpp.spec import GridSpec

_FULL = unetpp(plain_encoder(4), deep_supervision=True)


@given(grid_specs())
@settings(max_examples=30, deadline=None)
def test_nodes_edges_and_heads_are_those_of_the_spec(spec: GridSpec) -> None:
    parts = grid_parts(spec)
    nodes, edges = parts.nodes, parts.edges
    kept = nodes[nodes["state"] == "kept"]
    assert set(kept["node"]) == {str(node) for node in grid_nodes(spec)}
    assert list(kept["width"]) == [channels(spec, as_node(n)) for n in kept["node"]]
    empty = nodes[nodes["state"] == "empty"]
    assert set(empty["node"]) == {str(n) for n in triangle(spec.depth) - grid_nodes(spec)}
    assert set(edges["state"]) == {"kept"}
    decoder = edges[edges["kind"] != "down"]
    assert set(zip(decoder["source"], decoder["target"], strict=True)) == {
        (str(source), str(node)) for node, sources in spec.inputs for source in sources
    }
    assert len(decoder) == sum(len(entry.sources) for entry in spec.inputs)
    assert (edges["kind"] == "down").sum() == spec.depth
    assert list(parts.heads["node"]) == [f"X_0_{j}" for j in spec.heads]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_what_pruning_removes_is_the_full_network_less_the_pruned_one(depth: int) -> None:
    pruned = prune_to_head(_FULL, depth)
    parts, full = grid_parts(pruned, removed_from=_FULL), grid_parts(_FULL)
    gone = parts.nodes[parts.nodes["state"] == "removed"]
    assert set(gone["node"]) == {str(n) for n in triangle(4) - triangle(depth)}
    assert len(parts.edges) == len(full.edges)
    by_hand = grid_parts(pruned).edges
    assert (parts.edges["state"] == "kept").sum() == len(by_hand)
    states = dict(zip(parts.heads["node"], parts.heads["state"], strict=True))
    assert [node for node, state in states.items() if state == "kept"] == [f"X_0_{depth}"]
    assert len(states) == 4


def test_a_preset_inside_another_is_grey_where_it_lacks_an_edge() -> None:
    parts = grid_parts(unet(4), removed_from=unetpp(4))
    gone = parts.edges[parts.edges["state"] == "removed"]
    assert len(gone) == 30 - 8
    assert (parts.nodes["state"] == "removed").sum() == 6


def test_levels_go_down_and_the_encoder_is_the_left_side() -> None:
    assert position(Node(0, 0)) == (0, 0)
    assert position(Node(2, 1)) == (2, -2)
    assert all(position(Node(i, 0)) == (i / 2, -i) for i in range(5))


@pytest.mark.parametrize("preset", [no_skips, unet, unet_e, unet_plus, unetpp, unet3plus])
@pytest.mark.parametrize("depth", [1, 3, 4, 6])
def test_no_edge_passes_over_a_node(preset, depth: int) -> None:
    parts = grid_parts(preset(depth))
    present = [as_node(name) for name in parts.nodes[parts.nodes["width"] > 0]["node"]]
    for row in parts.edges.to_dict("records"):
        source, target = as_node(row["source"]), as_node(row["target"])
        points = curve(source, target, row["bend"])
        assert tuple(points[0]) == position(source)
        assert tuple(points[-1]) == pytest.approx(position(target))
        for node in present:
            if node not in (source, target):
                assert np.linalg.norm(points - position(node), axis=1).min() > 0.25
        if row["kind"] == "skip":
            assert row["bend"] >= 0


def test_heads_have_their_weight_and_the_one_that_is_read_is_marked() -> None:
    decayed = unetpp(3, deep_supervision=True, supervision="decayed", inference=2)
    heads = grid_parts(decayed).heads
    assert list(heads["weight"]) == ["0.14", "0.29", "0.57"]
    assert list(heads["read"]) == [False, True, False]
    learned = unetpp(2, deep_supervision=True, supervision="learned", inference="mean")
    assert list(grid_parts(learned).heads["weight"]) == ["$w_1$", "$w_2$"]
    assert grid_parts(learned).heads["read"].all()


@pytest.mark.parametrize(
    ("spec", "whole"),
    [(unetpp(1), None), (unet3plus(3), None), (prune_to_head(_FULL, 2), _FULL), (unet_e(6), None)],
)
def test_every_text_is_inside_the_picture(spec: GridSpec, whole: GridSpec | None) -> None:
    figure = grid_diagram(spec, removed_from=whole)
    renderer = FigureCanvasAgg(figure).get_renderer()
    (axes,) = figure.axes
    legend = axes.get_legend()
    assert legend is not None
    for artist in (*axes.texts, legend):
        box = artist.get_window_extent(renderer)
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
    texts = [text.get_text() for text in axes.texts]
    assert texts.count("$X^{0,1}$") == (whole is not None or Node(0, 1) in grid_nodes(spec))


def test_the_legend_names_what_is_there_and_nothing_else() -> None:
    def names(spec: GridSpec, whole: GridSpec | None = None) -> list[str]:
        legend = draw_grid_parts(grid_parts(spec, whole)).axes[0].get_legend()
        assert legend is not None
        return [text.get_text() for text in legend.get_texts()]

    assert names(unetpp(2)) == ["encoder", "up-sampled", "skip", "head, read"]
    assert "skip" not in names(no_skips(2))
    assert {"pooled", "empty place"} <= set(names(unet3plus(2)))
    assert "head, loss only" in names(_FULL)
    assert {"removed"} <= set(names(prune_to_head(_FULL, 2), _FULL))


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_same_network_gives_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    first, second = tmp_path / f"a{suffix}", tmp_path / "new" / f"b{suffix}"
    save_grid_diagram(unetpp(2), first)
    save_grid_diagram(unetpp(2), second)
    assert first.read_bytes() == second.read_bytes()
    if suffix == ".png":
        with Image.open(first) as picture:
            assert min(picture.size) > 400
    else:
        assert first.read_text("utf-8").startswith("<?xml")


def test_a_picture_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"as \.svg or \.png, but got grid\.pdf"):
        save_grid_diagram(unetpp(1), Path("grid.pdf"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"must be writable, but .*" + re.escape("file/a.png")):
        save_grid_diagram(unetpp(1), tmp_path / "file" / "a.png")
