"""Does deep supervision change how much gradient each node gets?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from reports.cells import NONE, words
from reports.comparison import ALPHA
from reports.document import Cell, Column, Section, Table
from reports.figures import Plot, save_figure
from reports.paired_tests import runs_note
from reports.plots.gradient_flow import (
    draw_flow,
    draw_flow_ratios,
    flow,
    flow_caption,
    flow_ratios,
    ratio_caption,
)
from reports.records import StudyRecords

_MOMENTS = ("start", "middle", "end")


def section(study: StudyRecords, folder: Path) -> Section | None:
    """Gradient at every node over training; None where it was not watched."""
    frame = flow(study)
    if frame.empty:
        return None
    ratios = flow_ratios(study)
    plots: list[Plot[StudyRecords]] = [
        Plot(
            name="gradient_flow",
            title="Gradient at every node over training",
            data=lambda _: frame,
            draw=draw_flow,
            caption=flow_caption,
        )
    ]
    if len(ratios):
        plots.append(
            Plot(
                name="gradient_ratios",
                title="Gradient with deep supervision over that without",
                data=lambda _: ratios,
                draw=draw_flow_ratios,
                caption=ratio_caption,
            )
        )
    return Section(
        name="gradient_flow",
        title="Gradient flow",
        paragraphs=(_about(study, ratios),),
        answer=tuple(_verdict(study, ratios)),
        tables=(_table(study, ratios),) if len(ratios) else (),
        figures=tuple(save_figure(plot, study, folder) for plot in plots),
    )


def _about(study: StudyRecords, ratios: pd.DataFrame) -> str:
    if ratios.empty:
        return (
            "How much gradient reaches every node. No two arms differ in deep supervision alone, "
            "so that nothing is compared."
        )
    return (
        "How much gradient reaches every node, with and without deep supervision. The loss of a "
        "deep-supervised network is the weighted mean over its heads, with weights that sum to 1: "
        "it is not larger for having more heads, and each head counts less for having others. A larger gradient is no better one: Adam divides "
        "by its running size, so that only shares and directions act on the weights."
        f"{_learned(study)}"
    )


def _learned(study: StudyRecords) -> str:
    if any('"learned"' in arm.spec for arm in study.arms):
        return " Learned weights of heads change over training and with them this mean."
    return ""


def _verdict(study: StudyRecords, ratios: pd.DataFrame) -> list[str]:
    if ratios.empty:
        return []
    lines: list[str] = []
    for (bare, deep), own in ratios.groupby(["without", "arm"], sort=False):
        parts: list[str] = []
        for moment, rows in own.groupby("moment", sort=False):
            tested = int(rows["p_holm"].notna().sum())
            told = rows[rows["p_holm"] < ALPHA]
            more, less = (told["ratio"] > 1).sum(), (told["ratio"] < 1).sum()
            if tested:
                parts.append(
                    f"at the {moment} (epoch {rows['epoch'].iloc[0]}) {more} of {tested} nodes get "
                    f"significantly more gradient, {less} less{_extreme(told)}"
                )
        title = f"{study.titles[str(deep)]} against {study.titles[str(bare)]}"
        lines.append(
            f"{title}: {'; '.join(parts)}." if parts else f"{title}: too few runs for a test."
        )
    return lines


def _extreme(told: pd.DataFrame) -> str:
    """The node that differs most, of those that the test tells from 1."""
    if told.empty:
        return ""
    far = told.iloc[int(np.abs(np.log(told["ratio"].to_numpy())).argmax())]
    return f" (farthest from 1: {far['node']}, {_short(far['ratio'])})"


def _table(study: StudyRecords, ratios: pd.DataFrame) -> Table:
    moments = [m for m in _MOMENTS if (ratios["moment"] == m).any()]
    several = len(ratios[["without", "arm"]].drop_duplicates()) > 1
    cells = {
        (row["without"], row["arm"], row["node"], row["moment"]): row
        for row in ratios.to_dict("records")
    }
    epochs = {m: int(ratios.loc[ratios["moment"] == m, "epoch"].iloc[0]) for m in moments}
    keys = ratios[["without", "arm", "node"]].drop_duplicates().itertuples(index=False, name=None)
    rows = tuple(
        (
            *((words(study.titles[deep]),) if several else ()),
            words(node),
            *(_ratio(cells.get((bare, deep, node, moment))) for moment in moments),
        )
        for bare, deep, node in keys
    )
    heads = [Column(title="Network", align="left")] if several else []
    return Table(
        name="gradient_flow",
        title="Gradient norm with deep supervision over that without",
        columns=(
            *heads,
            Column(title="Node", align="left"),
            *(Column(title=f"{m.capitalize()}, epoch {epochs[m]} [95 %]") for m in moments),
        ),
        rows=rows,
        notes=(
            (
                "|g|: L2 norm of the gradient of a node's parameters, mean over the steps of an "
                "epoch. Ratio: geometric mean over runs; its logarithm is compared with 0. "
                f"{runs_note(int(ratios['num'].max()), study.test_train_ratio)}"
            ),
            f"Bold: told from 1, Holm p < {ALPHA:g} over the nodes of one moment.",
        ),
        data=ratios,
    )  # fmt: skip


def _ratio(row: dict | None) -> Cell:
    if row is None:
        return Cell(text=NONE, value=float("nan"))
    spread = "" if np.isnan(row["low"]) else f"[{_short(row['low'])}, {_short(row['high'])}]"
    return Cell(
        text=_short(row["ratio"]),
        spread=spread,
        value=float(row["ratio"]),
        strong=bool(row["p_holm"] < ALPHA),
    )


def _short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 1000 else f"{ratio:.1e}"
