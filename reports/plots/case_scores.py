"""Every case: its Dice under every arm, and what each arm gains or loses on it over the baseline."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from reports.case_table import case_table
from reports.notes import several_classes
from reports.pairs import empty_words
from reports.plots.palette import Look, looks
from reports.records import StudyRecords

# More points than this in one strip hide each other; then this many are drawn, evenly by score.
_MOST_POINTS = 400


def case_scores_frame(study: StudyRecords) -> pd.DataFrame:
    """One row per case (and class): case, label, group, fold, then `dice_<arm>` for every arm.

    Averaged over seeds; NaN where an arm has no score. Cases without any score are left out.
    """
    table = case_table(study)
    scored = table.places.units.assign(
        **{f"dice_{arm}": table.scores[:, k] for k, arm in enumerate(table.places.arms)}
    )
    known = np.flatnonzero(~np.isnan(table.scores).all(axis=1))
    return scored.iloc[known].reset_index(drop=True)


def draw_case_scores(study: StudyRecords, data: pd.DataFrame) -> Figure:
    """A strip and a box per arm; on the left the scores, on the right the gains over the baseline."""
    look = looks(study)
    arms = [arm.name for arm in study.arms if data[f"dice_{arm.name}"].notna().any()]
    base = study.manifest.baseline
    gains = [arm for arm in arms if arm != base] if base in arms else []
    figure = Figure(figsize=(7, 1.0 + 0.42 * len(arms)))
    panels = figure.subplots(1, 2 if gains else 1, squeeze=False, sharey=True)[0]
    for place, arm in enumerate(arms):
        _strip(panels[0], data[f"dice_{arm}"].dropna().to_numpy(), place, look[arm])
        if arm in gains:
            gain = (data[f"dice_{arm}"] - data[f"dice_{base}"]).dropna().to_numpy()
            _strip(panels[1], gain, place, look[arm])
    panels[0].set_xlabel("Dice of a case")
    panels[0].set_yticks(range(len(arms)), [look[arm].title for arm in arms])
    panels[0].set_ylim(len(arms) - 0.5, -0.5)
    if gains:
        panels[1].axvline(0, color="black", linewidth=0.8, zorder=1)
        panels[1].set_xlabel(f"Dice less that of {study.titles[base]}, same case")
    for axes in panels:
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    return figure


def _strip(axes: Axes, values: NDArray[np.float64], place: int, look: Look) -> None:
    """Points above, a box below them: quartiles, and whiskers over the middle 90 %."""
    if not len(values):
        return
    shown = thinned(values)
    # Spread by content and not at random: the same scores give the same picture.
    heights = place - 0.2 + 0.16 * np.sin(np.arange(len(shown)) * 2.399963)
    axes.plot(
        shown, heights, "o", color=look.colour, alpha=0.4, markersize=2.2, markeredgewidth=0,
        rasterized=len(shown) > 100,
    )  # fmt: skip
    low, first, middle, third, high = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))
    below = place + 0.22
    axes.plot([low, high], [below, below], look.dash, color=look.colour, linewidth=0.9)
    axes.barh(
        below, third - first, left=first, height=0.2, color="white", edgecolor=look.colour, zorder=3
    )
    axes.plot([middle, middle], [below - 0.1, below + 0.1], color=look.colour, zorder=4)
    axes.plot(
        values.mean(), below, look.marker, color=look.colour, markersize=4, zorder=5,
        markeredgecolor="white", markeredgewidth=0.5,
    )  # fmt: skip


def thinned(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most `_MOST_POINTS` of them in rising order, both extremes included."""
    ordered = np.sort(values)
    if len(ordered) <= _MOST_POINTS:
        return ordered
    return ordered[np.linspace(0, len(ordered) - 1, _MOST_POINTS).round().astype(int)]


def caption(study: StudyRecords, data: pd.DataFrame) -> str:
    """What points and boxes are, how many cases there are and which have no score."""
    base = study.titles[study.manifest.baseline]
    unit = "case and class" if several_classes(study) else "case"
    seeds = ", averaged over seeds" if study.manifest.num_seeds > 1 else ""
    most = int(data[[f"dice_{arm.name}" for arm in study.arms]].notna().sum().max())
    thin = (
        f" Of more than {_MOST_POINTS} points in a strip {_MOST_POINTS} are drawn, evenly by score, "
        "the extremes among them; boxes are of all."
        if most > _MOST_POINTS
        else ""
    )
    return (
        f"Dice of every {unit}{seeds} (left) and the paired gain over {base} (right); {len(data):,} "
        f"of them have a score. Points: cases. Boxes: quartiles and median; whiskers: the middle "
        f"90 %; mark: the mean; dashed: deep supervision.{thin} Boxes show the spread of cases and are no intervals. "
        f"{empty_words(study)}"
    )
