"""Is a network that was pruned out of a deeper one worse than the same one trained alone?"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from reports import cells
from reports.comparison import ALPHA
from reports.depth import plain_depths
from reports.document import Cell, Column, Section, Table
from reports.embedding import embedding_rows
from reports.figures import Plot, save_figure
from reports.notes import definitions, empty_masks
from reports.pairs import NO_INTERVAL, interval_words, run_words, within
from reports.plots import embedded_vs_isolated
from reports.records import StudyRecords
from reports.writers import p_value, signed

_NAME = "embedded_vs_isolated"
_COLUMNS = (
    Column(title="Depth", align="left"),
    Column(title="Params", better="lower"),
    Column(title="Dice embedded [95 %]", better="higher"),
    Column(title="Dice isolated [95 %]", better="higher"),
    Column(title="Delta Dice [95 %]"),
    Column(title="Holm p"),
)
_PLOT: Plot[StudyRecords] = Plot(
    name="embedded_vs_isolated",
    title="Embedded and isolated training",
    data=embedded_vs_isolated.embedded_vs_isolated,
    draw=embedded_vs_isolated.draw_embedded_vs_isolated,
    caption=embedded_vs_isolated.caption,
)


def section(study: StudyRecords, folder: Path) -> Section | None:
    """Table and figure of a study that trained at least two depths both ways; else None.

    None too where another study's section on pruning holds the same comparisons already.

    Args:
        study: whose records.
        folder: for the figure.
    """
    rows = embedding_rows(study)
    if rows.empty or (study.manifest.study != _NAME and _told_by_pruning(study, rows)):
        return None
    return Section(
        name=_NAME,
        title="Embedded and isolated training",
        paragraphs=(_ABOUT,),
        answer=_answer(rows),
        tables=(embedding_table(study, rows),),
        figures=(save_figure(_PLOT, study, folder),),
    )


def _told_by_pruning(study: StudyRecords, rows: pd.DataFrame) -> bool:
    """Whether all rivals are the plain networks that every pruned one is compared with anyway."""
    plain = plain_depths(study)
    return len(plain) > 1 and set(rows["isolated"]) <= {arm.name for arm in plain.values()}


_ABOUT = (
    "At each depth the two are one network, trained in two ways: the embedded one was trained by the "
    "losses of all heads, with deeper layers that were then removed. What differs may be the other "
    "losses, or the deeper layers; this does not part them."
)


def _answer(rows: pd.DataFrame) -> tuple[str, ...]:
    digits = cells.num_decimals(rows)
    told = rows[rows["p_holm"] < ALPHA].to_dict("records")
    lines = [
        f"At {row['output']}, the embedded network is "
        f"{'better' if row['delta_dice'] > 0 else 'worse'} than the isolated one by "
        f"{abs(row['delta_dice']):.{digits}f} Dice (95 % interval of the difference "
        f"{signed(row['delta_low'], digits)} to {signed(row['delta_high'], digits)}; Holm p "
        f"{p_value(row['p_holm'])})."
        for row in told
    ]
    untold = rows.loc[rows["p_holm"] >= ALPHA, "output"].unique()
    if len(untold):
        lines.append(
            f"At {', '.join(untold)}, the test does not tell the two apart; that does not show "
            "that they are equal."
        )
    return tuple(lines)


def embedding_table(study: StudyRecords, rows: pd.DataFrame) -> Table:
    """Dice of each depth both ways, and the paired difference."""
    digits = cells.num_decimals(rows)
    family = int(rows["p"].notna().sum())
    test = (
        f"Delta: embedded minus isolated, paired by run. Holm p: two-sided p over the {family} "
        f"depths of the table. Brackets: {interval_words(study)}, cut at 0 and 1 where they are "
        "those of a mean."
    )
    return Table(
        name="embedded_vs_isolated",
        title="Each depth pruned out of a deeper network, and trained alone",
        columns=_COLUMNS,
        rows=tuple(_line(study, row, digits, rows) for row in rows.to_dict("records")),
        notes=(
            definitions(study, ("dice",)),
            empty_masks(study),
            (
                f"Mean over the cases of a held-out fold, then over {run_words(study)}. Bold: the "
                "higher mean of the two, whether or not a test tells them apart."
            ),
            test if family else NO_INTERVAL,
        ),
        data=rows,
    )


def _line(
    study: StudyRecords, row: Mapping[Hashable, Any], digits: int, rows: pd.DataFrame
) -> tuple[Cell, ...]:
    several = len(set(rows["arm"])) > 1
    name = f"{study.titles[row['arm']]} {row['output']}" if several else row["output"]
    ways = ("embedded", "isolated")
    ranks = cells.places([row[f"{way}_mean"] for way in ways])
    scores = [
        replace(
            cells.number(
                row[f"{way}_mean"], digits, limits=within(row[f"{way}_low"], row[f"{way}_high"])
            ),
            strong=rank == 1,
        )
        for way, rank in zip(ways, ranks, strict=True)
    ]
    return (
        cells.words(name),
        cells.parameters(row["num_parameters"]),
        *scores,
        cells.difference(
            row["delta_dice"], digits, limits=(row["delta_low"], row["delta_high"]), bound=1.0
        ),
        cells.probability(row["p_holm"]),
    )
