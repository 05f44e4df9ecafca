"""Mean ranks of arms over data sets, with bars that join those that are not told apart."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.across_sets import Ranking

_LEVEL = 0.34  # between the names of two arms, in units of the axes


def critical_difference(ranking: Ranking) -> pd.DataFrame:
    """One row an arm, best first: `arm`, `mean_rank`, and the numbers of its bars, from 1."""
    order = sorted(range(len(ranking.arms)), key=lambda k: (ranking.friedman.mean_ranks[k], k))
    return pd.DataFrame(
        [
            {
                "arm": ranking.arms[k],
                "mean_rank": ranking.friedman.mean_ranks[k],
                "bars": " ".join(
                    str(number)
                    for number, members in enumerate(ranking.nemenyi.cliques, start=1)
                    if k in members
                ),
            }
            for k in order
        ]
    )


def draw_critical_difference(ranking: Ranking, data: pd.DataFrame) -> Figure:
    """An axis of ranks with the best at the left; names at both sides; the bars between them."""
    num_arms, bars = len(data), ranking.nemenyi.cliques
    half = (num_arms + 1) // 2
    height = 0.9 + _LEVEL * (half + 0.5 * len(bars))
    figure = Figure(figsize=(7, max(1.9, height)))
    axes = figure.subplots()
    axes.set(xlim=(0.6, num_arms + 0.4), ylim=(-height, 0.75))
    axes.axis("off")
    axes.hlines(0, 1, num_arms, color="black", linewidth=1)
    for rank in range(1, num_arms + 1):
        axes.vlines(rank, 0, 0.08, color="black", linewidth=1)
        axes.text(rank, 0.14, str(rank), ha="center", va="bottom", fontsize=9)
    _bars(axes, ranking)
    start = -0.18 - 0.5 * _LEVEL * len(bars)
    for place, row in enumerate(data.to_dict("records")):
        left = place < half
        y = start - _LEVEL * (place if left else num_arms - 1 - place) - 0.1
        edge = 0.72 if left else num_arms + 0.28
        axes.plot([row["mean_rank"]] * 2 + [edge], [0, y, y], color="#555555", linewidth=0.8)
        axes.text(
            edge, y + 0.03, f"{row['arm']} ({row['mean_rank']:.2f})",
            ha="left" if left else "right", va="bottom", fontsize=9,
        )  # fmt: skip
    reach = ranking.nemenyi.critical_difference
    if reach < num_arms - 1:
        axes.hlines(0.5, 1, 1 + reach, color="#D55E00", linewidth=2)
        axes.text(
            1 + reach + 0.05, 0.5, f"CD {reach:.2f}", va="center", fontsize=9, color="#A34700"
        )
    return figure


def _bars(axes: Axes, ranking: Ranking) -> None:
    ranks = ranking.friedman.mean_ranks
    for number, members in enumerate(ranking.nemenyi.cliques):
        y = -0.14 - 0.5 * _LEVEL * number
        ends = [ranks[k] for k in members]
        axes.hlines(y, min(ends) - 0.04, max(ends) + 0.04, color="black", linewidth=3)


def caption(ranking: Ranking) -> str:
    """Which test, over what, and what a bar is."""
    reach, num_arms = ranking.nemenyi.critical_difference, len(ranking.arms)
    beyond = (
        f" That is more than the axis is long: with {ranking.friedman.num_sets} data sets no "
        f"difference of {num_arms} arms can reach it."
        if reach >= num_arms - 1
        else ""
    )
    return (
        f"Mean rank of each arm over {ranking.friedman.num_sets} data sets by its mean Dice "
        f"(1 is best). Bars join arms that Nemenyi's test does not tell apart at 0.05 (critical "
        f"difference {reach:.2f}; Demsar 2006).{beyond}"
    )
