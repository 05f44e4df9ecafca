"""Do nested skips help on every backbone? Figure 4 of the paper: tests within each encoder."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from reports import cells
from reports.comparison import ALPHA
from reports.crossing import crossing_rows, skip_titles
from reports.document import Cell, Column, Section, Table
from reports.figures import Plot, save_figure
from reports.notes import definitions, empty_masks, judged_output
from reports.pairs import NO_INTERVAL, interval_words, run_words, within
from reports.plots import backbones
from reports.records import StudyRecords
from reports.writers import signed

_COLUMNS = (
    Column(title="Encoder", align="left"),
    Column(title="Network", align="left"),
    Column(title="Params", better="lower"),
    Column(title="MACs", better="lower", narrow=False, explained="multiply-accumulates"),
    Column(title="Dice [95 %]", better="higher"),
    Column(title="IoU [95 %]", better="higher", narrow=False),
    Column(title="Delta Dice [95 %]"),
    Column(title="Holm p"),
)
_PLOT: Plot[StudyRecords] = Plot(
    name="backbones",
    title="Dice on every encoder",
    data=backbones.backbones,
    draw=backbones.draw_backbones,
    caption=backbones.caption,
)


def section(study: StudyRecords, folder: Path) -> Section | None:
    """Table and figure of a study that crosses encoders with skips; else None.

    Args:
        study: whose records.
        folder: for the figure.
    """
    rows = crossing_rows(study)
    if rows.empty:
        return None
    return Section(
        name="backbones",
        title="Backbones",
        paragraphs=(_about(study),),
        answer=_answer(study, rows),
        tables=(crossing_table(study, rows),),
        figures=(save_figure(_PLOT, study, folder),),
    )


def _about(study: StudyRecords) -> str:
    reference = skip_titles(study)[study.baseline.levels["skips"]]
    return (
        f"Each network is compared with {reference} on the same encoder. How encoders compare with "
        "each other is not tested: they differ in size and, where they are, in what they were trained "
        "on before."
    )


def _answer(study: StudyRecords, rows: pd.DataFrame) -> tuple[str, ...]:
    names = skip_titles(study)
    reference = names[study.baseline.levels["skips"]]
    others = rows[~rows["is_reference"].astype(bool)]
    return tuple(
        _sentence(names.get(str(skips), str(skips)), reference, own)
        for skips, own in others.groupby("skips", sort=False, observed=True)
    )


def _sentence(name: str, reference: str, rows: pd.DataFrame) -> str:
    digits = cells.num_decimals(rows)
    told = rows["p_holm"] < ALPHA
    parts = {
        "better on": rows[told & (rows["delta_dice"] > 0)],
        "worse on": rows[told & (rows["delta_dice"] < 0)],
        "not told apart by the test on": rows[rows["p_holm"] >= ALPHA],
        "not tested on": rows[rows["p_holm"].isna()],
    }
    said = [f"{word} {', '.join(_listed(own, digits))}" for word, own in parts.items() if len(own)]
    return f"{name} against {reference}: {'; '.join(said)}."


def _listed(rows: pd.DataFrame, digits: int) -> list[str]:
    return [
        f"{row['encoder']} ({signed(row['delta_dice'], digits)} Dice)"
        for row in rows.to_dict("records")
    ]


def crossing_table(study: StudyRecords, rows: pd.DataFrame) -> Table:
    """Price, scores and the difference within the encoder, best of each encoder in bold."""
    digits = cells.num_decimals(rows)
    family = int(rows["p"].notna().sum())
    reference = skip_titles(study)[study.baseline.levels["skips"]]
    ranks: dict[str, dict[str, cells.Rank]] = {"dice": {}, "iou": {}}
    for _, own in rows.groupby("encoder", sort=False):
        for name in ranks:
            ranks[name] |= zip(own["arm"], cells.places(own[f"{name}_mean"]), strict=True)
    test = (
        f"Delta: Dice minus that of {reference} on the same encoder, paired by run. Holm p: "
        f"two-sided p over all {family} of these comparisons. Bold and underlined: within an "
        f"encoder. The baseline of an encoder is its {reference}."
    )
    return Table(
        name="backbones",
        title="Every network on every encoder",
        columns=_COLUMNS,
        rows=tuple(
            _line(study, row, digits, {name: own[row["arm"]] for name, own in ranks.items()})
            for row in rows.to_dict("records")
        ),
        notes=(
            definitions(study),
            empty_masks(study),
            judged_output(study),
            (
                f"Mean over the cases of a held-out fold, then over {run_words(study)}. Brackets: "
                f"{interval_words(study)}, cut at 0 and 1 where they are those of a mean."
            ),
            test if family else NO_INTERVAL,
        ),
        data=rows,
    )


def _line(
    study: StudyRecords,
    row: Mapping[Hashable, Any],
    digits: int,
    ranks: Mapping[str, cells.Rank],
) -> tuple[Cell, ...]:
    worse = row["p_holm"] < ALPHA and row["delta_dice"] < 0
    mark: cells.Mark = "worse" if worse else ""
    scores = [
        cells.number(
            row[f"{name}_mean"],
            digits,
            limits=within(row[f"{name}_low"], row[f"{name}_high"]),
            rank=ranks[name],
        )
        for name in ("dice", "iou")
    ]
    limits = (row["delta_low"], row["delta_high"])
    return (
        cells.words(row["encoder"]),
        cells.words(skip_titles(study).get(str(row["skips"]), str(row["skips"]))),
        cells.parameters(row["num_parameters"]),
        cells.macs(row["macs"]),
        *scores,
        cells.baseline_cell()
        if row["is_reference"]
        else cells.difference(row["delta_dice"], digits, limits=limits, mark=mark),
        cells.blank() if row["is_reference"] else cells.probability(row["p_holm"]),
    )
