"""Names that moved: `reports.comparison`, `reports.heads`, `reports.cells`, `reports.notes` hold them.

It goes when nothing imports from here any more.
"""

from __future__ import annotations

from reports import notes
from reports.cells import num_decimals
from reports.comparison import ALPHA, differences, result_rows
from reports.heads import head_rows
from reports.records import StudyRecords

__all__ = ["ALPHA", "caption", "differences", "head_rows", "num_decimals", "result_rows"]


def caption(study: StudyRecords) -> list[str]:
    """The sentences below the result table: definitions, what ± is, tests and their family, counts."""
    rows = result_rows(study)
    return [
        notes.definitions(study),
        notes.empty_masks(study),
        f"{notes.judged_output(study)} Dice and IoU: {notes.averaging(study, rows)}",
        *notes.retraining_notes(study, rows),
    ]
