"""Dice over depth, a column of two panels a data set: the curves, and differences from the best."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# Of Okabe and Ito, as in `palette`: (colour, marker, shift to the side, size of the ring).
_LOOKS = {
    "U-Net": ("#000000", "o", -0.07, 14),
    "UNet+": ("#E69F00", "s", 0.0, 18),
    "UNet++": ("#0072B2", "^", 0.07, 22),
}
_COLUMNS = 3
_PANEL = (4.0, 2.7)


def draw_depth_per_dataset(data: pd.DataFrame) -> Figure:
    """Curves on top, below them the paired differences by which the rule decides.

    Args:
        data: rows of `reports.depth.depth_rows`.
    """
    names = list(data["data"].unique())
    columns = min(_COLUMNS, len(names))
    bands = math.ceil(len(names) / columns)
    width = max(5.2, columns * _PANEL[0])
    figure = Figure(figsize=(width, 0.7 + 2 * bands * _PANEL[1]))
    panels = figure.subplots(2 * bands, columns, squeeze=False)
    for place, name in enumerate(names):
        band, column = divmod(place, columns)
        rows = data[data["data"] == name]
        upper, lower = panels[2 * band][column], panels[2 * band + 1][column]
        _curves(upper, rows)
        _differences(lower, rows)
        upper.set_title(name)
        if column == 0:
            upper.set_ylabel("Dice, mean over folds")
            lower.set_ylabel("Dice minus that of the\nbest depth, same fold")
    for place in range(len(names), bands * columns):
        band, column = divmod(place, columns)
        for axes in (panels[2 * band][column], panels[2 * band + 1][column]):
            axes.set_visible(False)
    figure.legend(handles=_legend(data), loc="outside upper center", ncols=min(4, 2 + columns))
    return figure


def _curves(axes: Axes, rows: pd.DataFrame) -> None:
    for family, curve in rows.groupby("family", sort=False):
        colour, marker, _, ring = _LOOKS[str(family)]
        x, y = _places(curve), curve["dice_mean"]
        axes.plot(x, y, color=colour, linewidth=1.4, zorder=2)
        axes.errorbar(
            x, y, yerr=[y - curve["dice_low"], curve["dice_high"] - y], fmt="none",
            ecolor=colour, elinewidth=1.2, alpha=0.5, zorder=1,
        )  # fmt: skip
        _marks(axes, curve, x, y, colour=colour, marker=marker)
        enough = curve["shallow_enough"]
        axes.plot(
            x[enough], y[enough], "o", markersize=ring, markerfacecolor="none",
            markeredgecolor=colour, markeredgewidth=1.3, zorder=4,
        )  # fmt: skip
    _depth_axis(axes, rows, lowest=0)


def _differences(axes: Axes, rows: pd.DataFrame) -> None:
    axes.axhline(0, color="black", linewidth=0.9, zorder=1)
    for family, curve in rows.groupby("family", sort=False):
        colour, marker, shift, _ = _LOOKS[str(family)]
        # Here a shared network has two places: its best depth, and so its difference, may differ.
        x, y = curve["depth"] + shift, curve["delta_best"]
        axes.errorbar(
            x, y, yerr=[y - curve["delta_low"], curve["delta_high"] - y], fmt="none",
            ecolor=colour, elinewidth=1.6, zorder=2,
        )  # fmt: skip
        _marks(axes, curve, x, y, colour=colour, marker=marker)
    _depth_axis(axes, rows, lowest=-1)


def _marks(
    axes: Axes, curve: pd.DataFrame, x: pd.Series, y: pd.Series, *, colour: str, marker: str
) -> None:
    for best, face in ((False, "white"), (True, colour)):
        kept = curve["best"] == best
        axes.plot(
            x[kept], y[kept], marker, linestyle="none", markersize=7, markerfacecolor=face,
            markeredgecolor=colour, markeredgewidth=1.4, zorder=3,
        )  # fmt: skip


def _places(curve: pd.DataFrame) -> pd.Series:
    """Beside each other, but for the network at which several curves start."""
    shift = _LOOKS[str(curve["family"].iloc[0])][2]
    return curve["depth"] + shift * (~curve["shared"].astype(bool))


def _depth_axis(axes: Axes, rows: pd.DataFrame, *, lowest: float) -> None:
    depths = sorted(rows["depth"].unique())
    axes.set_xticks(depths, [f"L{depth}" for depth in depths])
    axes.set_xlim(min(depths) - 0.4, max(depths) + 0.4)
    axes.grid(visible=False, axis="x")
    axes.margins(y=0.12)
    # Intervals of two folds leave the range in which a Dice or a difference can lie.
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, lowest - 0.05), min(high, 1.05))


def _legend(data: pd.DataFrame) -> list[Line2D]:
    families = [
        Line2D(
            [], [], color=_LOOKS[family][0], marker=_LOOKS[family][1], markerfacecolor="white",
            label=family,
        )
        for family in data["family"].unique()
    ]  # fmt: skip
    grey = "#666666"
    return [
        *families,
        Line2D([], [], color=grey, marker="o", linestyle="none", label="best mean"),
        Line2D(
            [], [], color=grey, marker="o", linestyle="none", markersize=14,
            markerfacecolor="none", label="shallow enough",
        ),
    ]  # fmt: skip


def caption() -> str:
    """What marks, rings and bars are, and what they are not."""
    return (
        "Depth L1 to Ld: networks that were each trained on their own; at L1 the families are one "
        "network. Above: mean Dice over the held-out folds and its 95 % interval of the corrected "
        "resampled t (Nadeau and Bengio 2003), which shows the spread of folds. Below: paired "
        "differences from the best depth of the same family with their 95 % intervals, not "
        "corrected for the number of depths. Filled: best mean. Ring: shallow enough, the "
        "shallowest depth whose difference from the best cannot be told from zero (its interval "
        "holds zero). That is no proof that they are equal: the noisier the folds, the shallower the "
        "depth that cannot be told. "
        "Best and shallow enough are read off the same folds that are shown; no depth was "
        "selected on a test set, and none was tested on one."
    )
