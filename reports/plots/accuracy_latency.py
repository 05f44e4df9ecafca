"""Dice against latency of every stand-alone network, with the sub-networks L1..Ld of an arm joined."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullFormatter, StrMethodFormatter

from reports.plots.palette import Look, looks
from reports.records import StudyRecords, same_grid
from reports.scores import fold_scores, scored_folds
from reports.statistics import corrected_resampled_t
from unetpp.errors import UserError

# Area of a bubble in points^2 for the largest network; the rest in proportion to parameters.
_LARGEST = 1500.0
_LOG_FROM = 5.0
_CONDITIONS = ("machine", "device", "num_threads", "batch", "size")


def accuracy_latency(study: StudyRecords) -> pd.DataFrame:
    """One row per timed network: milliseconds per image (median and quartiles over the rounds),
    parameters, and mean Dice over folds of that output with its corrected 95 % interval.

    Raises:
        UserError: when the timings are of two machines, devices, batches or sizes.
    """
    timed = study.latencies
    for name in _CONDITIONS:
        values = [str(value) for value in timed[name].unique()]
        if len(values) > 1:
            raise UserError(
                f"latencies of one plot must share their {name.replace('_', ' ')}, but these have "
                f"{' and '.join(values)}; time all networks in one place"
            )
    rows: list[dict[str, object]] = []
    for (network, arm, output), rounds in timed.groupby(["network", "arm", "output"], sort=False):
        per_image = rounds["milliseconds"] / rounds["batch"]
        rows.append(
            {
                "network": network,
                "arm": arm,
                "output": output,
                "num_parameters": int(rounds["num_parameters"].iloc[0]),
                "macs": int(rounds["macs"].iloc[0]),
                "milliseconds": per_image.median(),
                "milliseconds_q25": per_image.quantile(0.25),
                "milliseconds_q75": per_image.quantile(0.75),
                "num_rounds": len(rounds),
                **_dice(study, str(arm), str(output)),
            }
        )
    frame = pd.DataFrame(rows)
    return frame.dropna(subset=["dice"]).reset_index(drop=True) if len(frame) else frame


def _dice(study: StudyRecords, arm: str, output: str) -> dict[str, float]:
    cases = study.cases[(study.cases["arm"] == arm) & (study.cases["output"] == output)]
    if cases.empty:
        return dict.fromkeys(("dice", "dice_low", "dice_high"), float("nan"))
    values = scored_folds(fold_scores(cases, "dice"), arm)
    result = corrected_resampled_t(values.tolist(), test_train_ratio=study.test_train_ratio)
    if result is None:
        return {"dice": float(values.mean()), "dice_low": float("nan"), "dice_high": float("nan")}
    return {"dice": result.mean, "dice_low": result.low, "dice_high": result.high}


def draw_accuracy_latency(study: StudyRecords, data: pd.DataFrame) -> Figure:
    """One line through the outputs of each deep-supervised arm; open marks: plain U-Nets."""
    look = looks(study)
    plain = {arm.name for arm in same_grid(study)}
    scale = _LARGEST / data["num_parameters"].max()
    figure = Figure(figsize=(9, 5.6))
    axes = figure.subplots()
    num_lines = 0
    for arm, rows in data.sort_values("output").groupby("arm", sort=False):
        style = look[str(arm)]
        _draw_arm(axes, rows, style, scale, is_plain=str(arm) in plain)
        if len(rows) > 1:
            num_lines += 1
            _name_outputs(axes, rows, style, above=num_lines % 2 == 0)
    fastest, slowest = data["milliseconds_q25"].min(), data["milliseconds_q75"].max()
    if slowest >= _LOG_FROM * fastest:
        _log_axis(axes, fastest, slowest)
    axes.margins(x=0.08, y=0.10)
    axes.set_xlabel("median latency, ms per image" + _scale_note(axes))
    axes.set_ylabel("Dice, mean over folds")
    _legends(figure, data, look, plain, scale)
    return figure


def _draw_arm(axes: Axes, rows: pd.DataFrame, look: Look, scale: float, *, is_plain: bool) -> None:
    x, y = rows["milliseconds"], rows["dice"]
    # The bubble says how large, the mark on it says which: small networks stay visible.
    axes.scatter(
        x,
        y,
        s=scale * rows["num_parameters"],
        color=look.colour,
        alpha=0.16,
        linewidths=0,
        zorder=1,
    )
    axes.errorbar(
        x, y,
        xerr=[x - rows["milliseconds_q25"], rows["milliseconds_q75"] - x],
        yerr=[y - rows["dice_low"], rows["dice_high"] - y],
        fmt="none", ecolor=look.colour, elinewidth=1, alpha=0.45, zorder=2,
    )  # fmt: skip
    axes.plot(
        x, y, look.dash if len(rows) > 1 else "", marker=look.marker, color=look.colour, zorder=3,
        markerfacecolor="white" if is_plain else look.colour, markeredgewidth=1.6 if is_plain else 0.8,
        markeredgecolor=look.colour if is_plain else "white", markersize=9,
    )  # fmt: skip


def _name_outputs(axes: Axes, rows: pd.DataFrame, look: Look, *, above: bool) -> None:
    for output, x, y in zip(rows["output"], rows["milliseconds"], rows["dice"], strict=True):
        axes.annotate(
            output, (x, y), ha="center", xytext=(9, 9 if above else -18),
            textcoords="offset points", fontsize=10, color=look.colour, zorder=5,
        )  # fmt: skip


def _log_axis(axes: Axes, low: float, high: float) -> None:
    axes.set_xscale("log")
    decades = [m * 10.0**k for k in range(-4, 7) for m in (1, 2, 5)]
    axes.xaxis.set_major_locator(FixedLocator([v for v in decades if low / 2 <= v <= high * 2]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _scale_note(axes: Axes) -> str:
    return " (log scale)" if axes.get_xscale() == "log" else ""


def _legends(
    figure: Figure,
    data: pd.DataFrame,
    look: dict[str, Look],
    plain: set[str],
    scale: float,
) -> None:
    counts = data.groupby("arm", sort=False)["network"].count()
    arms = [
        Line2D(
            [], [], color=look[arm].colour, marker=look[arm].marker, label=look[arm].title,
            linestyle=look[arm].dash if counts[arm] > 1 else "none",
            markerfacecolor="white" if arm in plain else look[arm].colour,
        )
        for arm in data["arm"].unique()
    ]  # fmt: skip
    sizes = [
        Line2D(
            [], [], linestyle="", marker="o", color="#BBBBBB", markeredgewidth=0,
            markersize=(scale * count) ** 0.5, label=f"{count / 1e6:g} M",
        )
        for count in _size_steps(data["num_parameters"])
    ]  # fmt: skip
    figure.legend(handles=arms, loc="outside upper center", ncols=min(6, len(arms)))
    figure.legend(
        handles=sizes, title="parameters\n(area of disc)", loc="outside right center",
        labelspacing=1.8, borderpad=1.0, handletextpad=1.8,
    )  # fmt: skip


def _size_steps(counts: pd.Series) -> list[float]:
    """Up to three round counts, a factor of about ten apart, not above the largest."""
    exponent = math.floor(math.log10(counts.max()))
    first = max(step for step in (1, 2, 5) if step * 10.0**exponent <= counts.max())
    steps = [first * 10.0 ** (exponent - down) for down in (2, 1, 0)]
    return [step for step in steps if step >= 0.5 * counts.min()]


def caption(study: StudyRecords, data: pd.DataFrame) -> str:
    """Machine, threads, batch, device, and what the bars are."""
    del data
    timed = study.latencies.iloc[0]
    rounds = study.latencies.groupby("network")["round"].nunique().max()
    threads = int(timed["num_threads"])
    batch = int(timed["batch"])
    return (
        f"Each mark is one stand-alone network, timed alone on: {timed['machine_summary']}; device "
        f"{timed['device']}, {threads} thread{'s' if threads != 1 else ''}, batch of {batch}, "
        f"{timed['size']} pixels. Horizontal bars: quartiles over {rounds} "
        "interleaved rounds. Vertical bars: 95 % interval of the mean Dice over folds (corrected "
        "resampled t); they show the spread of folds, not of differences between arms, which are "
        "paired. L1 to Ld: the network pruned to that head. Area of a disc: parameters. Open "
        "marks: plain U-Nets."
    )
