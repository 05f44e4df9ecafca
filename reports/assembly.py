"""From a study's folder to all files of its report."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from reports import Report, result_table
from reports.escaping import csv_text
from reports.figures import save_figures
from reports.records import StudyRecords, incomplete_line, load_study
from reports.study_page import render_page
from reports.tables import caption, head_rows, num_decimals, result_rows
from reports.verdict import verdict


def build_report(folder: Path, *, study: str | None) -> Report:
    """See `reports.build`."""
    records = load_study(folder, study)
    target = folder / "report"
    target.mkdir(parents=True, exist_ok=True)
    rows, heads = result_rows(records), head_rows(records)
    texts = _tables(records, rows, heads)
    for name in ("heads.md", "heads.csv"):
        (target / name).unlink(missing_ok=True)
    for name, text in texts.items():
        (target / name).write_text(text, encoding="utf-8", newline="\n")
    figures = save_figures(records, target / "figures")
    pictures = tuple(path for figure in figures for path in figure.files)
    files = [*texts, *(path.relative_to(target).as_posix() for path in pictures)]
    page = target / "index.html"
    text = render_page(records, rows=rows, heads=heads, figures=figures, files=files)
    page.write_text(text, encoding="utf-8", newline="\n")
    loud = incomplete_line(records)
    return Report(
        page=page,
        tables=tuple(target / name for name in texts),
        figures=pictures,
        verdict=(*([loud] if loud else []), *verdict(records)),
        text=texts["table.txt"],
    )


def _tables(study: StudyRecords, rows: pd.DataFrame, heads: pd.DataFrame) -> dict[str, str]:
    """File name -> content."""
    lines = result_table.result_lines(rows, study.manifest.baseline)
    loud = incomplete_line(study)
    notes = [*([f"{loud[0].upper()}{loud[1:]}"] if loud else []), *caption(study)]
    label = re.sub(r"[^A-Za-z0-9]+", "-", study.manifest.study).strip("-")
    texts = {
        "table.txt": result_table.terminal_text(lines, notes),
        "table.md": result_table.markdown(lines, notes),
        "table.csv": csv_text(rows),
        "table.tex": result_table.latex(lines, notes, label=label),
    }
    if len(heads):
        texts["heads.md"] = result_table.heads_markdown(heads, digits=num_decimals(rows))
        texts["heads.csv"] = csv_text(heads)
    return texts
