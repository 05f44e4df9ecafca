"""What a report consists of before anybody prints it: tables, figures, sections, chapters.

Content modules make these from records; `reports.writers` and `reports.html` print them, and
nothing else decides how a table looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: as it is printed, a number already rounded; plain text, escaped by the writer.
        spread: printed softer behind `text` ("± 0.012", "[-0.010, +0.021]"), or "".
        value: what the column is sorted by: a number (NaN last), or None for the text itself, which
            comes behind the numbers of its column.
        rank: 1 best of its column (bold), 2 second (underlined), 0 neither.
        mark: "tie" where a test did not tell the row from the best (≈), "worse" where it is worse
            than the baseline after Holm's correction (†), else "".
        strong: bold for another reason than being best (the judged output of an arm).
    """

    text: str
    spread: str = ""
    value: float | None = None
    rank: Literal[0, 1, 2] = 0
    mark: Literal["", "tie", "worse"] = ""
    strong: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """The head of a column.

    Attributes:
        title: as it is printed.
        better: which way is better, printed as an arrow; "" where neither is.
        align: "left" for words, "right" for numbers.
        explained: what an abbreviation stands for, or ""; every writer prints it below the table.
        narrow: whether the terminal's 80 columns keep it.
    """

    title: str
    better: Literal["", "higher", "lower"] = ""
    align: Literal["left", "right"] = "right"
    explained: str = ""
    narrow: bool = True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """A table with the sentences below it.

    Attributes:
        name: of its files, without suffix: letters, digits, underscores; unique in a chapter, among
            figures too.
        title: above it.
        columns: one a cell of every row.
        rows: in the order in which they are printed.
        notes: what the numbers are: definitions, the rule for empty masks, tests and their family.
        data: the same numbers unrounded, for the CSV.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...]
    data: pd.DataFrame

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedFigure:
    """One figure of the report.

    Attributes:
        name: of its files, without suffix.
        title: heading on the page.
        caption: what is drawn, with the machine, the rule or the interval.
        files: what was written, the picture of the page first (SVG or PNG), the CSV of what it
            shows last; empty when it was not drawn.
        refusal: why it was not drawn, or "".
    """

    name: str
    title: str
    caption: str
    files: tuple[Path, ...]
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a chapter, under one heading.

    Attributes:
        name: its anchor; that of the study whose question it answers, where there is one.
        title: the heading.
        paragraphs: plain text before the tables: what is shown, and what is not.
        answer: what came out, in sentences, printed after the paragraphs; where the section is that
            of the study's own question, the chapter begins with it.
        tables: in order.
        pairs: (what, value) lines, after the tables.
        figures: in order.
    """

    name: str
    title: str
    paragraphs: tuple[str, ...] = ()
    answer: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    figures: tuple[SavedFigure, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """One study on one data set, or what several of them say together.

    Attributes:
        name: its anchor and the folder of its files; "" where the report has a single chapter.
        title: the heading.
        question: of the study, or "".
        loud: what is missing or wrong; shown before anything else.
        verdict: the answer in a few sentences.
        limits: what this does not show.
        sections: in order.
    """

    name: str
    title: str
    question: str
    loud: tuple[str, ...]
    verdict: tuple[str, ...]
    limits: tuple[str, ...]
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A whole report.

    Attributes:
        title: of the page.
        chapters: at least one.
    """

    title: str
    chapters: tuple[Chapter, ...]

    def __post_init__(self) -> None:
        assert self.chapters
