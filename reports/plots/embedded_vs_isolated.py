"""Dice of each depth, embedded and isolated, above their paired difference."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.embedding import embedding_rows
from reports.pairs import interval_words, run_words
from reports.records import StudyRecords

# (title, colour, marker, shift to the side)
_WAYS = {
    "embedded": ("pruned out of the deeper network", "#0072B2", "^", -0.1),
    "isolated": ("trained alone", "#E69F00", "s", 0.1),
}
_GAP = "#444444"


def embedded_vs_isolated(study: StudyRecords) -> pd.DataFrame:
    """One row a depth that was trained both ways, see `reports.embedding.embedding_rows`."""
    return embedding_rows(study)


def draw_embedded_vs_isolated(study: StudyRecords, data: pd.DataFrame) -> Figure:
    """A column of two panels for every deep network."""
    arms = list(data["arm"].unique())
    figure = Figure(figsize=(3.5 * min(2, len(arms)), 3.9))
    panels = figure.subplots(2, len(arms), squeeze=False, height_ratios=(3, 2))
    for column, arm in enumerate(arms):
        rows = data[data["arm"] == arm]
        upper, lower = panels[0][column], panels[1][column]
        for way, (title, colour, marker, shift) in _WAYS.items():
            _marks(upper, rows, way, shift, colour, marker, title)
        lower.axhline(0, color="black", linewidth=0.8, zorder=1)
        rows = rows.rename(columns={"delta_dice": "delta_mean"})
        _marks(lower, rows, "delta", 0.0, _GAP, "o", "")
        for axes in (upper, lower):
            _depth_axis(axes, rows)
        low, high = upper.get_ylim()
        upper.set_ylim(max(low, -0.02), min(high, 1.02))
        if len(arms) > 1:
            upper.set_title(study.titles[arm])
        if column == 0:
            upper.set_ylabel("Dice, mean over runs")
            lower.set_ylabel("embedded minus\nisolated, same run")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, columnspacing=1.0)
    return figure


def _marks(
    axes: Axes, rows: pd.DataFrame, name: str, shift: float, colour: str, marker: str, title: str
) -> None:
    mean = rows[f"{name}_mean"]
    axes.errorbar(
        rows["depth"] + shift, mean, yerr=[mean - rows[f"{name}_low"], rows[f"{name}_high"] - mean],
        fmt=marker, color=colour, elinewidth=1.1, capsize=2.5, markeredgecolor="white",
        markeredgewidth=0.5, label=title,
    )  # fmt: skip


def _depth_axis(axes: Axes, rows: pd.DataFrame) -> None:
    axes.set_xticks(rows["depth"], rows["output"])
    axes.set_xlim(rows["depth"].min() - 0.5, rows["depth"].max() + 0.5)
    axes.grid(visible=False, axis="x")
    axes.margins(y=0.12)


def caption(study: StudyRecords, data: pd.DataFrame) -> str:
    """What is compared, and what the bars are."""
    del data
    return (
        "The same network of each depth, trained in two ways: as a head of a deeper network with "
        "deep supervision, then cut out of it (embedded), and by itself (isolated). Above: mean "
        f"Dice over {run_words(study)}. Below: paired differences. Bars: {interval_words(study)}; "
        "those above show the spread of runs and do not compare, those below do and are not "
        "corrected for the number of depths."
    )
