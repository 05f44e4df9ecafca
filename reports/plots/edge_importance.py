"""How much score every single skip is worth: taken out of the trained network, or never trained."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reports.case_table import case_places
from reports.comparison import ALPHA
from reports.paired_tests import Comparison, over_groups, over_runs
from reports.pairs import row_of
from reports.plots.grid_diagram import draw_edge, draw_node, frame_panel, grid_parts
from reports.records import StudyRecords
from reports.scores import case_scores, judged_scores, primary_cases
from reports.statistics import holm
from unetpp.spec import GridSpec

# Ways to lose a skip -> title of its panel.
WAYS = {"cut": "taken out, nothing trained again", "trained": "trained without it"}
# Orange where the skip helps, violet where it harms, and a grey that is seen on white in between.
_COLOURS = LinearSegmentedColormap.from_list("worth", ["#5E3C99", "#B4B4B4", "#C85200"])
_NAMED = 5  # skips with a name in the scatter: names of all would cover each other
_WIDEST, _THINNEST = 3.4, 0.6  # points


def edge_losses(study: StudyRecords) -> pd.DataFrame:
    """One row per (skip of the baseline, way to lose it); empty where nothing was recorded.

    Columns: edge ("X_0_0>X_0_2"), way ("cut" or "trained"), loss (Dice lost; negative where the
    network is better without it), low, high, p, num (groups of cases for "cut", runs for
    "trained"), p_holm (over the skips of one way), score (Dice without the skip, mean over cases
    for "cut", over runs for "trained").
    """
    spec = GridSpec.from_json(study.baseline.spec)
    edges = [f"{source}>{target}" for source, target in spec.skips]
    frames = [
        pd.DataFrame(rows).assign(p_holm=lambda f: holm(f["p"].tolist()))
        for rows in (list(_cut(study, edges)), list(_trained(study, edges)))
        if rows
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _row(edge: str, way: str, found: Comparison, score: float) -> dict[str, object]:
    values = found.row
    return {"edge": edge, "way": way, "loss": values.pop("difference"), **values, "score": score}


def _cut(study: StudyRecords, edges: list[str]) -> Iterator[dict[str, object]]:
    """Case by case, mean over seeds: the judged output with the skip less that without it."""
    base = study.manifest.baseline
    without = study.edges[study.edges["arm"] == base]
    if without.empty:
        return
    whole = primary_cases(study)
    whole = whole[whole["arm"] == base]
    keys = ["case", "label", "fold", "seed"]
    full = whole.assign(full=case_scores(whole, "dice", empty=study.empty))[[*keys, "full"]]
    for edge in edges:
        part = without[without["edge"] == edge]
        part = part.assign(score=case_scores(part, "dice", empty=study.empty))
        part = part.merge(full, on=keys)
        if part.empty:
            continue
        places = case_places(study, part)
        column = places.arms.index(base)
        lost = places.means(part["full"] - part["score"])[:, column]
        score = float(np.nanmean(places.means(part["score"])[:, column]))
        yield _row(edge, "cut", over_groups(lost, places.groups), score)


def _trained(study: StudyRecords, edges: list[str]) -> Iterator[dict[str, object]]:
    """Run by run: the baseline less the arm without the skip."""
    arms = {arm.levels.get("edge", ""): arm.name for arm in study.arms}
    dice = judged_scores(study, "dice")
    base = row_of(dice, study.manifest.baseline)
    for edge in edges:
        own = row_of(dice, arms.get(edge, ""))
        if len(own):
            lost = (base - own).dropna()
            found = over_runs(lost.tolist(), test_train_ratio=study.test_train_ratio)
            yield _row(edge, "trained", found, float(own.mean()))


def told(frame: pd.DataFrame) -> pd.Series:
    """Whether a test told the loss from zero."""
    return frame["p_holm"] < ALPHA


def draw_edge_losses(study: StudyRecords, frame: pd.DataFrame) -> Figure:
    """The grid once a way: colour and width of a skip say what is lost; dashed: not told from 0."""
    spec = GridSpec.from_json(study.baseline.spec)
    ways = [way for way in WAYS if (frame["way"] == way).any()]
    figure = Figure(figsize=(3.5 * len(ways), 1.2 + 2.6 * (spec.depth + 1) / (spec.depth + 0.8)))
    panels = figure.subplots(1, len(ways), squeeze=False)[0]
    for axes, way in zip(panels, ways, strict=True):
        rows = frame[frame["way"] == way]
        largest = max(float(rows["loss"].abs().max()), 1e-9)
        norm = TwoSlopeNorm(0, -largest, largest)
        _draw_grid(axes, spec, rows, norm, largest)
        axes.set_title(WAYS[way])
        figure.colorbar(
            ScalarMappable(norm, _COLOURS), ax=axes, location="bottom", shrink=0.8, pad=0.02,
            aspect=30, ticks=MaxNLocator(5), label="Dice lost without the skip",
        )  # fmt: skip
    figure.legend(
        handles=[
            Line2D([], [], color="#555555", linewidth=2, label="told from zero (Holm p < 0.05)"),
            Line2D([], [], color="#555555", linewidth=2, linestyle=(0, (2, 1)), label="not told"),
        ],
        loc="outside upper center",
        ncols=2,
    )
    return figure


def _draw_grid(
    axes: Axes, spec: GridSpec, rows: pd.DataFrame, norm: TwoSlopeNorm, largest: float
) -> None:
    parts = grid_parts(spec)
    frame_panel(axes, spec.depth)
    losses = rows.set_index("edge")
    is_told = dict(zip(rows["edge"], told(rows), strict=True))
    for edge in parts.edges.to_dict("records"):
        name = f"{edge['source']}>{edge['target']}"
        if name not in losses.index:
            draw_edge(
                axes, edge, colour="#C8C8C8", dashes="-", width=0.7, head=0.6, order=1
            )  # fmt: skip
            continue
        loss = float(losses.loc[name, "loss"])  # pyright: ignore[reportArgumentType]
        width = _THINNEST + (_WIDEST - _THINNEST) * abs(loss) / largest
        draw_edge(
            axes, edge, colour=_COLOURS(norm(loss)), width=width, head=1.1, order=2,
            dashes="-" if is_told[name] else (0, (2, 1)),
        )  # fmt: skip
    for node in parts.nodes[parts.nodes["state"] == "kept"].to_dict("records"):
        draw_node(axes, node, fontsize=7 if spec.depth <= 4 else 5.5, line=0.8)


def caption(study: StudyRecords, frame: pd.DataFrame) -> str:
    """What colour, width and dashes are, unit by unit."""
    lines = [
        (
            f"The grid of {study.titles[study.manifest.baseline]}. Orange and thick: more Dice is "
            "lost without this skip; violet: the network is better without it; each panel has a "
            "scale of its own. Grey: edges that were not taken out."
        )
    ]
    if (frame["way"] == "cut").any():
        num = int(frame.loc[frame["way"] == "cut", "num"].max())
        lines.append(
            f"Taken out: the trained networks on the cases that they did not learn from ({num} "
            "groups of cases, sign-flip test); a skip with weights that others rely on."
        )
    if (frame["way"] == "trained").any():
        num = int(frame.loc[frame["way"] == "trained", "num"].max())
        lines.append(f"Trained without it: {num} runs, corrected resampled t.")
    return " ".join([*lines, "Holm's correction: over the skips of a panel."])


def both_losses(study: StudyRecords) -> pd.DataFrame:
    """One row a skip that was lost in both ways: edge, and loss, low, high of "cut" and "trained"."""
    return both_of(edge_losses(study))


def both_of(frame: pd.DataFrame) -> pd.DataFrame:
    """`both_losses`, from `edge_losses`."""
    if frame.empty or set(frame["way"]) != set(WAYS):
        return pd.DataFrame()
    wide = frame.pivot_table(
        index="edge", columns="way", values=["loss", "low", "high"], dropna=False
    )
    wide.columns = [f"{way}_{name}" for name, way in wide.columns]
    order = frame["edge"].drop_duplicates()
    return wide.reindex(order).dropna(subset=["cut_loss", "trained_loss"]).reset_index()


def draw_both_losses(study: StudyRecords, frame: pd.DataFrame) -> Figure:
    """One mark a skip; a shape a level; bars are 95 % intervals."""
    del study
    figure = Figure(figsize=(3.5, 3.3))
    axes = figure.subplots()
    axes.axhline(0, color="#888888", linewidth=0.8)
    axes.axvline(0, color="#888888", linewidth=0.8)
    levels = frame["edge"].str.split("_").str[1].astype(int)
    for level, rows in frame.groupby(levels):
        place = int(str(level))
        x, y = rows["cut_loss"], rows["trained_loss"]
        axes.errorbar(
            x, y,
            xerr=[x - rows["cut_low"], rows["cut_high"] - x],
            yerr=[y - rows["trained_low"], rows["trained_high"] - y],
            fmt="osD^vPX"[place % 7], color=f"C{place % 7}", markersize=4.5, elinewidth=0.6,
            markeredgecolor="white", markeredgewidth=0.5, label=f"level {place}",
        )  # fmt: skip
    losses = frame[["cut_loss", "trained_loss"]]
    away = (losses / losses.abs().max().clip(lower=1e-9)).pow(2).sum(axis=1)
    for row in frame.loc[away.nlargest(_NAMED).index].to_dict("records"):
        axes.annotate(
            short(row["edge"]), (row["cut_loss"], row["trained_loss"]), xytext=(3, 3),
            textcoords="offset points", fontsize=8,
        )  # fmt: skip
    axes.set_xlabel("Dice lost, taken out")
    axes.set_ylabel("Dice lost, trained without")
    figure.legend(loc="outside upper center", ncols=4)
    return figure


def short(edge: str) -> str:
    """0,0>0,2 for X_0_0>X_0_2."""
    return ">".join(node.removeprefix("X_").replace("_", ",") for node in edge.split(">"))


def both_caption(study: StudyRecords, frame: pd.DataFrame) -> str:
    """What a mark is, and what the two axes do not share."""
    del study
    rank = both_rank(frame)
    noun = "not defined" if math.isnan(rank) else f"{rank:+.2f}"
    return (
        f"{len(frame)} skips; bars: 95 % intervals, over groups of cases across and over runs "
        f"upward: the units differ. Names: the five farthest from zero. Rank correlation of the two losses: {noun}, a description "
        "without a test, since skips of one network are not independent."
    )


def both_rank(frame: pd.DataFrame) -> float:
    """Spearman's rank correlation of the two losses over the skips; NaN with fewer than three."""
    if len(frame) < 3:
        return math.nan
    ranks = frame[["cut_loss", "trained_loss"]].rank()
    return float(ranks["cut_loss"].corr(ranks["trained_loss"]))
