"""Dice over depth, a column of two panels a data set: the curves, and differences from the best."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

# Of Okabe and Ito, as in `palette`: (colour, marker, shift to the side, size of the ring).
_LOOKS = {
    "U-Net": ("#000000", "o", -0.07, 10),
    "UNet+": ("#E69F00", "s", 0.0, 13),
    "UNet++": ("#0072B2", "^", 0.07, 16),
}
_ENSEMBLE = "#009E73"
_GREY = "#666666"
_COLUMNS = 3
# A column of a paper, or its page; height of one panel.
_NARROW, _WIDE, _HEIGHT = 3.5, 7.0, 1.75


def draw_depth_per_dataset(data: pd.DataFrame) -> Figure:
    """Curves on top, below them the paired differences by which the rule decides.

    Args:
        data: rows of `reports.depth.depth_rows`, and of `ensemble_rows` where there are any: they
            are drawn as a band, since they are all depths at once.
    """
    names = list(data["data"].unique())
    columns = min(_COLUMNS, len(names))
    bands = math.ceil(len(names) / columns)
    width = _NARROW if columns == 1 else _WIDE
    figure = Figure(figsize=(width, 0.6 + 2 * bands * _HEIGHT))
    panels = figure.subplots(2 * bands, columns, squeeze=False)
    for place, name in enumerate(names):
        band, column = divmod(place, columns)
        rows = data[data["data"] == name]
        upper, lower = panels[2 * band][column], panels[2 * band + 1][column]
        _curves(upper, rows)
        _differences(lower, rows)
        upper.set_title(name)
        if column == 0:
            upper.set_ylabel("Dice, mean over runs")
            lower.set_ylabel("minus Dice of the\nbest depth, same run")
    for place in range(len(names), bands * columns):
        band, column = divmod(place, columns)
        for axes in (panels[2 * band][column], panels[2 * band + 1][column]):
            axes.set_visible(False)
    figure.legend(handles=_legend(data), loc="outside upper center", ncols=3 if columns == 1 else 6)
    return figure


def _curves(axes: Axes, rows: pd.DataFrame) -> None:
    for row in rows[_is_ensemble(rows)].to_dict("records"):
        if not math.isnan(row["dice_low"]):
            axes.axhspan(
                max(0, row["dice_low"]), min(1, row["dice_high"]), color=_ENSEMBLE, alpha=0.12,
                linewidth=0, zorder=0,
            )  # fmt: skip
        axes.axhline(row["dice_mean"], color=_ENSEMBLE, linestyle="--", zorder=1)
    families = rows[~_is_ensemble(rows)]
    for family, curve in families.groupby("family", sort=False):
        colour, marker, _, ring = _look(str(family))
        x, y = _places(curve), curve["dice_mean"]
        axes.plot(x, y, color=colour, zorder=2)
        axes.errorbar(
            x, y, yerr=[y - curve["dice_low"], curve["dice_high"] - y], fmt="none",
            ecolor=colour, elinewidth=1.0, alpha=0.5, zorder=1,
        )  # fmt: skip
        _marks(axes, curve, x, y, colour=colour, marker=marker)
        enough = curve["shallow_enough"].astype(bool)
        axes.plot(
            x[enough], y[enough], "o", markersize=ring, markerfacecolor="none",
            markeredgecolor=colour, markeredgewidth=1.1, zorder=4,
        )  # fmt: skip
    # As wide as the panel below, so that one depth stands above the other.
    _depth_axis(axes, families, lowest=0, beyond=_beside(rows, named=False))


def _differences(axes: Axes, rows: pd.DataFrame) -> None:
    axes.axhline(0, color="black", linewidth=0.8, zorder=1)
    families, others = rows[~_is_ensemble(rows)], rows[_is_ensemble(rows)]
    for family, curve in families.groupby("family", sort=False):
        colour, marker, shift, _ = _look(str(family))
        # Here a shared network has two places: its best depth, and so its difference, may differ.
        x, y = curve["depth"] + shift, curve["delta_best"]
        _bars(axes, x, y, curve, colour)
        _marks(axes, curve, x, y, colour=colour, marker=marker)
    beyond = _beside(rows, named=True)
    others = others[others["delta_best"].notna()]
    for place, row in zip(beyond, (others.loc[[index]] for index in others.index), strict=False):
        x, y = pd.Series(place, index=row.index), row["delta_best"]
        _bars(axes, x, y, row, _ENSEMBLE)
        _marks(axes, row, x, y, colour=_ENSEMBLE, marker="D")
    _depth_axis(axes, families, lowest=-1, beyond=beyond)


def _beside(rows: pd.DataFrame, *, named: bool) -> dict[int, str]:
    """Place -> name of what stands beyond the deepest of the depths."""
    others = rows[_is_ensemble(rows) & rows["delta_best"].notna()]
    deepest = int(rows.loc[~_is_ensemble(rows), "depth"].max())
    return {
        deepest + 1 + place: str(name) if named else ""
        for place, name in enumerate(others["family"])
    }


def _bars(axes: Axes, x: pd.Series, y: pd.Series, rows: pd.DataFrame, colour: str) -> None:
    axes.errorbar(
        x, y, yerr=[y - rows["delta_low"], rows["delta_high"] - y], fmt="none", ecolor=colour,
        elinewidth=1.3, zorder=2,
    )  # fmt: skip


def _marks(
    axes: Axes, curve: pd.DataFrame, x: pd.Series, y: pd.Series, *, colour: str, marker: str
) -> None:
    for best, face in ((False, "white"), (True, colour)):
        kept = curve["best"] == best
        axes.plot(
            x[kept], y[kept], marker, linestyle="none", markersize=5, markerfacecolor=face,
            markeredgecolor=colour, markeredgewidth=1.1, zorder=3,
        )  # fmt: skip


def _is_ensemble(rows: pd.DataFrame) -> pd.Series:
    return rows["family"].str.endswith("^e")


def _look(family: str) -> tuple[str, str, float, int]:
    return _LOOKS[family.replace("V-Net", "U-Net").replace("VNet", "UNet")]


def _places(curve: pd.DataFrame) -> pd.Series:
    """Beside each other, but for the network at which several curves start."""
    shift = _look(str(curve["family"].iloc[0]))[2]
    return curve["depth"] + shift * (~curve["shared"].astype(bool))


def _depth_axis(axes: Axes, rows: pd.DataFrame, *, lowest: float, beyond: dict[int, str]) -> None:
    ticks = {depth: f"L{depth}" for depth in sorted(rows["depth"].unique())} | beyond
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_xlim(min(ticks) - 0.4, max(ticks) + 0.4)
    axes.grid(visible=False, axis="x")
    axes.margins(y=0.12)
    # Intervals of two runs leave the range in which a Dice or a difference can lie.
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, lowest - 0.05), min(high, 1.05))


def _legend(data: pd.DataFrame) -> list[Line2D | Patch]:
    ensembles = data.loc[_is_ensemble(data), "family"].unique()
    families = [
        Line2D(
            [], [], color=_look(family)[0], marker=_look(family)[1], markerfacecolor="white",
            label=family,
        )
        for family in data.loc[~_is_ensemble(data), "family"].unique()
    ]  # fmt: skip
    return [
        *families,
        *(Line2D([], [], color=_ENSEMBLE, linestyle="--", label=name) for name in ensembles),
        Line2D([], [], color=_GREY, marker="o", linestyle="none", label="best mean"),
        Line2D(
            [], [], color=_GREY, marker="o", linestyle="none", markersize=9,
            markerfacecolor="none", label="shallow enough",
        ),
    ]  # fmt: skip


def caption(data: pd.DataFrame | None = None) -> str:
    """What marks, rings and bars are, and what they are not.

    Args:
        data: what is drawn, where it may hold a UNet^e.
    """
    text = (
        "Depth L1 to Ld: networks that were each trained on their own; at L1 the families are one "
        "network. Above: mean Dice over the runs (each fold held out, under each seed) and its 95 % "
        "interval of the corrected resampled t (Nadeau and Bengio 2003), which shows the spread of "
        "runs. Below: paired differences from the best depth of the same family with their 95 % "
        "intervals, not corrected for the number of depths. Filled: best mean. Ring: shallow "
        "enough, the shallowest depth whose difference from the best cannot be told from zero (its "
        "interval holds zero). That is no proof that they are equal: the noisier the runs, the "
        "shallower the depth that cannot be told. Best and shallow enough are read off the same "
        "folds that are shown; no depth was selected on a test set, and none was tested on one."
    )
    if data is not None and _is_ensemble(data).any():
        name = data.loc[_is_ensemble(data), "family"].iloc[0]
        text += (
            f" Dashed line and band: {name}, which holds all depths on one encoder, with its 95 % "
            "interval; below, its difference from the best depth of the plain networks."
        )
    return text
