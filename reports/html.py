"""The report as one page that needs nothing beside it: styles and pictures are inside."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import jinja2
import pandas as pd

from reports.figures import SavedFigure
from reports.methods import data_summary, invocations, methods, provenance
from reports.records import StudyRecords, incomplete_line
from reports.tables import caption, num_decimals, tied
from reports.verdict import verdict
from reports.writers import RANK_LEGEND, TIE_LEGEND, head_lines, result_lines

_FOLDER = Path(__file__).parent
_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}


def page_environment(folder: Path) -> jinja2.Environment:
    """What pages are rendered with: templates of `folder`, and `base.css`, which all include."""
    # Everything from a record or a file is untrusted text: autoescape makes it inert.
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _FOLDER]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


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
        .get_template("page.html.jinja")
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


def data_uri(figure: SavedFigure) -> str:
    """The picture itself, to stand in a page; "" where none was drawn."""
    if not figure.files:
        return ""
    path = figure.files[0]
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    return f"data:{_TYPES[path.suffix]};base64,{content}"
