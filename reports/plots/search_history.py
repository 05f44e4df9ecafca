"""Score by number of trial: what became of each, and the best one so far."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.search_records import SearchRecords
from reports.search_tables import score_of
from unetpp.searches import describe, is_allowed

# State -> colour, marker and name; trials without a score of their own lie below the others.
LOOKS = {
    "validated": ("#0072B2", "o", "validated"),
    "raced_out": ("#E69F00", "v", "raced out"),
    "stopped": ("#D55E00", "X", "stopped in the first fold"),
    "proposed_again": ("#999999", "o", "proposed again"),
    "infeasible": ("#CC79A7", "s", "beyond a limit"),
    "out_of_memory": ("#CC79A7", "P", "out of memory"),
    "diverged": ("#CC79A7", "D", "diverged"),
    "failed": ("#CC79A7", "x", "failed"),
    "running": ("#999999", "1", "unfinished"),
}


def search_history(search: SearchRecords) -> pd.DataFrame:
    """One row a trial: number, trial, state (or proposed_again), score (NaN where it has none),
    incumbent (the best score among allowed trials validated up to it; NaN before the first).
    """
    rows: list[dict[str, object]] = []
    best = math.nan
    for trial in search.trials:
        score = score_of(trial)
        if trial.state == "validated" and is_allowed(trial):
            best = score if math.isnan(best) else max(best, score)
        rows.append(
            {
                "number": trial.number,
                "trial": describe(trial),
                "state": trial.state if trial.cached_from is None else "proposed_again",
                "score": score,
                "incumbent": best,
            }
        )
    return pd.DataFrame(rows)


def draw_search_history(search: SearchRecords, data: pd.DataFrame) -> Figure:
    """Marks by state, and a stepped line through the best validated trial so far."""
    figure = Figure(figsize=(9, 4.6))
    axes = figure.subplots()
    axes.step(
        data["number"], data["incumbent"], where="post", color="black", linewidth=1.6,
        label="best validated so far", zorder=2,
    )  # fmt: skip
    low, high = data["score"].min(), data["score"].max()
    floor = 0.0 if math.isnan(low) else low - 0.12 * max(high - low, 0.05)
    for state, (colour, marker, name) in LOOKS.items():
        rows = data[data["state"] == state]
        if len(rows):
            lined = marker in "x1" or state == "proposed_again"
            axes.plot(
                rows["number"], rows["score"].fillna(floor), marker, color=colour, label=name,
                markerfacecolor="white" if lined else colour,
                markeredgecolor=colour if lined else "white",
                markeredgewidth=1.5 if lined else 0.6, zorder=3,
            )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("number of the trial")
    axes.set_ylabel(f"{search.metric_name} on the folds that choose")
    figure.legend(loc="outside upper center", ncols=4)
    return figure


def caption(search: SearchRecords, data: pd.DataFrame) -> str:
    """What the marks stand for, and that the line is what choosing looks like."""
    lost = int(data["score"].isna().sum())
    moved = data["state"].isin(["raced_out", "stopped"]).any()
    parts = [
        (
            f"{search.metric_name} by trial. The line goes through trials that were validated on all "
            f"{search.num_folds} folds within the limits: only these can win. It rises by chance "
            "alone too, as the best of more trials."
        )
    ]
    if moved:
        parts.append(
            "Trials that were given up are shown with the score that the strategy was told: the "
            "rival's mean, moved by the paired difference from it so far."
        )
    if lost:
        parts.append(
            f"{lost} trial{'s' if lost > 1 else ''} without a score lie{'' if lost > 1 else 's'} "
            "at the lower edge."
        )
    return " ".join(parts)
