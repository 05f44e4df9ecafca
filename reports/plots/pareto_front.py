"""Score against what a network costs, with the trials that no other one beats; and how that grew."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, NullFormatter

from reports.search_records import SearchRecords
from reports.search_tables import amount, front_numbers, score_of, shown_costs
from unetpp.metrics.pareto import hypervolume
from unetpp.searches import TrialRecord, describe, is_allowed, objectives, score_names

NAMES = {
    "parameters": "parameters",
    "macs": "multiply-accumulates",
    "latency_ms": "latency, ms a case",
    "memory_mb": "memory in training, MB",
}
_SPREAD = 10.0  # of the costs, from which the axis is logarithmic


def pareto_front(search: SearchRecords) -> pd.DataFrame:
    """One row a distinct trial that has a score: number, trial, validated (and within the limits),
    baseline, winner, score, every cost, on_front (over all objectives at once).

    With the score as only objective, MACs are shown and the front is that of score and MACs.
    """
    kept = [trial for trial in search.distinct if not math.isnan(score_of(trial))]
    valid = {trial.number for trial in search.valid}
    names, best = shown_costs(search), front_numbers(search)
    base, winner = search.baseline, search.winner
    return pd.DataFrame(
        [
            {
                "number": trial.number,
                "trial": describe(trial),
                "validated": trial.number in valid,
                "baseline": base is not None and trial.number == base.number,
                "winner": winner is not None and trial.number == winner.number,
                "score": score_of(trial),
                **{name: trial.costs.get(name, math.nan) for name in names},
                "on_front": trial.number in best,
            }
            for trial in kept
        ]
    )


def draw_pareto_front(search: SearchRecords, data: pd.DataFrame) -> Figure:
    """A panel a cost: validated trials filled, the others hollow, the front ringed."""
    names = shown_costs(search)
    figure = Figure(figsize=(9, 4.8) if len(names) == 1 else (10, 4.6))
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        _draw_cost(axes, data, name, joined=len(names) == 1)
        axes.set_xlabel(NAMES[name] + (" (log scale)" if axes.get_xscale() == "log" else ""))
    panels[0].set_ylabel(f"{search.metric_name} on the folds that choose")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5)
    return figure


def _draw_cost(axes: Axes, data: pd.DataFrame, name: str, *, joined: bool) -> None:
    values = data[name]
    if values.min() > 0 and values.max() > _SPREAD * values.min():
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    if name in ("macs", "parameters"):
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    given_up, valid = data[~data["validated"]], data[data["validated"]]
    best = data[data["on_front"]].sort_values([name, "score"])
    if len(given_up):
        axes.plot(
            given_up[name], given_up["score"], "o", color="#999999", markerfacecolor="white",
            markersize=6, label="given up",
        )  # fmt: skip
    axes.plot(
        valid[name], valid["score"], "o", color="#0072B2", markeredgecolor="white",
        label="validated", zorder=3,
    )  # fmt: skip
    if joined and len(best) > 1:
        axes.step(best[name], best["score"], where="post", color="#009E73", linewidth=1.3, zorder=2)
    axes.plot(
        best[name], best["score"], "o", color="#009E73", markerfacecolor="none", markersize=12,
        markeredgewidth=1.8, label="not beaten", zorder=4,
    )  # fmt: skip
    for column, marker, colour in (("baseline", "s", "#000000"), ("winner", "*", "#D55E00")):
        rows = data[data[column]]
        if len(rows):
            size = 15 if marker == "*" else 8
            axes.plot(
                rows[name], rows["score"], marker, color=colour, markersize=size,
                markeredgecolor="white", label=column, zorder=5 if marker == "*" else 4.5,
            )  # fmt: skip
    axes.margins(x=0.08, y=0.10)


def caption(search: SearchRecords, data: pd.DataFrame) -> str:
    """Which trials are on the front, and the hypervolume where objectives were declared."""
    names = [NAMES[name] for name in shown_costs(search)]
    number = int(data["on_front"].sum())
    text = (
        f"{search.metric_name} against {' and '.join(names)}. Not beaten: no validated trial is at "
        f"least as good everywhere and better somewhere ({number} trial{'s' if number != 1 else ''}). "
    )
    if not search.manifest.costs:
        return text + "For information: this search looked at the score alone."
    grown = hypervolume_history(search)
    corner = ", ".join(
        f"{NAMES.get(name, search.metric_name)} {amount(value)}"
        for name, value in search.manifest.reference.items()
    )
    share = grown["hypervolume"].iloc[-1] if len(grown) else 0.0
    return (
        f"{text}Hypervolume: {share:.3f} of the box between the ideal (score 1, no cost) and the "
        f"reference point that was fixed before the first trial ({corner}). Scores are those that "
        "choose; small differences along the front are noise."
    )


def hypervolume_history(search: SearchRecords) -> pd.DataFrame:
    """One row a trial: number, hypervolume of the valid trials up to it, as a share of the box
    between the reference point and the ideal. Empty with a single objective.
    """
    manifest = search.manifest
    if not manifest.costs:
        return pd.DataFrame(columns=["number", "hypervolume"])
    signs = (1, *(-1 for _ in manifest.costs))
    corner = [manifest.reference[name] for name in score_names(manifest)]
    box = math.prod([1 - corner[0], *corner[1:]])
    points: list[tuple[float, ...]] = []
    rows: list[dict[str, float]] = []
    share = 0.0
    for trial in search.trials:
        point = _point(search, trial)
        if point is not None:
            points.append(point)
            share = hypervolume(points, corner, signs) / box
        rows.append({"number": trial.number, "hypervolume": share})
    return pd.DataFrame(rows)


def _point(search: SearchRecords, trial: TrialRecord) -> tuple[float, ...] | None:
    counted = trial.state == "validated" and trial.cached_from is None and is_allowed(trial)
    return objectives(search.manifest, trial) if counted else None


def draw_hypervolume(search: SearchRecords, data: pd.DataFrame) -> Figure:
    """A stepped line by number of trial."""
    del search
    figure = Figure(figsize=(9, 3.4))
    axes = figure.subplots()
    axes.step(data["number"], data["hypervolume"], where="post", color="#009E73")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("number of the trial")
    axes.set_ylabel("hypervolume, share of the box")
    return figure


def hypervolume_caption(search: SearchRecords, data: pd.DataFrame) -> str:
    """What it measures, and what it cannot say."""
    del search, data
    return (
        "Hypervolume of the trials validated so far, within the limits, against the reference point "
        "that was fixed before the first trial. It never falls; where it is flat, more trials "
        "bought nothing."
    )
