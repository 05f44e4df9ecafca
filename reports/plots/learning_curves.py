"""Training loss and held-out Dice by epoch: mean and range over the folds."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.plots.palette import looks
from reports.records import StudyRecords

_PANELS = {
    "train_loss": "training loss",
    "held_out_dice": "held-out Dice, pooled over pixels",
}


def learning_curves(study: StudyRecords) -> pd.DataFrame:
    """One row per (arm, quantity, epoch): mean, low and high over the folds that have it."""
    long = study.curves.melt(
        id_vars=["arm", "fold", "epoch"], value_vars=list(_PANELS), var_name="quantity"
    ).dropna(subset=["value"])
    grouped = long.groupby(["arm", "quantity", "epoch"], sort=False)["value"]
    frame = grouped.agg(mean="mean", low="min", high="max", num_folds="count").reset_index()
    order = {arm.name: place for place, arm in enumerate(study.arms)}
    return frame.sort_values(
        ["arm", "quantity", "epoch"], key=lambda c: c.map(order) if c.name == "arm" else c
    ).reset_index(drop=True)


def draw_learning_curves(study: StudyRecords, data: pd.DataFrame) -> Figure:
    """Two panels side by side; one colour an arm, dashed under deep supervision."""
    look = looks(study)
    figure = Figure(figsize=(10, 4.6))
    panels = figure.subplots(1, 2, sharex=True)
    for axes, (quantity, name) in zip(panels, _PANELS.items(), strict=True):
        kept = data[data["quantity"] == quantity]
        for arm, rows in kept.groupby("arm", sort=False):
            style = look[str(arm)]
            axes.fill_between(
                rows["epoch"], rows["low"], rows["high"], color=style.colour, alpha=0.10,
                linewidth=0,
            )  # fmt: skip
            axes.plot(
                rows["epoch"], rows["mean"], style.dash, color=style.colour, label=style.title,
                marker="o" if len(rows) < 3 else "", markersize=4,
            )  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(6, len(labels)))
    return figure


def caption(study: StudyRecords, data: pd.DataFrame) -> str:
    """What line and band are, and that nothing was picked by them."""
    del study
    return (
        f"Mean (line) and range (band) over up to {data['num_folds'].max()} folds; dashed: deep "
        "supervision. The loss of an arm with deep supervision averages its heads and is not "
        "comparable with that of one head. Held-out Dice is pooled over the pixels of a fold, for "
        "watching only: the last epoch is scored, and no epoch is picked by it."
    )
