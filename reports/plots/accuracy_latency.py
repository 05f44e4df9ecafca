"""Dice against the price of every stand-alone network, with the heads of an arm joined by a line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullFormatter, StrMethodFormatter

from reports.depth import family_title, is_plain, plain_depths
from reports.pairs import interval_words, within
from reports.plots.palette import looks
from reports.price import network_rows, pruned_arms
from reports.records import StudyRecords

# Area of a bubble in points^2 for the largest network; the rest in proportion to parameters.
_LARGEST = 520.0
_LOG_FROM = 5.0
_GREY, _LIGHT = "#8A8A8A", "#BBBBBB"
_AXIS = {
    "milliseconds": ("median latency, ms per image", 1.0),
    "macs": ("multiply-accumulates, billions", 1e-9),
}


def accuracy_latency(study: StudyRecords) -> pd.DataFrame:
    """One row a stand-alone network, see `reports.price.network_rows`; a single one is no plot.

    Raises:
        UserError: when the timings are of two machines, devices, batches or sizes.
    """
    rows = network_rows(study)
    return rows if len(rows) > 1 else pd.DataFrame()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """How the networks of one line of the legend are drawn."""

    title: str
    arms: tuple[str, ...]
    colour: str
    marker: str
    dash: Literal["-", "--", ""]
    is_plain: bool


def draw_accuracy_latency(study: StudyRecords, data: pd.DataFrame) -> Figure:
    """One line through the heads of each deep-supervised arm; open marks: plain networks."""
    cost = str(data["cost"].iloc[0])
    title, unit = _AXIS[cost]
    data = data.assign(x=unit * data[cost])
    scale = _LARGEST / data["num_parameters"].max()
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    lines = _lines(study, data)
    _staircase(axes, data)
    for line in lines:
        _draw_line(axes, data[data["arm"].isin(line.arms)], line, scale)
    if data["x"].max() >= _LOG_FROM * data["x"].min():
        _log_axis(axes, float(data["x"].min()), float(data["x"].max()))
    axes.margins(x=0.08, y=0.10)
    _keep_in_range(axes)
    axes.set_xlabel(title + (" (log scale)" if axes.get_xscale() == "log" else ""))
    axes.set_ylabel("Dice, mean over runs")
    _legends(figure, data, lines, scale)
    return figure


def _lines(study: StudyRecords, data: pd.DataFrame) -> list[_Line]:
    """The U-Nets of all depths are one line of the legend, every other arm its own."""
    look = looks(study)
    depths = [arm.name for arm in plain_depths(study).values()]
    family = tuple(depths) if len(depths) > 1 else ()
    lines = [
        _Line(
            title=f"{family_title(study, 'U-Net')}, each depth trained alone", arms=family, colour="#000000", marker="o",
            dash="", is_plain=True,
        )
    ] if family else []  # fmt: skip
    heads = {arm.name for arm in pruned_arms(study)}
    for arm in (str(name) for name in data["arm"].unique() if name not in family):
        style = look[arm]
        lines.append(
            _Line(
                title=style.title, arms=(arm,), colour=style.colour, marker=style.marker,
                dash=style.dash if arm in heads else "",
                is_plain=is_plain(study.arm(arm)),
            )
        )  # fmt: skip
    return lines


def _staircase(axes: Axes, data: pd.DataFrame) -> None:
    """What the front reaches at every price: between two of its points, the cheaper one's Dice."""
    front = data[data["status"] == "front"].sort_values("x")
    if len(front) > 1:
        axes.step(
            front["x"], front["dice_mean"], where="post", color="#444444", linewidth=1.0,
            linestyle=":", zorder=1,
        )  # fmt: skip


def _draw_line(axes: Axes, rows: pd.DataFrame, line: _Line, scale: float) -> None:
    rows = rows.sort_values("depth")
    if line.dash and len(rows) > 1:
        axes.plot(
            rows["x"], rows["dice_mean"], linestyle=line.dash, color=line.colour, linewidth=1.0, alpha=0.7,
            zorder=2,
        )  # fmt: skip
    # The bubble says how large, the mark on it says which: small networks stay visible.
    axes.scatter(
        rows["x"], rows["dice_mean"], s=scale * rows["num_parameters"].fillna(0),
        color=line.colour, alpha=0.14, linewidths=0, zorder=1,
    )  # fmt: skip
    for row in rows.to_dict("records"):
        beaten = row["status"] == "dominated"
        colour = _GREY if beaten else line.colour
        low, high = within(row["dice_low"], row["dice_high"])
        timed = row["cost"] == "milliseconds"
        quartiles = [[row["x"] - row["milliseconds_q25"]], [row["milliseconds_q75"] - row["x"]]]
        axes.errorbar(
            row["x"], row["dice_mean"],
            xerr=quartiles if timed else None,
            yerr=[[row["dice_mean"] - low], [high - row["dice_mean"]]],
            fmt="none", ecolor=colour, elinewidth=0.8, alpha=0.6, zorder=2,
        )  # fmt: skip
        axes.plot(
            row["x"], row["dice_mean"], line.marker, color=colour, zorder=3, markersize=6,
            markerfacecolor="white" if line.is_plain else colour,
            markeredgecolor=colour if line.is_plain else "white",
            markeredgewidth=1.2 if line.is_plain else 0.6,
        )  # fmt: skip
        _name(axes, row["x"], row["dice_mean"], row, colour, line)


def _name(axes: Axes, x: float, y: float, row: dict, colour: str, line: _Line) -> None:
    """The letter of a network; "≈" where it is tied with a cheaper one."""
    text = f"{row['output']}{' ≈' if row['status'] == 'tied' else ''}"
    below = line.is_plain
    axes.annotate(
        text, (x, y), ha="left" if below else "right", va="top" if below else "bottom",
        xytext=(4, -4) if below else (-4, 4), textcoords="offset points", fontsize=8,
        color=colour, zorder=5,
    )  # fmt: skip


def _keep_in_range(axes: Axes) -> None:
    """A Dice is between 0 and 1, whatever the margin of a wide interval says."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -0.02), min(high, 1.02))


def _log_axis(axes: Axes, low: float, high: float) -> None:
    axes.set_xscale("log")
    decades = [m * 10.0**k for k in range(-6, 7) for m in (1, 2, 5)]
    axes.xaxis.set_major_locator(FixedLocator([v for v in decades if low / 2 <= v <= high * 2]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _legends(figure: Figure, data: pd.DataFrame, lines: list[_Line], scale: float) -> None:
    marks = [
        Line2D(
            [], [], color=line.colour, marker=line.marker, label=line.title,
            linestyle=line.dash or "none", linewidth=1.0,
            markerfacecolor="white" if line.is_plain else line.colour,
        )
        for line in lines
    ]  # fmt: skip
    statuses = set(data["status"])
    if (data["status"] == "front").sum() > 1:
        marks.append(Line2D([], [], color="#444444", linestyle=":", label="not beaten (steps)"))
    if "dominated" in statuses:
        marks.append(Line2D([], [], color=_GREY, marker="o", linestyle="none", label="dominated"))
    if "tied" in statuses:
        marks.append(Line2D([], [], color="none", label="≈ tied with a cheaper one"))
    figure.legend(handles=marks, loc="outside upper center", ncols=min(4, len(marks)))
    sizes = [
        Line2D(
            [], [], linestyle="", marker="o", color=_LIGHT, markeredgewidth=0,
            markersize=(scale * count) ** 0.5, label=f"{count / 1e6:g} M",
        )
        for count in _size_steps(data["num_parameters"].dropna())
    ]  # fmt: skip
    if sizes:
        figure.legend(
            handles=sizes, title="parameters\n(area of disc)", loc="outside right center",
            labelspacing=1.6, borderpad=0.8, handletextpad=1.4, title_fontsize=8,
        )  # fmt: skip


def _size_steps(counts: pd.Series) -> list[float]:
    """Up to three round counts, a factor of about ten apart, not above the largest."""
    if counts.empty:
        return []
    exponent = math.floor(math.log10(counts.max()))
    first = max(step for step in (1, 2, 5) if step * 10.0**exponent <= counts.max())
    steps = [first * 10.0 ** (exponent - down) for down in (2, 1, 0)]
    return [step for step in steps if step >= 0.5 * counts.min()]


def caption(study: StudyRecords, data: pd.DataFrame) -> str:
    """What is drawn, machine, threads, batch and device, what the bars are and what beats what."""
    return (
        f"Each mark is one stand-alone network; L1 to Ld: pruned to that head, or trained at that "
        f"depth. {_cost_words(study, data)} Vertical bars: {interval_words(study)}, cut at 0 and 1; "
        "they show the spread of runs, not of differences, which are paired. Dotted steps join the "
        "networks that no other one reaches in Dice at the same price or less. Grey: dominated, "
        "that is some network costs no more and the paired 95 % interval of its lead in Dice leaves "
        "out 0. ≈: some network costs no more and has a higher mean, but no such interval leaves "
        "out 0. These intervals are not corrected for the number of pairs. Area of a disc: "
        "parameters. Open marks: plain networks, without nesting. The mean of several heads is no stand-alone network "
        "and is not drawn."
    )


def _cost_words(study: StudyRecords, data: pd.DataFrame) -> str:
    if data["cost"].iloc[0] == "macs":
        return (
            "No latencies were taken, so multiply-accumulates of one image stand in their place: "
            "they are no measure of time."
        )
    timed = study.latencies.iloc[0]
    rounds = int(np.max(data["num_rounds"]))
    threads, batch = int(timed["num_threads"]), int(timed["batch"])
    return (
        f"Timed alone on: {timed['machine_summary']}; device {timed['device']}, {threads} "
        f"thread{'s' if threads != 1 else ''}, batch of {batch}, {timed['size']} pixels, without "
        f"loading or copying of images. Horizontal bars: quartiles over {rounds} interleaved rounds."
    )
