"""Maps along the top skip path, case by case and arm by arm, and how well they follow the truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from reports.feature_map_file import FeatureMaps
from reports.plots.overlay_grid import row_title
from reports.plots.palette import looks
from reports.records import StudyRecords

# Percentiles between which the grey of a map runs: a single bright pixel must not darken the rest.
_LOW, _HIGH = 2, 98
_CELL = 0.95  # inches


def follow_rows(study: StudyRecords) -> pd.DataFrame:
    """One row a map: case, reason, arm, node, column (j), follows; and what it is scaled by.

    `low` and `high` are the 2nd and 98th percentile of its values. Empty where no maps were kept.
    """
    kept = study.feature_maps
    if kept is None or not len(kept.arms):
        return pd.DataFrame()
    flat = kept.maps.astype(np.float64).reshape(len(kept.arms), -1)
    low, high = np.percentile(flat, [_LOW, _HIGH], axis=1)
    return pd.DataFrame(
        {
            "case": [kept.case_ids[number] for number in kept.cases],
            "reason": [kept.reasons[number] for number in kept.cases],
            "arm": kept.arms,
            "node": kept.nodes,
            "column": [int(node.rsplit("_", 1)[1]) for node in kept.nodes],
            "follows": kept.follows,
            "low": low,
            "high": high,
        }
    )


def draw_feature_maps(study: StudyRecords, frame: pd.DataFrame) -> Figure:
    """A block a case: a row an arm, first image and truth, then X[0,0] to X[0,d]."""
    kept = study.feature_maps
    assert kept is not None
    arms = [arm.name for arm in study.arms if arm.name in set(kept.arms)]
    columns = int(frame["column"].max()) + 1
    num_cases = len(kept.case_ids)
    ratio = kept.masks.shape[1] / kept.masks.shape[2]
    height = num_cases * (0.28 + len(arms) * (_CELL * ratio + 0.17))
    figure = Figure(figsize=(0.25 + (columns + 1) * (_CELL + 0.06), height))
    blocks = np.atleast_1d(np.asarray(figure.subfigures(num_cases, 1), dtype=object))
    for number, block in enumerate(blocks):
        reason = row_title(kept.case_ids[number], kept.reasons[number], 78)
        block.suptitle(reason, fontsize=8, weight="bold", x=0.01, ha="left")
        grid = block.subplots(len(arms), columns + 1, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        _draw_case(grid[:, 0], kept, number)
        for row, arm in enumerate(arms):
            grid[row, 0].text(
                -0.12, 0.5, study.titles[arm], rotation=90, ha="center", va="center", fontsize=8,
                transform=grid[row, 0].transAxes,
            )  # fmt: skip
        for place, (case, arm) in enumerate(zip(kept.cases, kept.arms, strict=True)):
            if case == number:
                column = int(frame["column"].iloc[place])
                _draw_map(grid[arms.index(arm), column + 1], kept, frame, place)
    return figure


def _draw_case(column: NDArray[np.object_], kept: FeatureMaps, number: int) -> None:
    """Image and truth one below the other; with a single row, the truth's outline on the image."""
    image, mask = kept.images[number], kept.masks[number] > 0
    column[0].imshow(image, interpolation="nearest")
    column[0].set_title("image", fontsize=8, pad=2)
    if len(column) > 1:
        column[1].imshow(mask, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        column[1].set_title("truth", fontsize=8, pad=2)
    elif mask.any() and not mask.all():
        column[0].contour(mask.astype(np.float64), levels=[0.5], colors="#E69F00", linewidths=0.8)


def _draw_map(axes: Axes, kept: FeatureMaps, frame: pd.DataFrame, place: int) -> None:
    row = frame.iloc[place]
    high = max(float(row["high"]), float(row["low"]) + 1e-9)
    axes.imshow(
        kept.maps[place].astype(np.float64), cmap="magma", vmin=float(row["low"]), vmax=high,
        interpolation="nearest",
    )  # fmt: skip
    follows = "n/a" if np.isnan(row["follows"]) else f"{row['follows']:.2f}"
    name = f"$X^{{0,{row['column']}}}$"
    axes.set_title(f"{name}: {follows}", fontsize=8, pad=2)


def caption(study: StudyRecords, frame: pd.DataFrame) -> str:
    """What is shown, how it is scaled, and what the number is."""
    del study
    return (
        f"{frame['case'].nunique()} held-out cases, chosen by score (see their titles), by the "
        "networks that did not learn from them. A map is the mean over channels of the absolute "
        f"activation, each on a scale of its own from its {_LOW}nd to its {_HIGH}th percentile, so "
        "that brightness is not compared between maps. Number: how well the best channel follows "
        "the truth (largest absolute point-biserial correlation of any channel with the mask, 0 to "
        "1); the best of many channels is above 0 by chance. Where "
        "nothing is shown the network has no such node."
    )


def mean_follows(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per (arm, column): `follows` as a mean over the cases that have it, with low, high."""
    grouped = frame.dropna(subset=["follows"]).groupby(["arm", "column"], sort=False)["follows"]
    return grouped.agg(mean="mean", low="min", high="max", num_cases="count").reset_index()


def draw_follows(study: StudyRecords, frame: pd.DataFrame) -> Figure:
    """Columns across, `follows` upward; a line an arm."""
    look = looks(study)
    figure = Figure(figsize=(3.5, 2.6))
    axes = figure.subplots()
    arms = list(frame["arm"].unique())
    for k, arm in enumerate(arms):
        rows, style = frame[frame["arm"] == arm].sort_values("column"), look[arm]
        x = rows["column"] + (k - (len(arms) - 1) / 2) * 0.06
        axes.errorbar(
            x, rows["mean"], yerr=[rows["mean"] - rows["low"], rows["high"] - rows["mean"]],
            color=style.colour, marker=style.marker, linestyle=style.dash, elinewidth=0.8,
            label=style.title, markersize=4.5,
        )  # fmt: skip
    columns = sorted(frame["column"].unique())
    axes.set_xticks(columns, [f"$X^{{0,{column}}}$" for column in columns])
    axes.set_ylabel("follows the truth")
    axes.set_ylim(0, 1.02)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def follows_caption(study: StudyRecords, frame: pd.DataFrame) -> str:
    """What line and bars are."""
    del study
    return (
        "Largest absolute point-biserial correlation of any channel of a node with the truth. Mark: "
        f"mean over {int(frame['num_cases'].max())} cases; bar: their range. The cases were chosen "
        "by score and are few: a description, no test."
    )
