"""The marks and the caption of the result table as `reports.assembly` and `reports.across` print it.

Superseded by `reports.sections.comparison`; it goes when both are made of sections.
"""

from __future__ import annotations

import pandas as pd

from reports import notes
from reports.cells import num_decimals
from reports.comparison import ALPHA, comparable, differences, result_rows
from reports.heads import head_rows
from reports.records import StudyRecords

__all__ = [
    "ALPHA", "NO_TEST", "caption", "differences", "head_rows", "num_decimals", "ranks",
    "result_rows", "retraining_notes", "tied",
]  # fmt: skip

NO_TEST = (
    "No interval and no test: they need at least two runs (fold and seed) that both arms have "
    "finished, and there are fewer."
)


_CUT = "Limits are cut at ±1, beyond which no difference can lie: so few runs say next to nothing."


def tied(rows: pd.DataFrame) -> pd.Series:
    """Whether a test ran and did not tell the arm from the baseline (Holm p >= 0.05)."""
    return rows["p_holm"] >= ALPHA


def ranks(rows: pd.DataFrame, column: str) -> pd.Series:
    """1 best, 2 second, 0 others; equal numbers share a rank.

    All 0 with a single arm, and where the arms have different numbers of runs: such means are
    over different cases and do not rank.
    """
    none = pd.Series(0, index=rows.index)
    if not comparable(rows):
        return none
    place = rows[column].rank(method="dense", ascending=False)
    return place.where(place <= 2, 0).fillna(0).astype(int)


def caption(study: StudyRecords) -> list[str]:
    """The sentences below the table: definitions, what ± is, tests and their family, counts."""
    rows = result_rows(study)
    return [
        notes.definitions(study),
        notes.empty_masks(study),
        f"{notes.judged_output(study)} Dice and IoU: {notes.averaging(study, rows)}",
        *retraining_notes(study, rows),
    ]


def retraining_notes(study: StudyRecords, rows: pd.DataFrame) -> list[str]:
    """What difference, interval and Holm p are, and over which family; or why there are none."""
    family = [study.titles[arm] for arm in rows.loc[rows["p"].notna(), "arm"]]
    base = study.titles[study.manifest.baseline]
    ranked = (
        []
        if comparable(rows) or len(rows) < 2
        else ["The arms have different numbers of runs: no mean is marked as best."]
    )
    if rows["delta_low"].notna().sum() == 0 and not family:
        return [NO_TEST, *ranked] if len(rows) > 1 else []
    return [
        (
            f"Delta: Dice minus that of {base}, paired by run (fold and seed), with the 95 % interval "
            f"of the corrected resampled t (Nadeau and Bengio 2003; n_test/n_train = "
            f"{study.test_train_ratio:.3f}, the mean over folds); the interval is of this one "
            "comparison."
        ),
        (
            f"Holm p: two-sided p of that test, corrected over {len(family)} comparison"
            f"{'s' if len(family) != 1 else ''} of Dice with {base} ({', '.join(family)})."
        ),
        *([_CUT] if (rows[["delta_low", "delta_high"]].abs() > 1).any(axis=None) else []),
        *ranked,
    ]
