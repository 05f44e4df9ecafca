"""What branch pruning saves, in per cent of the deepest head, against what it costs in Dice."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from reports.pairs import interval_words
from reports.plots.palette import Look, looks
from reports.price import saving_rows
from reports.records import StudyRecords

_PANELS = {
    "saved_time": "time saved",
    "saved_parameters": "parameters saved",
    "saved_macs": "multiply-accumulates saved",
}


def savings(study: StudyRecords) -> pd.DataFrame:
    """One row a head of every deep-supervised arm, see `reports.price.saving_rows`.

    Raises:
        UserError: when the timings are of two machines, devices, batches or sizes.
    """
    return saving_rows(study)


def draw_savings(study: StudyRecords, data: pd.DataFrame) -> Figure:
    """A panel for each price that is known; one line an arm, from its deepest head at the origin."""
    look = looks(study)
    panels = {name: title for name, title in _PANELS.items() if data[name].notna().any()}
    figure = Figure(figsize=(7, 2.7))
    for place, (name, title) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), place + 1)
        axes.axhline(0, color="black", linewidth=0.8, zorder=1)
        for arm, heads in data.groupby("arm", sort=False):
            _draw_heads(axes, heads.sort_values("depth"), name, look[str(arm)])
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.margins(x=0.14, y=0.12)
        axes.set_xlabel(title)
        if place:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel("Dice minus Dice of\nthe deepest head, same run")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)))
    return figure


def _draw_heads(axes: Axes, heads: pd.DataFrame, name: str, look: Look) -> None:
    known = heads[heads[name].notna()]
    x, y = known[name], known["delta_dice"].fillna(0)
    axes.plot(
        x, y, look.dash, marker=look.marker, color=look.colour, label=look.title, zorder=3,
        markeredgecolor="white", markeredgewidth=0.6,
    )  # fmt: skip
    beside = None
    if name == "saved_time":
        beside = [x - known["saved_time_low"], known["saved_time_high"] - x]
    # Beyond 1 no difference of two scores lies.
    low, high = known["delta_low"].clip(lower=-1), known["delta_high"].clip(upper=1)
    axes.errorbar(
        x, y, xerr=beside, yerr=[y - low, high - y], fmt="none",
        ecolor=look.colour, elinewidth=1.2, capsize=2.5, alpha=0.8, zorder=2,
    )  # fmt: skip
    for output, left, up in zip(known["output"], x, y, strict=True):
        axes.annotate(
            output, (left, up), xytext=(-4, -4), textcoords="offset points", ha="right", va="top",
            fontsize=8, color=look.colour,
        )  # fmt: skip


def caption(study: StudyRecords, data: pd.DataFrame) -> str:
    """What is saved, and what the bars are."""
    timed = data["saved_time"].notna().any()
    times = (
        "Time saved: 1 - 1 / speed-up, the speed-up being the geometric mean over the interleaved "
        "rounds of the ratio of the two medians of a round; horizontal bars: its 95 % interval, "
        "bootstrap over rounds. "
        if timed
        else "No latencies were taken. "
    )
    return (
        "Each head of a network with deep supervision, as the network pruned to it, against the "
        f"deepest head of the same trained networks. {times}Vertical: difference in Dice, paired by "
        f"run; bars: {interval_words(study)}, not corrected for the number of heads. Right and up "
        "is better."
    )
