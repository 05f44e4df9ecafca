"""Ranking stability: would other cases, another rule or another run order the arms otherwise?"""

from __future__ import annotations

import math
from pathlib import Path

from reports import cells, notes
from reports.comparison import SEED
from reports.document import Column, Section, Table
from reports.rank_stability import Spread, Stability, spread, stability
from reports.records import StudyRecords
from reports.statistics import FEWEST_GROUPS
from reports.statistics.cases import DRAWS


def section(study: StudyRecords, folder: Path) -> Section | None:
    """The table of ranks and the spreads; None with fewer than two arms that were scored."""
    del folder
    found = stability(study)
    if found is None:
        return None
    return Section(
        name="stability",
        title="Ranking stability",
        paragraphs=(
            (
                "A ranking is one draw. The table draws other cases of the same kind again and again, "
                "with these trained networks, and ranks each time; it also ranks by two other rules. An "
                "arm whose rank interval is wide, or that changes its place with the rule, has no place "
                "to speak of. Training again is not part of this: for that see the spreads below."
            ),
        ),
        tables=(_table(study, found),),
        pairs=tuple(_pairs(spread(study))),
    )


def _table(study: StudyRecords, found: Stability) -> Table:
    few = found.num_groups < FEWEST_GROUPS
    return Table(
        name="stability",
        title="Ranks of the arms by Dice",
        columns=(
            Column(title="Arm", align="left"),
            Column(title="Rank [95 %]", better="lower", explained="of the mean over cases"),
            Column(
                title="First", better="higher", explained="share of the draws in which it is best"
            ),
            Column(title="By median", better="lower", explained="rank of the median over cases"),
            Column(
                title="By mean rank",
                better="lower",
                explained="ranked within each case, then averaged and ranked",
            ),
        ),
        rows=tuple(
            (
                cells.words(study.titles[row["arm"]]),
                cells.number(
                    row["by_mean"],
                    _digits(row["by_mean"]),
                    limits=None if few else (row["low"], row["high"]),
                ),
                cells.share(math.nan if few else row["first"]),
                cells.number(row["by_median"], _digits(row["by_median"])),
                cells.number(row["by_mean_rank"], _digits(row["by_mean_rank"])),
            )
            for row in found.rows.to_dict("records")
        ),
        notes=tuple(_notes(study, found)),
        data=found.rows,
    )


def _digits(rank: float) -> int:
    """Shared ranks are halves."""
    return 0 if rank == round(rank) else 1


def _notes(study: StudyRecords, found: Stability) -> list[str]:
    unit = notes.unit_name(study)
    lines = [
        (
            f"Rank 1 is best; equal scores share their mean rank. Ranked on the {found.num_cases:,} "
            f"{'cases and classes' if notes.several_classes(study) else 'cases'} that every arm has a "
            f"score of{', averaged over seeds' if study.manifest.num_seeds > 1 else ''}."
        )
    ]
    if found.num_groups < FEWEST_GROUPS:
        return [*lines, f"No draws with fewer than {FEWEST_GROUPS} groups (unit: {unit})."]
    mean, low = found.tau
    tau = (
        f" Kendall's tau-b of a draw's ranking with the full one: mean {mean:.2f}, at least {low:.2f} "
        "in 95 % of the draws (1: the same order, 0: no relation)."
    )
    return [
        *lines,
        (
            f"Brackets and First: bootstrap over {found.num_groups:,} groups (unit: {unit}; {DRAWS:,} "
            f"draws, seed {SEED}).{'' if math.isnan(mean) else tau} After Maier-Hein et al. (2018)."
        ),
    ]


def _pairs(found: Spread) -> list[tuple[str, str]]:
    if math.isnan(found.between):
        return [
            (
                "Spread between arms and runs",
                "not available: fewer than two runs that every arm has finished",
            )
        ]
    lines = [
        ("Standard deviation of Dice between arms", f"{found.between:.4f}"),
        (
            "Of the runs of one arm",
            f"{found.within:.4f} over {found.num_runs} runs; the ratio is {_ratio(found.ratio)}",
        ),
        (
            "Of the runs, without what all arms share of a fold",
            f"{found.paired:.4f}; the ratio is {_ratio(found.paired_ratio)}",
        ),
    ]
    if not math.isnan(found.seeds):
        lines.append(("Of the seeds of one arm and fold", f"{found.seeds:.4f}"))
    return lines


def _ratio(value: float) -> str:
    if math.isnan(value):
        return "undefined: the runs do not differ"
    return f"{value:.2f}{', below 1: the arms differ by less than the runs' if value < 1 else ''}"
