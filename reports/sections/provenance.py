"""Enough to run a study again, and to see that it is the same one."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from reports.document import Cell, Column, Section, Table
from reports.methods import invocations, provenance
from reports.records import StudyRecords

_HEADS = ("Command", "Start", "End", "Revision", "Machine")


def section(study: StudyRecords, folder: Path) -> Section | None:
    """Hashes, versions, machines, and every start of the command."""
    del folder
    starts = invocations(study)
    table = Table(
        name="starts",
        title="Every start of the study",
        columns=tuple(Column(title=head, align="left") for head in _HEADS),
        rows=tuple(tuple(Cell(text=text) for text in start) for start in starts),
        notes=("Times are UTC. A start without an end was interrupted.",),
        data=pd.DataFrame(starts, columns=list(_HEADS)),
    )
    return Section(
        name="provenance",
        title="Provenance",
        pairs=tuple(provenance(study)),
        tables=(table,) if starts else (),
    )
