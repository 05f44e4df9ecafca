"""Tables, figures and the page of a study, from its records alone: no torch, no weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `build` wrote.

    Attributes:
        page: `index.html`, which needs nothing beside it.
        tables: `table.txt`, `.md`, `.csv`, `.tex`, and those of the heads where there are any.
        figures: pictures and the CSV of exactly what they show.
        verdict: the answer in a few sentences; the loud line of an incomplete study comes first.
        text: the result table as plain text of at most 80 columns.
    """

    page: Path
    tables: tuple[Path, ...]
    figures: tuple[Path, ...]
    verdict: tuple[str, ...]
    text: str


def build(folder: Path, *, study: str | None = None) -> Report:
    """Write the report of a study into `folder`/report; the same records give the same bytes.

    Args:
        folder: of the study, with `records.sqlite`.
        study: which one; None stands for the only one in the folder.

    Raises:
        UserError: when there is nothing to report, see `reports.records.load_study`.
    """
    # Imported here, so that `import reports` costs a command line nothing.
    from reports.assembly import build_report

    return build_report(folder, study=study)


def holds_several(folder: Path) -> bool:
    """Whether study folders lie in `folder`, which is none itself."""
    places = [path.parent.name for path in folder.glob("*/records.sqlite")]
    return not (folder / "records.sqlite").is_file() and bool({*places} - {"report"})


def build_across(folder: Path) -> Report:
    """Write one report of all study folders in `folder`, one a data set, into `folder`/report.

    Raises:
        UserError: when they hold different studies, or none that is finished.
    """
    from reports.across import build_across_report

    return build_across_report(folder)


def build_search(folder: Path, *, search: str | None = None) -> Report:
    """Write the report of a search into `folder`/report; the same records give the same bytes.

    Args:
        folder: of the search, with `records.sqlite`.
        search: which one; None stands for the only one in the folder.

    Raises:
        UserError: when there is nothing to report, see `reports.search_records.load_search`.
    """
    from reports.search_assembly import build_search_report

    return build_search_report(folder, search=search)


def holds_search(folder: Path) -> bool:
    """Whether the records of a folder are of a search, and not of a study; nothing is written."""
    from reports import search_records

    return search_records.holds_search(folder)
