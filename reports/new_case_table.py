"""The table of how these trained networks would do on new cases, with all that must stand below it."""

from __future__ import annotations

import math

import pandas as pd

from reports import cells, notes
from reports.case_table import CaseTable
from reports.comparison import ALPHA, SEED, new_case_rows
from reports.document import Cell, Column, Table
from reports.records import StudyRecords
from reports.statistics import FEWEST_GROUPS
from reports.statistics.cases import DRAWS


def new_cases_table(study: StudyRecords, table: CaseTable) -> Table | None:
    """These trained networks on new cases; None where no case has a score of two arms."""
    rows = new_case_rows(study, table)
    if rows.empty:
        return None
    digits, unit = cells.num_decimals(rows), notes.unit_name(study)
    lines: list[tuple[Cell, ...]] = []
    for row in rows.to_dict("records"):
        worse = row["p_holm"] < ALPHA and row["delta_dice"] < 0
        limits = (row["delta_low"], row["delta_high"])
        mark: cells.Mark = "worse" if worse else ""
        lines.append(
            (
                cells.words(study.titles[row["arm"]]),
                cells.count(row["num_cases"]),
                cells.count(row["num_groups"]),
                cells.difference(row["delta_dice"], digits, limits=limits, mark=mark),
                cells.probability(row["p"] if row["p_floor"] < ALPHA else math.nan),
                cells.probability(row["p_holm"]),
                cells.number(row["d_z"], 2),
                # Of one group it is 1 or -1, whatever the difference.
                cells.number(row["rank_biserial"] if row["num_groups"] > 1 else math.nan, 2),
                cells.share(row["share_worse"]),
            )
        )
    return Table(
        name="new_cases",
        title="On new cases, with these trained networks",
        columns=(
            Column(title="Arm", align="left"),
            Column(title="Cases", narrow=False),
            Column(title="Groups", explained=_drawn(study, unit)),
            Column(title="Delta Dice [95 %]"),
            Column(title="p"),
            Column(title="Holm p"),
            Column(title="d_z", explained=_DZ),
            Column(title="r_rb", explained=_RRB),
            Column(title="Worse", better="lower", explained="share of cases with a lower Dice"),
        ),
        rows=tuple(lines),
        notes=tuple(_new_case_notes(study, rows)),
        data=rows,
    )


_DZ = "mean difference over its standard deviation, over groups"
_RRB = "matched-pairs rank-biserial correlation, over groups, -1 to 1"


def _new_case_notes(study: StudyRecords, rows: pd.DataFrame) -> list[str]:
    base = study.titles[study.manifest.baseline]
    seeds = ", averaged over seeds" if study.manifest.num_seeds > 1 else ""
    few = rows["num_groups"] < FEWEST_GROUPS
    interval = (
        f", with the 95 % interval of a bootstrap over groups ({DRAWS:,} draws, seed {SEED}, "
        "bias-corrected and accelerated)"
    )
    lines = [
        (
            f"Delta: mean over cases of Dice minus that of {base} on the same case{seeds}"
            f"{'' if few.all() else interval}."
        ),
        *_permutation_notes(study, rows),
    ]
    if few.any():
        lines.append(f"No interval with fewer than {FEWEST_GROUPS} groups.")
    return lines


def _permutation_notes(study: StudyRecords, rows: pd.DataFrame) -> list[str]:
    tested = rows[rows["p_holm"].notna()]
    lines: list[str] = []
    if len(tested):
        floor, number = tested["p_floor"].max(), len(tested)
        how = "all patterns" if tested["exact"].all() else "9,999 patterns"
        lines.append(
            f"p: two-sided sign-flip permutation test of the mean over groups of the mean difference "
            f"in each ({how} of signs; the smallest p it can give is {floor:.3g}). Holm p: over "
            f"{number} comparison{'s' if number != 1 else ''} of Dice with "
            f"{study.titles[study.manifest.baseline]}."
        )
        if floor * number >= ALPHA:
            lines.append(
                f"With {number} comparisons the smallest Holm p of the best of them is "
                f"{floor * number:.2g}: these groups are too few for any star."
            )
    refused = rows[rows["p_floor"] >= ALPHA]
    if len(refused):
        groups = int(refused["num_groups"].max())
        lines.append(
            f"No sign-flip test of {', '.join(study.titles[arm] for arm in refused['arm'])}: with "
            f"{groups} groups, those without a difference left out, its smallest two-sided p is "
            f"{refused['p_floor'].min():.3g}, which cannot fall below {ALPHA:g}."
        )
    return lines


def _drawn(study: StudyRecords, unit: str) -> str:
    if study.manifest.folds["divides_groups"]:
        return f"what is drawn together (unit: {unit}); the folds, which are blocks, divide it"
    return f"what no fold divides (unit: {unit})"
