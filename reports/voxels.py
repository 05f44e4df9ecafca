"""Sections on volumes: what they call pixels are voxels."""

from __future__ import annotations

import re
from dataclasses import replace

from reports.document import Column, SavedFigure, Section, Table
from reports.records import StudyRecords
from unetpp.spec import GridSpec

_ANYWHERE = re.compile(r"\b([Pp])ixel(s?)\b")
# In a cell, where names of cases stand too, only within a phrase.
_IN_CELLS = re.compile(r"(?<= )(p)ixel(s?)\b")


def point_word(study: StudyRecords) -> str:
    """What an image is made of: "pixel", or "voxel" where the networks are of volumes."""
    volumes = any(GridSpec.from_json(arm.spec).spatial_dims == 3 for arm in study.arms)
    return "voxel" if volumes else "pixel"


def in_voxels(section: Section) -> Section:
    """The section with every pixel of its sentences a voxel; files and anchors keep their names."""
    return replace(
        section,
        paragraphs=tuple(map(_said, section.paragraphs)),
        answer=tuple(map(_said, section.answer)),
        tables=tuple(map(_table, section.tables)),
        pairs=tuple((_said(what), _said(value)) for what, value in section.pairs),
        figures=tuple(map(_figure, section.figures)),
    )


def _said(text: str, words: re.Pattern[str] = _ANYWHERE) -> str:
    return words.sub(lambda found: f"{'V' if found[1] == 'P' else 'v'}oxel{found[2]}", text)


def _table(table: Table) -> Table:
    return replace(
        table,
        title=_said(table.title),
        columns=tuple(map(_column, table.columns)),
        rows=tuple(
            tuple(replace(cell, text=_said(cell.text, _IN_CELLS)) for cell in row)
            for row in table.rows
        ),
        notes=tuple(map(_said, table.notes)),
    )


def _column(column: Column) -> Column:
    return replace(column, title=_said(column.title), explained=_said(column.explained))


def _figure(figure: SavedFigure) -> SavedFigure:
    return replace(
        figure,
        title=_said(figure.title),
        caption=_said(figure.caption),
        refusal=_said(figure.refusal),
    )
