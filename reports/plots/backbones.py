"""Dice of every way of skipping on every encoder, with bridges where a test was made."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.comparison import ALPHA
from reports.crossing import crossing_rows, skip_titles
from reports.pairs import interval_words, run_words, within
from reports.plots.palette import Look, looks
from reports.records import StudyRecords
from reports.writers import p_value

# From the first to the last mark of a group, where groups are 1 apart.
_SPREAD = 0.5


def backbones(study: StudyRecords) -> pd.DataFrame:
    """One row an encoder and way of skipping, see `reports.crossing.crossing_rows`."""
    return crossing_rows(study)


def draw_backbones(study: StudyRecords, data: pd.DataFrame) -> Figure:
    """Marks with intervals, a group an encoder; bridges from the reference of each group."""
    styles = _styles(study, data)
    encoders = list(data["encoder"].unique())
    shifts = _shifts(list(styles))
    figure = Figure(figsize=(max(3.5, min(7.0, 0.6 + 1.4 * len(encoders))), 3.2))
    axes = figure.subplots()
    for skips, look in styles.items():
        rows = data[data["skips"] == skips]
        x = [encoders.index(name) + shifts[skips] for name in rows["encoder"]]
        limits = [within(*pair) for pair in rows[["dice_low", "dice_high"]].to_numpy()]
        errors = [
            [mean - low for mean, (low, _) in zip(rows["dice_mean"], limits, strict=True)],
            [high - mean for mean, (_, high) in zip(rows["dice_mean"], limits, strict=True)],
        ]
        axes.errorbar(
            x, rows["dice_mean"], yerr=errors, fmt=look.marker, color=look.colour, capsize=2.5,
            elinewidth=1.1, markeredgecolor="white", markeredgewidth=0.5,
            label=skip_titles(study).get(skips, skips),
        )  # fmt: skip
    _bridges(axes, data, encoders, shifts)
    axes.set_xticks(range(len(encoders)), encoders)
    axes.set_xlim(-0.5, len(encoders) - 0.5)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("Dice, mean over runs")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)))
    return figure


def _styles(study: StudyRecords, data: pd.DataFrame) -> dict[str, Look]:
    """Skips -> look of the first arm that has them."""
    look = looks(study)
    first = data.drop_duplicates("skips")
    return {
        str(skips): look[str(arm)] for skips, arm in zip(first["skips"], first["arm"], strict=True)
    }


def _shifts(skips: list[str]) -> dict[str, float]:
    step = _SPREAD / max(1, len(skips) - 1)
    return {name: step * place - _SPREAD / 2 for place, name in enumerate(skips)}


def _bridges(axes: Axes, data: pd.DataFrame, encoders: list[str], shifts: dict[str, float]) -> None:
    low, high = axes.get_ylim()
    step, top = 0.085 * (high - low), high
    for encoder, rows in data.groupby("encoder", sort=False):
        centre = encoders.index(str(encoder))
        reference = rows[rows["is_reference"]]
        if reference.empty:
            continue
        tops = [
            r["dice_mean"] if math.isnan(r["dice_high"]) else within(0, r["dice_high"])[1]
            for r in rows.to_dict("records")
        ]
        height = max(tops) + 0.35 * step
        for row in rows[rows["p_holm"].notna()].to_dict("records"):
            ends = [centre + shifts[skips] for skips in (reference["skips"].iloc[0], row["skips"])]
            axes.plot(
                [ends[0], ends[0], ends[1], ends[1]],
                [height, height + 0.2 * step, height + 0.2 * step, height],
                color="#444444", linewidth=0.8,
            )  # fmt: skip
            axes.text(
                sum(ends) / 2, height + 0.22 * step, bridge_text(row["p_holm"]), ha="center",
                va="bottom", fontsize=8,
            )  # fmt: skip
            height += step
        top = max(top, height + 0.3 * step)
    axes.set_ylim(low, top)


def bridge_text(p: float) -> str:
    """The p value of a difference that a test tells from 0, else "n.s."."""
    return f"p {p_value(p).replace('<', '< ')}" if p < ALPHA else "n.s."


def caption(study: StudyRecords, data: pd.DataFrame) -> str:
    """What is drawn, and where a test was made."""
    reference = data.loc[data["is_reference"], "skips"].iloc[0]
    family = int(data["p"].notna().sum())
    tests = (
        f"Bridges: paired differences from {reference} on the same encoder, by the corrected "
        f"resampled t; p after Holm's correction over all {family} of them, n.s. where it is 0.05 or "
        "more. Where there is no bridge, no test was made; encoders are not tested against each "
        "other."
        if family
        else "No test was made: it needs two runs that both have."
    )
    return (
        f"Mean Dice over {run_words(study)} on each encoder; bars: {interval_words(study)}, cut at 0 "
        f"and 1. {tests} Marks and not columns, because the axis does not start at 0."
    )
