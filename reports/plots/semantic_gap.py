"""How alike what a skip joins is, over training: linear CKA by level and arm."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.plots.palette import looks
from reports.records import StudyRecords
from unetpp.records import ArmEntry
from unetpp.spec import GridSpec

# Measure -> its axis. "merged" is what the claim is about.
MEASURES = {
    "merged": "source and what\nit is merged with",
    "ends": "source and target",
    "long": "X[i,0] and the\nlast node of the level",
}


def gap_runs(study: StudyRecords) -> pd.DataFrame:
    """One row per (arm, run, epoch, level, measure): CKA, 0 to 1, the mean over the skips.

    "merged": between the source of a skip and what its target merges it with from below; "ends":
    between source and target; both are means over the skips of the level. "long": between X[i,0]
    and the last node of the level, joined by a skip or not. Columns: arm, seed, fold, epoch, level,
    measure, value, num_skips. Empty where nothing was watched.
    """
    traces = study.traces[study.traces["quantity"].isin(["cka_merged", "cka_ends"])]
    frames = [frame for arm in study.arms for frame in _of_arm(arm, traces)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _of_arm(arm: ArmEntry, traces: pd.DataFrame) -> Iterator[pd.DataFrame]:
    spec = GridSpec.from_json(arm.spec)
    skips = [f"{source}>{target}" for source, target in spec.skips]
    last = {entry.node.i: entry.node for entry in spec.inputs}
    ends = [f"X_{level}_0>{node}" for level, node in last.items()]
    own = traces[traces["arm"] == arm.name]
    wanted = {
        "merged": ("cka_merged", skips), "ends": ("cka_ends", skips), "long": ("cka_ends", ends),
    }  # fmt: skip
    for measure, (quantity, places) in wanted.items():
        kept = own[(own["quantity"] == quantity) & own["place"].isin(places)]
        if kept.empty:
            continue
        level = kept["place"].astype(object).str.split("_").str[1].astype(int).rename("level")
        grouped = kept.groupby(["seed", "fold", "epoch", level])["value"]
        frame = grouped.agg(value="mean", num_skips="count").reset_index()
        yield frame.assign(arm=arm.name, measure=measure)


def gap_lines(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per (arm, measure, level, epoch): mean, low, high over runs, num_runs."""
    if runs.empty:
        return runs
    grouped = runs.groupby(["arm", "measure", "level", "epoch"], sort=False)["value"]
    return grouped.agg(mean="mean", low="min", high="max", num_runs="count").reset_index()


def draw_gap_lines(study: StudyRecords, frame: pd.DataFrame) -> Figure:
    """A column a level, a row a measure; line: mean over runs, band: range."""
    look = looks(study)
    measures = [m for m in MEASURES if (frame["measure"] == m).any()]
    levels = sorted(frame["level"].unique())
    figure = Figure(figsize=(7, 0.9 + 1.45 * len(measures)))
    grid = figure.subplots(len(measures), len(levels), sharex=True, sharey=True, squeeze=False)
    for row, measure in zip(grid, measures, strict=True):
        for axes, level in zip(row, levels, strict=True):
            part = frame[(frame["measure"] == measure) & (frame["level"] == level)]
            for arm, rows in part.groupby("arm", sort=False):
                style, ordered = look[str(arm)], rows.sort_values("epoch")
                _line(axes, ordered, style.colour, style.dash, style.marker, style.title)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
        row[0].set_ylabel(MEASURES[measure], fontsize=8)
    for axes, level in zip(grid[0], levels, strict=True):
        axes.set_title(f"level {level}")
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel("linear CKA", fontsize=9)
    named = {label: handle for axes in grid.flat
             for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}  # fmt: skip
    figure.legend(list(named.values()), list(named), loc="outside upper center", ncols=5)
    return figure


def _line(axes: Axes, rows: pd.DataFrame, colour: str, dash: str, marker: str, title: str) -> None:
    x = rows["epoch"]
    axes.fill_between(x, rows["low"], rows["high"], color=colour, alpha=0.15, linewidth=0)
    axes.plot(
        x, rows["mean"], dash, color=colour, marker=marker, markersize=3, linewidth=1, label=title,
        markevery=max(1, len(rows) // 4),
    )  # fmt: skip


def caption(study: StudyRecords, frame: pd.DataFrame) -> str:
    """What CKA compares, and what line and band are."""
    del study
    num = int(frame["num_runs"].max())
    return (
        "Debiased linear CKA of two sets of feature maps on up to 16 held-out cases (1: alike up to "
        "rotation and scale; 0: unrelated). Top: the source of a skip and what its target merges it "
        "with from below; middle: source and target; both are means over the skips of a level. "
        "Bottom: X[i,0] and the last node of its level, whether a skip joins them or not. Line: mean "
        f"over {num} runs; band: their range. Positions of one image resemble each other: the "
        "values describe, and only the runs are compared by a test."
    )
