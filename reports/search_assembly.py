"""From a search's folder to all files of its report."""

from __future__ import annotations

import re
from pathlib import Path

from reports import Report
from reports.escaping import csv_text
from reports.search_figures import save_search_figures
from reports.search_page import render_search
from reports.search_records import incomplete_lines, load_search
from reports.search_tables import confirmation_rows, depth_rows, trial_rows
from reports.search_texts import latex, markdown, terminal_text
from reports.search_verdict import search_verdict
from reports.sources import report_folder


def build_search_report(folder: Path, *, search: str | None, store: str | None) -> Report:
    """See `reports.build_search`."""
    records = load_search(folder, search, store=store)
    target = report_folder(folder)
    rows, again, depths = trial_rows(records), confirmation_rows(records), depth_rows(records)
    label = re.sub(r"[^A-Za-z0-9]+", "-", records.manifest.search).strip("-")
    texts = {
        "table.txt": terminal_text(records, rows, again),
        "table.md": markdown(records, rows, again),
        "table.csv": csv_text(rows),
        "table.tex": latex(records, rows, label=label),
    }
    for name, frame in (("confirmation.csv", again), ("depths.csv", depths)):
        (target / name).unlink(missing_ok=True)
        if len(frame):
            texts[name] = csv_text(frame)
    for name, text in texts.items():
        (target / name).write_text(text, encoding="utf-8", newline="\n")
    figures = save_search_figures(records, target / "figures")
    pictures = tuple(path for figure in figures for path in figure.files)
    files = [*texts, *(path.relative_to(target).as_posix() for path in pictures)]
    page = target / "index.html"
    text = render_search(
        records, rows=rows, again=again, depths=depths, figures=figures, files=files
    )
    page.write_text(text, encoding="utf-8", newline="\n")
    return Report(
        page=page,
        tables=tuple(target / name for name in texts),
        figures=pictures,
        verdict=(*incomplete_lines(records), *search_verdict(records)),
        text=texts["table.txt"],
    )
