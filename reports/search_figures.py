"""All figures of the report of a search, and which of them there are."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine

from reports.document import SavedFigure
from reports.figures import Plot, save_figure
from reports.plots import depth_curve, importances, pareto_front, search_history
from reports.plots.grid_diagram import grid_diagram, grid_parts
from reports.search_records import SearchRecords
from unetpp.searches import describe
from unetpp.spec import GridSpec

_PLOTS: tuple[Plot[SearchRecords], ...] = (
    Plot(
        name="history",
        title="History",
        data=search_history.search_history,
        draw=search_history.draw_search_history,
        caption=search_history.caption,
    ),
    Plot(
        name="front",
        title="Score and cost",
        data=pareto_front.pareto_front,
        draw=pareto_front.draw_pareto_front,
        caption=pareto_front.caption,
    ),
    Plot(
        name="hypervolume",
        title="Hypervolume",
        data=pareto_front.hypervolume_history,
        draw=pareto_front.draw_hypervolume,
        caption=pareto_front.hypervolume_caption,
    ),
    Plot(
        name="depth",
        title="Score and depth",
        data=depth_curve.depth_curve,
        draw=depth_curve.draw_depth_curve,
        caption=depth_curve.caption,
    ),
    Plot(
        name="importances",
        title="Importance of the parameters",
        data=importances.importances,
        draw=importances.draw_importances,
        caption=importances.caption,
    ),
    Plot(
        name="winner",
        title="The winner",
        data=lambda search: _winner_edges(search),
        draw=lambda search, data: _draw_winner(search, data),
        caption=lambda search, data: _winner_caption(search, data),
    ),
)


def save_search_figures(search: SearchRecords, folder: Path) -> tuple[SavedFigure, ...]:
    """Draw every figure for which the search has data; files of the others are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    saved = (save_figure(plot, search, folder) for plot in _PLOTS)
    return tuple(figure for figure in saved if figure.files)


def _winner_edges(search: SearchRecords) -> pd.DataFrame:
    """One row an edge of the winner's network: source, target, kind; empty without a winner."""
    winner = search.winner
    if winner is None:
        return pd.DataFrame(columns=["source", "target", "kind"])
    return grid_parts(GridSpec.from_json(winner.spec)).edges[["source", "target", "kind"]]


def _draw_winner(search: SearchRecords, data: pd.DataFrame) -> Figure:
    del data
    assert search.winner is not None
    figure = grid_diagram(GridSpec.from_json(search.winner.spec))
    # Without an engine of its own, a figure that is saved twice gets that of the style.
    figure.set_layout_engine(PlaceHolderLayoutEngine(True, True))
    return figure


def _winner_caption(search: SearchRecords, data: pd.DataFrame) -> str:
    del data
    assert search.winner is not None
    return (
        f"The network of trial {search.winner.number}, {describe(search.winner)}. Below each node: "
        "its channels."
    )
