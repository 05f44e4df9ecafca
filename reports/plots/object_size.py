"""Gain of nested skips by the size of what is to be segmented, case by case.

Figure 5 of the UNet++ paper (TMI 2019) has seven groups of cases by the pixels of the reference.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import ScalarFormatter
from numpy.typing import ArrayLike, NDArray

from reports.case_table import case_places, case_table
from reports.comparison import ALPHA
from reports.paired_tests import over_groups
from reports.plots.palette import Look, looks
from reports.records import StudyRecords, num_in_edges
from reports.scores import primary_cases
from reports.statistics import FEWEST_GROUPS, holm
from reports.voxels import point_word

# As many groups as the paper has, where there are cases enough for a test in each.
_NUM_GROUPS = 7


def nested_arms(study: StudyRecords) -> list[str]:
    """The arms with the most in-edges, where that is more than the baseline has."""
    counts = {arm.name: num_in_edges(arm) for arm in study.arms}
    most = max(counts.values())
    return [a for a, n in counts.items() if n == most > counts[study.manifest.baseline]]


def size_cases(study: StudyRecords) -> pd.DataFrame:
    """One row per (case, class, arm) of the baseline and the most nested arms, with a reference.

    Columns: case, label, group, size (pixels of the reference), size_group (from 0, small to
    large), arm, dice (mean over seeds; NaN where the arm has none). Empty where no arm is more
    nested than the baseline.
    """
    arms = nested_arms(study)
    rows = primary_cases(study)
    if not arms or rows.empty:
        return pd.DataFrame()
    places = case_places(study, rows)
    sizes = np.nanmax(places.means(rows["tp"] + rows["fn"]), axis=1)
    table, units = case_table(study), places.units[["case", "label", "group"]]
    frames = [
        units.assign(size=sizes, arm=arm, dice=table.scores[:, table.places.arms.index(arm)])
        for arm in (study.manifest.baseline, *arms)
    ]
    frame = pd.concat(frames, ignore_index=True)
    frame = frame[frame["size"] > 0].reset_index(drop=True)
    kept = frame["arm"] == study.manifest.baseline
    frame.insert(4, "size_group", size_groups(frame["size"], frame.loc[kept, "size"]))
    return frame


def size_groups(sizes: ArrayLike, all_once: ArrayLike) -> NDArray[np.intp]:
    """Size group of each, from 0, by the quantiles of all; equal sizes share a group.

    Seven groups, fewer where they would not hold six cases each.

    Args:
        sizes: [n] in pixels.
        all_once: sizes that decide the edges, every case or object once.
    """
    once = np.asarray(all_once, dtype=np.float64)
    number = max(1, min(_NUM_GROUPS, len(once) // FEWEST_GROUPS))
    if not len(once):
        return np.zeros(0, dtype=np.intp)
    # Edges are sizes that occur: no group is empty.
    edges = np.unique(np.quantile(once, np.arange(1, number) / number, method="higher"))
    edges = edges[edges > once.min()]
    return np.searchsorted(edges, np.asarray(sizes, dtype=np.float64), side="right")


def size_gains(study: StudyRecords, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per (arm, size group) of `size_cases`.

    Columns: arm, size_group, smallest, largest (pixels), num_cases (with both scores), base_dice,
    dice, difference, low, high, p, num (of groups), p_holm (over the size groups of the arm).
    """
    base = frame[frame["arm"] == study.manifest.baseline].reset_index(drop=True)
    rows: list[pd.DataFrame] = []
    for arm in nested_arms(study):
        both = base.assign(arm_dice=frame.loc[frame["arm"] == arm, "dice"].to_numpy())
        both = both.dropna(subset=["dice", "arm_dice"])
        one = pd.DataFrame(
            [
                {
                    "arm": arm,
                    "size_group": number,
                    **pixel_range(base.loc[base["size_group"] == number, "size"]),
                    "num_cases": len(part),
                    "base_dice": part["dice"].mean(),
                    "dice": part["arm_dice"].mean(),
                    **over_groups(part["arm_dice"] - part["dice"], part["group"].tolist()).row,
                }
                for number, part in both.groupby("size_group")
            ]
        )
        rows.append(one.assign(p_holm=holm(one["p"].tolist())) if len(one) else one)
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def pixel_range(sizes: pd.Series) -> dict[str, int]:
    """The smallest and largest size of a group, as columns."""
    return {"smallest": int(sizes.min()), "largest": int(sizes.max())}


def draw_size_cases(study: StudyRecords, frame: pd.DataFrame) -> Figure:
    """Above: how many cases have which size, groups parted by dashes. Below: a box per group and arm."""
    look = looks(study)
    gains = size_gains(study, frame)
    arms = [study.manifest.baseline, *nested_arms(study)]
    figure = Figure(figsize=(7, 4.2))
    above, below = figure.subplots(2, 1, height_ratios=(1, 2.2))
    _draw_histogram(above, frame[frame["arm"] == arms[0]])
    above.set_xlabel(f"{point_word(study)}s of the reference")
    _draw_boxes(below, frame, arms, look)
    _draw_stars(below, gains, arms)
    ranges = frame.groupby("size_group")["size"].agg(["min", "max"]).astype(int)
    names = [f"{low:,}\nto {high:,}" for low, high in ranges.to_numpy()]
    below.set_xticks(range(len(names)), names)
    below.set_xlabel(f"{point_word(study)}s of the reference, group by group")
    below.set_ylabel("Dice per case")
    below.grid(visible=False, axis="x")
    figure.legend(
        handles=[
            Patch(facecolor=_light(look[arm].colour), edgecolor=look[arm].colour, hatch=_hatch(k),
                  label=look[arm].title)
            for k, arm in enumerate(arms)
        ],
        loc="outside upper center",
        ncols=len(arms),
    )  # fmt: skip
    return figure


def _draw_histogram(axes: Axes, base: pd.DataFrame) -> None:
    sizes = base["size"].to_numpy(dtype=np.float64)
    low, high = sizes.min(), max(sizes.max(), sizes.min() + 1)
    bins = np.geomspace(low, high, 25) if high > 10 * low else np.linspace(low, high, 25)
    axes.hist(sizes, bins=bins.tolist(), color="#9A9A9A", edgecolor="white", linewidth=0.4)
    if high > 10 * low:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ScalarFormatter())
    for _, part in base.groupby("size_group"):
        if part["size"].min() > low:
            axes.axvline(part["size"].min(), color="#222222", linestyle=(0, (3, 3)), linewidth=0.8)
    axes.set_ylabel("cases")


def _draw_boxes(axes: Axes, frame: pd.DataFrame, arms: list[str], look: dict[str, Look]) -> None:
    width = 0.8 / len(arms)
    for k, arm in enumerate(arms):
        for number, part in frame[frame["arm"] == arm].groupby("size_group"):
            axes.boxplot(
                part["dice"].dropna().tolist(),
                positions=[int(str(number)) + (k - (len(arms) - 1) / 2) * width],
                widths=0.82 * width,
                patch_artist=True,
                manage_ticks=False,
                boxprops={
                    "facecolor": _light(look[arm].colour), "edgecolor": look[arm].colour,
                    "hatch": _hatch(k), "linewidth": 0.8,
                },
                medianprops={"color": "black", "linewidth": 1.3},
                whiskerprops={"color": look[arm].colour, "linewidth": 0.8},
                capprops={"color": look[arm].colour, "linewidth": 0.8},
                flierprops={"marker": ".", "markersize": 3, "markeredgecolor": look[arm].colour},
            )  # fmt: skip


def _draw_stars(axes: Axes, gains: pd.DataFrame, arms: list[str]) -> None:
    """A star above every box whose arm a test told from the baseline."""
    for row in gains[gains["p_holm"] < ALPHA].to_dict("records") if len(gains) else ():
        k = arms.index(str(row["arm"]))
        x = row["size_group"] + (k - (len(arms) - 1) / 2) * 0.8 / len(arms)
        above = axes.get_xaxis_transform()
        axes.text(x, 0.99, "*", ha="center", va="bottom", fontsize=11, transform=above)


def _hatch(place: int) -> str:
    return ("", "////", "....", "xxxx")[place % 4]


def _light(colour: str) -> tuple[float, float, float, float]:
    red, green, blue = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
    return red, green, blue, 0.25


def size_caption(study: StudyRecords, frame: pd.DataFrame) -> str:
    """What bars, boxes and stars are."""
    num = frame.loc[frame["arm"] == study.manifest.baseline, "dice"].size
    classes = study.manifest.dataset["classes"]
    unit = "cases" if len(classes) == 1 else "(case, class) pairs"
    return (
        f"{num} {unit} with a reference, in {frame['size_group'].nunique()} groups of as equal "
        "counts as equal sizes allow (dashes). Box: quartiles and median of Dice per case under "
        "the run that held it out (mean over seeds); whiskers: 1.5 times the quartile distance. "
        f"Star: told from {study.titles[study.manifest.baseline]} by the paired test of the table "
        "(Holm p < 0.05 over the size groups of the arm)."
    )
