"""What a publishable ablation must report, item by item: where it is, or that it is not available."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from reports import cells
from reports.checklist import checklist
from reports.document import Column, Section, Table
from reports.records import StudyRecords


def section(study: StudyRecords, folder: Path) -> Section | None:
    """The eighteen items that records can fill; None for a study that trains nothing."""
    del folder
    if not study.manifest.trains or study.runs.empty:
        return None
    items = checklist(study)
    data = pd.DataFrame(
        [{"number": k + 1, "item": i.what, "value": i.value, "status": i.status}
         for k, i in enumerate(items)]
    )  # fmt: skip
    table = Table(
        name="checklist",
        title="Checklist",
        columns=(
            Column(title="No"),
            Column(title="Item", align="left"),
            Column(title="Where, or what", align="left"),
            Column(title="Reported", align="left"),
        ),
        rows=tuple(
            (
                cells.count(k + 1),
                cells.words(item.what),
                cells.words(item.value),
                cells.words(item.status, strong=item.status == "no"),
            )
            for k, item in enumerate(items)
        ),
        notes=(
            (
                "The items are drawn from the NeurIPS and MICCAI reproducibility checklists, CLAIM, "
                "REFORMS, Metrics Reloaded, and Maier-Hein et al. (2018). Limitations, clinical meaning, "
                "licence and ethics are for the author."
            ),
        ),
        data=data,
    )
    return Section(
        name="checklist",
        title="Reviewer's checklist",
        paragraphs=(
            (
                "Filled from the records. What is not available is said to be not available, with the "
                "reason."
            ),
        ),
        tables=(table,),
    )
