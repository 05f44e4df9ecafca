"""How much gradient reaches every node over training, and what deep supervision changes."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, StrMethodFormatter

from reports.comparison import ALPHA
from reports.paired_tests import over_runs
from reports.records import StudyRecords
from reports.statistics import holm
from unetpp.records import ArmEntry
from unetpp.spec import GridSpec

_MARKS = ("o", "s", "^")


def flow(study: StudyRecords) -> pd.DataFrame:
    """One row per (arm, node, epoch): geometric mean over runs of |g| / |w|, and num_runs.

    Columns: arm, node, epoch, value, num_runs. Empty where nothing was watched.
    """
    kept = study.traces[study.traces["quantity"] == "relative_gradient_norm"]
    kept = kept[kept["value"] > 0]
    if kept.empty:
        return pd.DataFrame()
    logs = kept.assign(log=np.log(kept["value"])).astype({"arm": object, "place": object})
    grouped = logs.groupby(["arm", "place", "epoch"])["log"]
    frame = grouped.agg(value="mean", num_runs="count").reset_index()
    frame["value"] = np.exp(frame["value"])
    order = {arm.name: place for place, arm in enumerate(study.arms)}
    frame = frame.rename(columns={"place": "node"})
    return frame.sort_values(
        ["arm", "node", "epoch"], key=lambda c: c.map(order) if c.name == "arm" else c
    ).reset_index(drop=True)


def draw_flow(study: StudyRecords, frame: pd.DataFrame) -> Figure:
    """A panel an arm: nodes down, level by level; epochs across; colour on a log scale."""
    arms = list(frame["arm"].unique())
    most = max(frame[frame["arm"] == arm]["node"].nunique() for arm in arms)
    figure = Figure(figsize=(min(7, 1.4 + 1.9 * len(arms)), 1.1 + 0.165 * most))
    panels = figure.subplots(1, len(arms), squeeze=False)[0]
    norm = LogNorm(frame["value"].min(), max(frame["value"].max(), frame["value"].min() * 1.001))
    drawn = None
    for axes, arm in zip(panels, arms, strict=True):
        own = frame[frame["arm"] == arm]
        table = own.pivot_table(index="node", columns="epoch", values="value", dropna=False)
        epochs = [int(str(epoch)) for epoch in table.columns]
        drawn = axes.imshow(table.to_numpy(), norm=norm, aspect="auto", interpolation="nearest")
        axes.set_yticks(range(len(table)), [short_node(str(n)) for n in table.index], fontsize=8)
        step = max(1, math.ceil(len(epochs) / 5))
        axes.set_xticks(range(0, len(epochs), step), [str(e) for e in epochs[::step]])
        axes.grid(visible=False)
        axes.set_title(study.titles[arm], fontsize=8.5)
        axes.set_xlabel("epoch")
    assert drawn is not None
    bar = figure.colorbar(drawn, ax=panels.tolist(), pad=0.01, aspect=25)
    bar.set_label("gradient over weight, |g| / |w|")
    return figure


def short_node(node: str) -> str:
    """0,2 for X_0_2; other names as they are."""
    return node.removeprefix("X_").replace("_", ",") if node.startswith("X_") else node


def flow_caption(study: StudyRecords, frame: pd.DataFrame) -> str:
    """What the colour is."""
    del study
    return (
        "Colour, on one log scale: L2 norm of the gradient of a node's parameters over that of the "
        "parameters, mean over the steps of an epoch, geometric mean over "
        f"{int(frame['num_runs'].max())} runs. The ratio can be compared between nodes of different "
        "widths. Rows: nodes i,j, level by level."
    )


def supervised_pairs(study: StudyRecords) -> list[tuple[ArmEntry, ArmEntry]]:
    """(without, with) deep supervision, where the two networks differ in nothing else."""

    def grid(arm: ArmEntry) -> tuple[object, ...]:
        spec = GridSpec.from_json(arm.spec)
        return spec.encoder, spec.inputs, spec.widths, spec.node_widths, spec.merge, spec.block

    bare = {grid(arm): arm for arm in reversed(study.arms) if not arm.deep_supervision}
    return [
        (bare[grid(arm)], arm)
        for arm in study.arms
        if arm.deep_supervision and grid(arm) in bare
    ]  # fmt: skip


def flow_ratios(study: StudyRecords) -> pd.DataFrame:
    """One row per (pair of arms, node, moment): |g| with over |g| without deep supervision.

    Columns: without, arm, node, moment ("start", "middle", "end" of training), epoch, ratio
    (geometric mean over runs), low, high (95 %), p, num (runs), p_holm (over the nodes of one
    moment and pair). Empty without such a pair.
    """
    norms = study.traces[study.traces["quantity"] == "gradient_norm"]
    norms = norms[norms["value"] > 0]
    frames = [
        _ratios(study, norms, bare, deep) for bare, deep in supervised_pairs(study) if len(norms)
    ]
    frames = [frame for frame in frames if len(frame)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _ratios(
    study: StudyRecords, norms: pd.DataFrame, bare: ArmEntry, deep: ArmEntry
) -> pd.DataFrame:
    keys = ["place", "epoch", "seed", "fold"]
    norms = norms.assign(log=np.log(norms["value"])).astype({"place": object})
    logs = [norms[norms["arm"] == arm.name].set_index(keys)["log"] for arm in (bare, deep)]
    gaps = (logs[1] - logs[0]).dropna().rename("gap").reset_index()
    rows: list[dict[str, object]] = []
    for moment, epoch in _moments(gaps["epoch"]).items():
        for node, part in gaps[gaps["epoch"] == epoch].groupby("place"):
            found = over_runs(part["gap"].tolist(), test_train_ratio=study.test_train_ratio)
            rows.append(
                {
                    "without": bare.name,
                    "arm": deep.name,
                    "node": node,
                    "moment": moment,
                    "epoch": epoch,
                    "ratio": math.exp(found.mean),
                    "low": math.exp(found.low),
                    "high": math.exp(found.high),
                    "p": found.p,
                    "num": found.num,
                }
            )
    frame = pd.DataFrame(rows)
    if len(frame):
        frame["p_holm"] = frame.groupby("moment")["p"].transform(lambda p: holm(p.tolist()))
    return frame


def _moments(epochs: pd.Series) -> dict[str, int]:
    """Moment -> epoch; moments that fall together are one."""
    if epochs.empty:
        return {}
    first, last = int(epochs.min()), int(epochs.max())
    found: dict[str, int] = {}
    for moment, epoch in (("start", first), ("middle", (first + last) // 2), ("end", last)):
        if epoch not in found.values() and (epochs == epoch).any():
            found[moment] = epoch
    return found


def draw_flow_ratios(study: StudyRecords, frame: pd.DataFrame) -> Figure:
    """Nodes across, the ratio upward on a log scale; filled: told from 1."""
    pairs = list(frame[["without", "arm"]].drop_duplicates().itertuples(index=False, name=None))
    figure = Figure(figsize=(7, 0.7 + 2.2 * len(pairs)))
    panels = figure.subplots(len(pairs), 1, squeeze=False)[:, 0]
    moments = list(frame["moment"].drop_duplicates())
    for axes, (bare, deep) in zip(panels, pairs, strict=True):
        own = frame[(frame["without"] == bare) & (frame["arm"] == deep)]
        nodes = sorted(own["node"].unique())
        axes.axhline(1, color="#888888", linewidth=0.8)
        for k, moment in enumerate(moments):
            rows = own[own["moment"] == moment].set_index("node").reindex(nodes)
            x = np.arange(len(nodes)) + (k - (len(moments) - 1) / 2) * 0.24
            y = rows["ratio"].to_numpy()
            axes.errorbar(
                x, y, yerr=[y - rows["low"].to_numpy(), rows["high"].to_numpy() - y], fmt="none",
                ecolor=f"C{k}", elinewidth=1,
            )  # fmt: skip
            is_told = (rows["p_holm"] < ALPHA).to_numpy()
            for shown, face in ((is_told, f"C{k}"), (~is_told, "white")):
                axes.plot(
                    x[shown], y[shown], _MARKS[k], color=f"C{k}", markersize=4.5, zorder=3,
                    markerfacecolor=face, label=f"{moment} of training" if face != "white" else "",
                )  # fmt: skip
        _ratio_axis(axes, own)
        axes.set_xticks(range(len(nodes)), [short_node(node) for node in nodes])
        axes.set_ylabel(f"{study.titles[deep]}\nover {study.titles[bare]}", fontsize=8)
    panels[-1].set_xlabel("node i,j")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _ratio_axis(axes: Axes, rows: pd.DataFrame) -> None:
    axes.set_yscale("log")
    ends = rows[["ratio", "low", "high"]]
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    ticks = [m * 10.0**k for k in range(-4, 5) for m in (1, 2, 5)]
    axes.yaxis.set_major_locator(FixedLocator([t for t in ticks if low / 2 <= t <= high * 2]))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def ratio_caption(study: StudyRecords, frame: pd.DataFrame) -> str:
    """What marks and bars are."""
    epochs = frame.drop_duplicates("moment")
    when = ", ".join(
        f"{moment} (epoch {epoch})"
        for moment, epoch in epochs[["moment", "epoch"]].itertuples(index=False)
    )
    return (
        "L2 norm of the gradient of a node's parameters with deep supervision over that without, "
        f"log scale, at {when}. Mark: geometric mean over {int(frame['num'].max())} runs, paired by "
        "fold and seed; bar: 95 % interval of the corrected resampled t on the logarithm "
        f"(n_test/n_train = {study.test_train_ratio:.3f}). Filled: told from 1 (Holm p < {ALPHA:g} "
        "over the nodes of one moment)."
    )
