"""Forest plot: Dice of every arm minus the baseline, run by run, with the corrected interval."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reports.comparison import ROPE, result_rows, run_differences
from reports.pairs import run_words
from reports.plots.palette import looks
from reports.records import StudyRecords
from reports.scores import judged_scores

# Runs of one fold under several seeds stand above each other.
_SEED_STEP = 0.09


def paired_differences(study: StudyRecords) -> pd.DataFrame:
    """One row per (arm, seed, fold) but the baseline: difference, mean and interval of its arm."""
    results = result_rows(study).set_index("arm")
    dice = judged_scores(study, "dice")
    rows = [
        {
            "arm": arm.name,
            "seed": run[0],
            "fold": run[1],
            "difference": value,
            "mean": results.loc[arm.name, "delta_dice"],
            "low": results.loc[arm.name, "delta_low"],
            "high": results.loc[arm.name, "delta_high"],
        }
        for arm in study.arms
        if arm.name != study.manifest.baseline
        for run, value in _by_run(run_differences(dice, arm.name, study.manifest.baseline))
    ]
    return pd.DataFrame(rows)


def _by_run(values: pd.Series) -> list[tuple[tuple[int, int], float]]:
    """((seed, fold), value) in order."""
    runs: list[tuple[int, int]] = values.index.tolist()
    return list(zip(runs, values.tolist(), strict=True))


def draw_paired_differences(study: StudyRecords, data: pd.DataFrame) -> Figure:
    """One line an arm, first arm on top: small points are runs, the mark is the mean."""
    look = looks(study)
    arms, seeds = list(data["arm"].unique()), sorted(data["seed"].unique())
    step = _SEED_STEP * min(1.0, 4 / len(seeds))
    figure = Figure(figsize=(5.2, 0.9 + 0.38 * len(arms)))
    axes = figure.subplots()
    axes.axvspan(-ROPE, ROPE, color="#EEEEEE", linewidth=0, zorder=0)
    axes.axvline(0, color="black", linewidth=0.8)
    for place, arm in enumerate(arms):
        rows, style = data[data["arm"] == arm], look[arm]
        mean, low, high = (float(rows[name].iloc[0]) for name in ("mean", "low", "high"))
        heights = [place + 0.2 + step * seeds.index(seed) for seed in rows["seed"]]
        axes.plot(
            rows["difference"], heights, "o", color=style.colour, alpha=0.55, markersize=3,
            markeredgewidth=0,
        )  # fmt: skip
        # No difference can lie beyond, though the interval of two runs does.
        low, high = max(low, -1.0), min(high, 1.0)
        axes.plot([low, high], [place, place], style.dash, color=style.colour, linewidth=1.6)
        axes.plot(
            mean, place, style.marker, color=style.colour, markersize=6, markeredgecolor="white"
        )
    axes.set_yticks(range(len(arms)), [look[arm].title for arm in arms])
    axes.set_ylim(len(arms) - 0.35, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    base = study.titles[study.manifest.baseline]
    axes.set_xlabel(f"Dice minus Dice of {base}, same run   (right: better)")
    _legend(figure)
    return figure


def _legend(figure: Figure) -> None:
    grey = "#555555"
    figure.legend(
        handles=[
            Line2D([], [], color=grey, marker="s", markeredgecolor="white", label="mean, 95 %"),
            Line2D([], [], color=grey, marker="o", markersize=3, linestyle="none", label="a run"),
            Line2D([], [], color="#DDDDDD", linewidth=6, label=f"within ±{ROPE:g}"),
        ],
        loc="outside upper center", ncols=3,
    )  # fmt: skip


def caption(study: StudyRecords, data: pd.DataFrame) -> str:
    """What the marks are."""
    del data
    base = study.titles[study.manifest.baseline]
    seeds = ", one seed below the other" if study.manifest.num_seeds > 1 else ""
    return (
        f"Paired differences in Dice from {base}. Small points: runs, a held-out fold under a seed"
        f"{seeds}, of {run_words(study)}. Mark and line: mean over runs and its 95 % interval of the "
        "corrected resampled t (Nadeau and Bengio 2003), of the architecture trained again and not "
        "corrected for the number of arms. Where the line meets zero, the arm cannot be told from "
        f"{base}. Grey: within ±{ROPE:g} Dice of {base}, taken as practically equal. "
        "Dashed: deep supervision."
    )
