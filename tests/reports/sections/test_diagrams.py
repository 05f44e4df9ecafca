"""Grids of a study: as many panels as there are grids, and prunings that lose what they should."""

from __future__ import annotations

from pathlib import Path

import pytest
from make_evidence import make_arm, make_records, promise, undrawn
from matplotlib.patches import Circle

from reports.plots.evolution import (
    distinct_grids,
    draw_evolution,
    draw_prunings,
    evolution,
    pruned_arm,
    prunings,
)
from reports.records import StudyRecords
from reports.sections import diagrams as sections
from reports.sections.diagrams import section
from unetpp import grid
from unetpp.budget import wide_unet

_ENCODER = grid.plain_encoder(3, width=8)
_ARMS = (
    make_arm("l1", grid.unet(grid.plain_encoder(1, width=8)), label="U-Net L1"),
    make_arm("unet", grid.unet(_ENCODER), label="U-Net"),
    make_arm("wide", wide_unet(grid.unetpp(_ENCODER)), label="wide U-Net"),
    make_arm("plus", grid.unet_plus(_ENCODER, deep_supervision=True), label="UNet+"),
    make_arm("unetpp", grid.unetpp(_ENCODER, deep_supervision=True), label="UNet++"),
)


def _study(*, trains: bool = False) -> StudyRecords:
    return make_records(promise(_ARMS, baseline="unet", trains=trains))


def test_arms_that_differ_in_widths_share_a_panel_in_the_promised_order() -> None:
    assert list(distinct_grids(_study())) == [
        "U-Net L1", "U-Net, wide U-Net", "UNet+ DS", "UNet++ DS",
    ]  # fmt: skip


def test_the_panels_hold_the_nodes_and_edges_of_their_networks() -> None:
    frame = evolution(_study())
    kept = frame[frame["state"] == "kept"]
    counts = kept.groupby(["panel", "element"]).size()
    # A triangle of depth 3 has ten nodes; UNet++ has 10 skips, 6 ways up and 3 down.
    assert counts["UNet++ DS", "node"] == 10
    assert counts["UNet++ DS", "edge"] == 10 + 6 + 3
    assert counts["UNet++ DS", "head"] == 3
    assert counts["UNet+ DS", "edge"] == 6 + 6 + 3
    assert counts["U-Net, wide U-Net", "node"] == 7
    assert counts["U-Net L1", "edge"] == 3


def test_prunings_lose_the_nodes_beyond_their_head() -> None:
    arm = pruned_arm(_study())
    assert arm is not None
    assert arm.name == "unetpp"
    frame = prunings(_study())
    nodes = frame[(frame["element"] == "node") & (frame["state"] == "kept")]
    # L^d keeps the nodes with i + j <= d.
    assert nodes.groupby("panel", sort=False).size().to_dict() == {
        "UNet++ DS L3": 10, "UNet++ DS L2": 6, "UNet++ DS L1": 3,
    }  # fmt: skip
    removed = frame[(frame["element"] == "node") & (frame["state"] == "removed")]
    assert len(removed) == 4 + 7


def test_panels_draw_a_circle_a_node() -> None:
    study = _study()
    figure = draw_evolution(study, evolution(study))
    drawn = {
        axes.get_title(): len({c.center for c in axes.patches if isinstance(c, Circle)})
        for axes in figure.axes
        if axes.get_title()
    }
    assert drawn == {"U-Net L1": 3, "U-Net, wide U-Net": 7, "UNet+ DS": 10, "UNet++ DS": 10}
    assert len([a for a in draw_prunings(study, prunings(study)).axes if a.get_title()]) == 3


def test_prunings_are_drawn_where_nothing_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = section(_study(), tmp_path)
    assert found is not None
    assert [figure.name for figure in found.figures] == ["grids", "prunings"]
    assert all(figure.files for figure in found.figures)
    monkeypatch.setattr(sections, "save_figure", undrawn)
    trained = section(_study(trains=True), tmp_path)
    assert trained is not None
    assert [figure.name for figure in trained.figures] == ["grids"]


def test_one_grid_is_said_to_be_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "save_figure", undrawn)
    found = section(make_records(promise(_ARMS[1:3], baseline="unet")), tmp_path)
    assert found is not None
    assert found.figures[0].caption.startswith("The grid that all arms share")
