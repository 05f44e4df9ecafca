"""Forest plot: Dice of every arm minus the baseline, fold by fold, with the corrected interval."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from reports.plots.palette import looks
from reports.records import StudyRecords
from reports.tables import differences, result_rows


def paired_differences(study: StudyRecords) -> pd.DataFrame:
    """One row per (arm, fold) but the baseline: difference, and mean and interval of its arm."""
    results = result_rows(study).set_index("arm")
    rows = [
        {
            "arm": arm.name,
            "fold": int(str(fold)),
            "difference": value,
            "mean": results.loc[arm.name, "delta_dice"],
            "low": results.loc[arm.name, "delta_low"],
            "high": results.loc[arm.name, "delta_high"],
        }
        for arm in study.arms
        if arm.name != study.manifest.baseline
        for fold, value in differences(study, arm.name).items()
    ]
    return pd.DataFrame(rows)


def draw_paired_differences(study: StudyRecords, data: pd.DataFrame) -> Figure:
    """One line an arm, first arm on top: small points are folds, the mark is the mean."""
    look = looks(study)
    arms = list(data["arm"].unique())
    figure = Figure(figsize=(8, 1.4 + 0.6 * len(arms)))
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=1)
    for place, arm in enumerate(arms):
        rows, style = data[data["arm"] == arm], look[arm]
        mean, low, high = (float(rows[name].iloc[0]) for name in ("mean", "low", "high"))
        axes.plot(
            rows["difference"], [place + 0.24] * len(rows), "o", color=style.colour,
            alpha=0.55, markersize=5, markeredgewidth=0,
        )  # fmt: skip
        axes.plot([low, high], [place, place], color=style.colour, linewidth=2.2)
        axes.plot(
            mean, place, style.marker, color=style.colour, markersize=9, markeredgecolor="white"
        )
    axes.set_yticks(range(len(arms)), [look[arm].title for arm in arms])
    axes.set_ylim(len(arms) - 0.4, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    base = study.titles[study.manifest.baseline]
    axes.set_xlabel(f"Dice minus Dice of {base}, same fold   (right: better than {base})")
    return figure


def caption(study: StudyRecords, data: pd.DataFrame) -> str:
    """What the marks are."""
    del data
    base = study.titles[study.manifest.baseline]
    return (
        f"Paired differences in Dice from {base}. Small points: held-out folds. Mark and line: "
        "mean over folds and its 95 % interval of the corrected resampled t (Nadeau and Bengio), "
        "not corrected for the number of arms. Where the line meets zero, the arm cannot be told "
        f"from {base}."
    )
