"""Tables, figures and the page of a study, from its records alone: no torch, no weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unetpp.metrics.overlap import EmptyPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `build` wrote.

    Attributes:
        page: `index.html`, which needs nothing beside it.
        tables: every table as .txt, .md, .csv and .tex, and `report.md` with all of it.
        figures: pictures as .svg, .pdf and .png, and the CSV of exactly what they show.
        verdict: the answer in a few sentences; the loud line of an incomplete study comes first.
        text: the leading table as plain text of at most 80 columns.
    """

    page: Path
    tables: tuple[Path, ...]
    figures: tuple[Path, ...]
    verdict: tuple[str, ...]
    text: str


def build(
    folder: Path,
    *,
    shown: str | None = None,
    empty: EmptyPolicy = "nan",
    store: str | None = None,
) -> Report:
    """Write the report of all studies in `folder` and in the folders in it, into `folder`/report.

    The same records give the same bytes.

    Args:
        folder: of one study or several, with `records.sqlite`, or of such folders.
        shown: the study whose answer is returned; None stands for that of the first chapter.
        empty: how cases with an empty mask are scored, see `unetpp.metrics.overlap.score`.
        store: URL of the database that holds the records of `folder`, in place of its file.

    Raises:
        UserError: when there is nothing to report, see `reports.sources.load_sources`.
    """
    # Imported here, so that `import reports` costs a command line nothing.
    from reports.assembly import build_report

    return build_report(folder, shown=shown, empty=empty, store=store)


def build_search(folder: Path, *, search: str | None = None, store: str | None = None) -> Report:
    """Write the report of a search into `folder`/report; the same records give the same bytes.

    Args:
        folder: of the search, with `records.sqlite`.
        search: which one; None stands for the only one in the folder.
        store: see `build`.

    Raises:
        UserError: when there is nothing to report, see `reports.search_records.load_search`.
    """
    from reports.search_assembly import build_search_report

    return build_search_report(folder, search=search, store=store)


def holds_search(folder: Path, *, store: str | None = None) -> bool:
    """Whether the records of a folder are of a search, and not of a study; nothing is written.

    Args:
        folder: of a search, or of studies.
        store: see `build`.
    """
    from reports import search_records

    return search_records.holds_search(folder, store)
