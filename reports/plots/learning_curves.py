"""Training loss, held-out loss and held-out Dice by epoch: mean, its interval, and range."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.learning import curve_rows
from reports.pairs import interval_words, run_words
from reports.plots.palette import Look, looks
from reports.records import StudyRecords

_PANELS = {
    "held_out_loss": "held-out loss",
    "train_loss": "training loss",
    "held_out_dice": "held-out Dice, pooled",
}


def learning_curves(study: StudyRecords) -> pd.DataFrame:
    """One row per (arm, quantity, epoch), see `reports.learning.curve_rows`."""
    return curve_rows(study)


def draw_learning_curves(study: StudyRecords, data: pd.DataFrame) -> Figure:
    """A panel a quantity that was recorded; one colour an arm, dashed under deep supervision."""
    look = looks(study)
    names = [name for name in _PANELS if (data["quantity"] == name).any()]
    figure = Figure(figsize=(7, 2.7))
    panels = figure.subplots(1, len(names), sharex=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for arm, rows in data[data["quantity"] == name].groupby("arm", sort=False):
            _draw_arm(axes, rows, look[str(arm)])
        _fit_range(axes, data[data["quantity"] == name])
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch")
        axes.set_ylabel(_PANELS[name])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(6, len(labels)))
    return figure


def _fit_range(axes: Axes, rows: pd.DataFrame) -> None:
    """The axis of the runs themselves: the interval of two runs would dwarf every curve."""
    low, high = rows["least"].min(), rows["most"].max()
    if high > low:
        axes.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))


def _draw_arm(axes: Axes, rows: pd.DataFrame, look: Look) -> None:
    for low, high, opacity in (("least", "most", 0.07), ("low", "high", 0.18)):
        axes.fill_between(
            rows["epoch"], rows[low], rows[high], color=look.colour, alpha=opacity, linewidth=0
        )
    axes.plot(
        rows["epoch"], rows["mean"], look.dash, color=look.colour, label=look.title,
        marker=look.marker, markersize=3.5 if len(rows) < 3 else 3,
        markevery=max(1, len(rows) // 6), linewidth=1.1,
    )  # fmt: skip


def caption(study: StudyRecords, data: pd.DataFrame) -> str:
    """What line and bands are, and that nothing was picked by them."""
    del data
    seeds = study.manifest.num_seeds
    runs = (
        "Both bands are over folds and seeds together: a fold's own difficulty is in them; the table "
        "parts the two."
        if seeds > 1
        else "There is one seed, so the bands are over folds and say nothing about seeds."
    )
    supervised = (
        " The loss of an arm with deep supervision (dashed) is an average over its heads and is not "
        "comparable with that of one head."
        if any(arm.deep_supervision for arm in study.arms)
        else ""
    )
    return (
        f"Line: mean over {run_words(study)}. Dark band: {interval_words(study)}, epoch by "
        f"epoch. Light band: range over the runs. {runs}{supervised} Held-out Dice is pooled over the "
        "pixels of a fold and so is not the mean per case of the tables. Held-out cases were looked "
        "at in some epochs, for watching only: the last epoch is scored, and none is picked."
    )
