"""The page of one study, as `reports.assembly` writes it.

Superseded by `reports.html.render`; it goes when the study is a `reports.document.Document`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from reports.document import SavedFigure
from reports.html import data_uri, page_environment
from reports.methods import data_summary, invocations, methods, provenance
from reports.records import StudyRecords, incomplete_line
from reports.result_table import RANK_LEGEND, TIE_LEGEND, head_lines, result_lines
from reports.tables import caption, num_decimals, tied
from reports.verdict import verdict

_FOLDER = Path(__file__).parent


def render_page(
    study: StudyRecords,
    *,
    rows: pd.DataFrame,
    heads: pd.DataFrame,
    figures: Sequence[SavedFigure],
    files: Sequence[str],
) -> str:
    """The page as text.

    Args:
        study: whose records.
        rows: of `tables.result_rows`.
        heads: of `tables.head_rows`; may be empty.
        figures: as saved; the first file of each goes into the page.
        files: names relative to the page, for the list of files.
    """
    lines = result_lines(rows, study.manifest.baseline)
    legend = [RANK_LEGEND["latex"]] if any(line.dice.rank for line in lines) else []
    return (
        page_environment(_FOLDER)
        .get_template("study.html.jinja")
        .render(
            manifest=study.manifest,
            incomplete=incomplete_line(study),
            verdict=verdict(study),
            lines=lines,
            notes=[*legend, *([TIE_LEGEND] if tied(rows).any() else []), *caption(study)],
            heads=_heads(heads, digits=num_decimals(rows)),
            figures=[(figure, data_uri(figure)) for figure in figures],
            data=data_summary(study),
            methods=methods(study),
            provenance=provenance(study),
            invocations=invocations(study),
            files=files,
        )
    )


def _heads(heads: pd.DataFrame, *, digits: int) -> list[tuple[tuple[str, ...], bool]]:
    if heads.empty:
        return []
    return list(zip(head_lines(heads, digits=digits), heads["primary"], strict=True))
