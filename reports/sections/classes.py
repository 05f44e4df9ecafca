"""Five scores of every class: what Dice alone hides, and what pooling over pixels changes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from reports import cells, notes
from reports.class_scores import FIVE, class_rows
from reports.comparison import SEED
from reports.document import Cell, Column, Section, Table
from reports.records import StudyRecords
from reports.statistics import FEWEST_GROUPS
from reports.statistics.cases import DRAWS
from unetpp.metrics.overlap import METRICS


def section(study: StudyRecords, folder: Path) -> Section | None:
    """One table a class; None without finished runs."""
    del folder
    if study.cases.empty:
        return None
    rows = class_rows(study)
    labels = [int(label) for label in rows["label"].unique()]
    return Section(
        name="classes",
        title="Classes and pooled scores" if len(labels) > 1 else "Five scores, and pooled ones",
        paragraphs=(
            (
                "A mean over cases gives a small case the weight of a large one; a pooled score adds up "
                "the pixels of all cases first, so that large cases decide it. Where the two order the "
                "arms differently, the arms differ in how they treat small cases. Precision falls with "
                "false positives, recall with misses. Nothing in these tables is tested."
            ),
        ),
        tables=tuple(
            _table(study, rows[rows["label"] == label], label, several=len(labels) > 1)
            for label in labels
        ),
    )


def _table(study: StudyRecords, rows: pd.DataFrame, label: int, *, several: bool) -> Table:
    name = notes.class_name(study, label)
    return Table(
        name=f"classes_{label}" if several else "classes",
        title=f"Class {name}" if several else "Five scores over cases, two over all pixels",
        columns=(
            Column(title="Arm", align="left"),
            *(
                Column(
                    title=METRICS[metric].label[:1].upper() + METRICS[metric].label[1:],
                    better="higher",
                    narrow=metric != "specificity",
                )
                for metric in FIVE
            ),
            Column(title="Pooled Dice [95 %]", better="higher"),
            Column(title="Pooled IoU [95 %]", better="higher", narrow=False),
        ),
        rows=tuple(_lines(study, rows)),
        notes=(
            notes.definitions(study, FIVE),
            notes.empty_masks(study),
            _counts(rows),
            f"{notes.judged_output(study)} Scores: {notes.averaging(study, rows)}",
            (
                f"Pooled: counts summed over all cases{_seeds(study)}; 95 % interval of a bootstrap over "
                f"groups (unit: {notes.unit_name(study)}; {DRAWS:,} draws, seed {SEED}, percentile; none "
                f"with fewer than {FEWEST_GROUPS} groups), of these trained networks on new cases."
            ),
        ),
        data=rows,
    )


def _lines(study: StudyRecords, rows: pd.DataFrame) -> list[tuple[Cell, ...]]:
    ranked = len(set(rows["num_runs"])) == 1
    scores = [f"{name}_mean" for name in FIVE] + ["pooled_dice", "pooled_iou"]
    ranks = {name: cells.places(rows[name], ranked=ranked) for name in scores}
    return [
        (
            cells.words(study.titles[row["arm"]]),
            *(
                cells.number(
                    row[f"{name}_mean"], 3, sd=row[f"{name}_sd"], rank=ranks[f"{name}_mean"][place]
                )
                for name in FIVE
            ),
            *(
                cells.number(
                    row[name], 3, limits=(row[f"{name}_low"], row[f"{name}_high"]),
                    rank=ranks[name][place],
                )
                for name in ("pooled_dice", "pooled_iou")
            ),
        )
        for place, row in enumerate(rows.to_dict("records"))
    ]  # fmt: skip


def _counts(rows: pd.DataFrame) -> str:
    scored, empty = rows["num_scored"], rows["num_empty"]
    return (
        f"This class: {_range(scored)} scored (case and run) per arm, {_range(empty)} with an empty "
        "reference. Precision has no value where nothing is predicted, recall none where nothing is "
        "there, unless the rule for empty masks gives one."
    )


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _seeds(study: StudyRecords) -> str:
    return " and seeds" if study.manifest.num_seeds > 1 else ""
