"""Score against depth: all validated trials, and the best of each depth with its interval."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure

from reports.search_records import SearchRecords
from reports.search_tables import depth_rows
from unetpp.searches import depth_of, describe


def depth_curve(search: SearchRecords) -> pd.DataFrame:
    """One row a valid trial: depth, number, trial, score, best_of_depth, low, high (the 95 %
    interval over folds of the best of its depth, else NaN).
    """
    rows = depth_rows(search)
    best = {} if rows.empty else rows.set_index("number")[["low", "high"]].to_dict("index")
    none = {"low": math.nan, "high": math.nan}
    frame = pd.DataFrame(
        [
            {
                "depth": depth_of(trial),
                "number": trial.number,
                "trial": describe(trial),
                "score": trial.value,
                "best_of_depth": trial.number in best,
                **best.get(trial.number, none),
            }
            for trial in search.valid
        ]
    )
    return frame.sort_values(["depth", "number"], ignore_index=True) if len(frame) else frame


def draw_depth_curve(search: SearchRecords, data: pd.DataFrame) -> Figure:
    """Dots are trials; marks with bars, joined, are the best of each depth."""
    figure = Figure(figsize=(9, 4.6))
    axes = figure.subplots()
    best, others = data[data["best_of_depth"]], data[~data["best_of_depth"]]
    axes.plot(
        others["depth"], others["score"], "o", color="#0072B2", alpha=0.45, markersize=6,
        markeredgewidth=0, label="validated trial",
    )  # fmt: skip
    axes.errorbar(
        best["depth"], best["score"],
        yerr=[best["score"] - best["low"], best["high"] - best["score"]],
        fmt="o-", color="#D55E00", capsize=4, markersize=9, markeredgecolor="white",
        label="best of its depth, 95 % interval", zorder=3,
    )  # fmt: skip
    depths = sorted(data["depth"].unique())
    axes.set_xticks(depths, [f"L{depth}" for depth in depths])
    axes.set_xlim(min(depths) - 0.5, max(depths) + 0.5)
    # A score is between 0 and 1, whatever a wide interval says.
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -0.02), min(high, 1.02))
    axes.set_xlabel("depth of the network")
    axes.set_ylabel(f"{search.metric_name} on the folds that choose")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def caption(search: SearchRecords, data: pd.DataFrame) -> str:
    """What the bars are and are not."""
    tried = data.groupby("depth")["number"].count()
    counts = ", ".join(f"{count} of L{depth}" for depth, count in tried.items())
    return (
        f"Validated trials by depth ({counts}). Bars: 95 % interval of the mean over "
        f"{search.num_folds} folds (corrected resampled t), cut at 0 and 1; they show the spread "
        "of folds. Depths are compared by paired differences, in the table of depths. The best of "
        "many trials looks better than the best of few, so depths that were tried more often are "
        "favoured."
    )
