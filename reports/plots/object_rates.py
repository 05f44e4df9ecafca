"""Single objects by their size: how many were found, and how well."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports.paired_tests import SEED
from reports.plots.object_size import nested_arms, pixel_range, size_groups
from reports.plots.palette import looks
from reports.records import StudyRecords
from reports.statistics.cases import bca, gaps, mean_sums, resample
from reports.voxels import point_word

# An object is found when its IoU with its partner is above this.
FOUND = 0.5


def object_rates(study: StudyRecords) -> pd.DataFrame:
    """One row per (size group of single objects, arm): how many were found, and how well.

    Columns: size_group, smallest, largest, num_objects, num (groups of cases), arm; found and iou
    (means over objects; an object without a partner has IoU 0) with `_low` and `_high`; found_gain
    and iou_gain over the baseline, with `_low` and `_high` (NaN for the baseline). Objects of
    several seeds are pooled. Empty where no objects were recorded.
    """
    arms = [study.manifest.baseline, *nested_arms(study)]
    objects = _objects(study, arms)
    if len(arms) < 2 or objects.empty:
        return pd.DataFrame()
    once = objects[~objects["again"]]
    objects = objects.assign(size_group=size_groups(objects["size"], once["size"]))
    rows: list[dict[str, object]] = []
    for number, part in objects.groupby("size_group"):
        same = {
            "size_group": number,
            **pixel_range(part["size"]),
            "num_objects": int((~part["again"]).sum()),
        }
        rows += [{**same, **row} for row in _rates(part, arms)]
    return pd.DataFrame(rows)


def _objects(study: StudyRecords, arms: list[str]) -> pd.DataFrame:
    """One row a true object and run that all arms have: group, size, again, an IoU column an arm.

    `again` marks objects of a case that came before, under another seed.
    """
    keys = ["case", "label", "fold", "seed"]
    joined: pd.DataFrame | None = None
    for arm in arms:
        own = study.objects[study.objects["arm"] == arm]
        own = own[[*keys, "group", "reference_sizes", "reference_ious"]]
        own = own.astype({"case": object, "group": object}).rename(columns={"reference_ious": arm})
        if joined is None:
            joined = own
        else:
            joined = joined.merge(own.drop(columns=["group", "reference_sizes"]), on=keys)
    if joined is None or joined.empty:
        return pd.DataFrame()
    joined = joined.sort_values(["seed", "fold", "case", "label"], kind="stable")
    joined["again"] = joined.duplicated(["case", "label"])
    joined = joined[joined["reference_sizes"].map(len) > 0]
    frame = joined.explode(["reference_sizes", *arms], ignore_index=True)
    frame = frame.rename(columns={"reference_sizes": "size"})
    return frame.astype({"size": float, **dict.fromkeys(arms, float)})


def _rates(part: pd.DataFrame, arms: list[str]) -> list[dict[str, object]]:
    ious = part[arms].to_numpy(dtype=np.float64)
    groups = part["group"].tolist()
    columns: dict[str, list[tuple[float, float, float]]] = {}
    num = 0
    for name, values in (("found", ious > FOUND), ("iou", ious)):
        drawn = resample(mean_sums(values.astype(np.float64), groups), seed=SEED)
        num = int(drawn.num_groups[0])
        own, gained = bca(drawn), bca(gaps(drawn, 0))
        columns[name] = [(one.value, one.low, one.high) for one in own]
        columns[f"{name}_gain"] = [
            (math.nan, math.nan, math.nan),
            *((g.value, g.low, g.high) for g in gained[1:]),
        ]
    return [
        {
            "num": num,
            "arm": arm,
            **{
                f"{name}{suffix}": value
                for name, triples in columns.items()
                for suffix, value in zip(("", "_low", "_high"), triples[k], strict=True)
            },
        }
        for k, arm in enumerate(arms)
    ]


def draw_object_rates(study: StudyRecords, frame: pd.DataFrame) -> Figure:
    """Two panels: share of objects found and mean IoU, over the size of the object."""
    look = looks(study)
    arms = list(frame["arm"].unique())
    figure = Figure(figsize=(7, 2.9))
    panels = figure.subplots(1, 2)
    for axes, (name, title) in zip(
        panels, {"found": f"found (IoU > {FOUND:g})", "iou": "mean IoU"}.items(), strict=True
    ):
        for k, arm in enumerate(arms):
            rows, style = frame[frame["arm"] == arm], look[arm]
            x = rows["size_group"] + (k - (len(arms) - 1) / 2) * 0.14
            axes.errorbar(
                x, rows[name],
                yerr=[
                    (rows[name] - rows[f"{name}_low"]).clip(lower=0),
                    (rows[f"{name}_high"] - rows[name]).clip(lower=0),
                ],
                color=style.colour, marker=style.marker, linestyle=style.dash, markersize=4,
                elinewidth=0.9, linewidth=1, label=style.title,
            )  # fmt: skip
        ranges = frame.drop_duplicates("size_group").sort_values("size_group")
        names = [
            f"{a:,}" if a == b else f"{a:,}–{b:,}"
            for a, b in zip(ranges["smallest"], ranges["largest"], strict=True)
        ]
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel(f"{point_word(study)}s of the object")
        axes.set_ylabel(title)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def object_caption(study: StudyRecords, frame: pd.DataFrame) -> str:
    """What an object is, when it is found, and what the bars are."""
    del study
    once = frame.drop_duplicates("size_group")
    return (
        f"{once['num_objects'].sum():,} objects of the references (components that hang together "
        "over faces, so that touching objects are one), each with the predicted object of largest "
        f"IoU, one to one; found: IoU above {FOUND:g}; without a partner its IoU is 0. Bars: 95 % "
        "BCa bootstrap over groups of cases: these trained networks on new cases. False objects "
        "have no true size and are not in this picture."
    )
