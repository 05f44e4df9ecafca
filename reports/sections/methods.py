"""How the numbers of a study were made, in sentences."""

from __future__ import annotations

from pathlib import Path

from reports.document import Section
from reports.methods import methods
from reports.records import StudyRecords


def section(study: StudyRecords, folder: Path) -> Section | None:
    """The methods paragraph of a paper; None where nothing was trained."""
    del folder
    if not study.manifest.trains:
        return None
    return Section(name="methods", title="Methods", paragraphs=tuple(methods(study)))
