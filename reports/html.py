"""A document as one page that needs nothing beside it: styles, script, pictures, data are inside.

The page asks the network for nothing and could not: its policy allows pictures from `data:` and
the one style sheet and the one script whose hashes it names.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from reports.document import Cell, Chapter, Document, SavedFigure, Section, Table
from reports.escaping import plain
from reports.writers import MARKS, MEANINGS, csv, latex, legend, markdown, printed_width

_FOLDER = Path(__file__).parent
_TYPES = {
    ".svg": "image/svg+xml", ".png": "image/png", ".csv": "text/csv;charset=utf-8",
    ".tex": "text/x-tex;charset=utf-8", ".md": "text/markdown;charset=utf-8",
}  # fmt: skip
# Above this a file is not put into the page as well.
MOST_EMBEDDED = 300_000
# CSS pixels of an inch, and how much larger than printed a vector drawing stands on the page.
_POINT, _ENLARGED = 96 / 72, 1.35
# A table of more characters in a row gets smaller type, its spreads below their numbers, and a
# scroll bar that the keyboard reaches.
_WIDE = 115


@dataclass(frozen=True, slots=True, kw_only=True)
class _Link:
    """A file to fetch: `inside` the page, or beside it."""

    name: str
    kind: str
    address: Markup | str
    inside: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Picture:
    """A figure with what its `<img>` needs; the address is "" where none was drawn."""

    figure: SavedFigure
    address: Markup
    width: int
    height: int
    data: tuple[_Link, ...]
    pictures: tuple[_Link, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _TableView:
    """A table with its legend and its files."""

    table: Table
    anchor: str
    notes: tuple[str, ...]
    many: bool
    files: tuple[_Link, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A section with its anchor."""

    anchor: str
    section: Section
    tables: tuple[_TableView, ...]
    figures: tuple[_Picture, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _ChapterView:
    """A chapter with its anchor."""

    anchor: str
    chapter: Chapter
    parts: tuple[_Part, ...]


def page_environment(folder: Path) -> jinja2.Environment:
    """What pages are rendered with: templates of `folder`, and `base.css`, which all include."""
    # Everything from a record or a file is untrusted text: autoescape makes it inert.
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _FOLDER]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _finalized(value: object) -> object:
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def render(document: Document, folder: Path) -> str:
    """The whole page as text; the same document and files give the same text.

    Args:
        document: what is printed; the files of its figures must exist.
        folder: in which the page will lie; links to files are relative to it.
    """
    style = "\n".join((_FOLDER / name).read_text("utf-8") for name in ("base.css", "page.css"))
    script = (_FOLDER / "page.js").read_text("utf-8")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    template = page_environment(_FOLDER).get_template("page.html.jinja")
    return template.render(
        document=document,
        chapters=_chapters(document, folder),
        titled=[chapter.title for chapter in document.chapters] != [document.title],
        policy=Markup(policy),
        style=Markup(style),
        script=Markup(script),
        marks=MARKS,
        meanings=MEANINGS,
        sort_value=_sort_value,
    )


def data_uri(figure: SavedFigure) -> str:
    """The picture itself, to stand in a page; "" where none was drawn."""
    if not figure.files:
        return ""
    path = figure.files[0]
    return _embedded(path.suffix, path.read_bytes())


def _embedded(suffix: str, content: bytes) -> Markup:
    # Letters of base64 need no escaping, which would take long for megabytes.
    return Markup(f"data:{_TYPES[suffix]};base64,{base64.b64encode(content).decode('ascii')}")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


def _chapters(document: Document, folder: Path) -> tuple[_ChapterView, ...]:
    taken: set[str] = {"content", "status", "theme", "lightbox", "lightbox-title", "top"}
    views: list[_ChapterView] = []
    for chapter in document.chapters:
        anchor = _anchor(chapter.name or "report", taken)
        start = [chapter.name] if chapter.name else []
        parts: list[_Part] = []
        for section in chapter.sections:
            name = _anchor("-".join((*start, section.name)), taken)
            tables = tuple(
                _table_view(table, _anchor(f"{name}-{table.name}", taken), chapter)
                for table in section.tables
            )
            figures = tuple(_picture(figure, folder) for figure in section.figures)
            parts.append(_Part(anchor=name, section=section, tables=tables, figures=figures))
        views.append(_ChapterView(anchor=anchor, chapter=chapter, parts=tuple(parts)))
    return tuple(views)


def _anchor(name: str, taken: set[str]) -> str:
    """A name for a place in the page that no other place has; `taken` gets it."""
    base = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-") or "part"
    # Two names that differ in other letters only get numbers; "-title" belongs to headings.
    found, number = base, 1
    while found in taken or f"{found}-title" in taken:
        number += 1
        found = f"{base}-{number}"
    taken |= {found, f"{found}-title"}
    return found


def _table_view(table: Table, anchor: str, chapter: Chapter) -> _TableView:
    texts = (
        ("CSV", ".csv", csv(table)),
        ("LaTeX", ".tex", latex(table, label=f"{chapter.name}-{table.name}")),
        ("Markdown", ".md", markdown(table)),
    )
    return _TableView(
        table=table,
        anchor=anchor,
        notes=(*legend(table), *table.notes),
        many=printed_width(table) > _WIDE,
        files=tuple(
            _Link(
                name=f"{table.name}{suffix}",
                kind=kind,
                address=_embedded(suffix, text.encode()),
                inside=True,
            )
            for kind, suffix, text in texts
            if len(text) <= MOST_EMBEDDED
        ),
    )


def _picture(figure: SavedFigure, folder: Path) -> _Picture:
    if not figure.files:
        return _Picture(figure=figure, address=Markup(""), width=0, height=0, data=(), pictures=())
    content = figure.files[0].read_bytes()
    width, height = _size(figure.files[0].suffix, content)
    tables = [path for path in figure.files if path.suffix == ".csv"]
    return _Picture(
        figure=figure,
        address=_embedded(figure.files[0].suffix, content),
        width=width,
        height=height,
        data=tuple(link for path in tables for link in _data_links(path, folder)),
        pictures=tuple(_beside(path, folder) for path in figure.files if path not in tables),
    )


def _data_links(path: Path, folder: Path) -> Sequence[_Link]:
    beside, content = _beside(path, folder), path.read_bytes()
    if len(content) > MOST_EMBEDDED:
        return [beside]
    address = _embedded(path.suffix, content)
    return [beside, _Link(name=path.name, kind="CSV", address=address, inside=True)]


def _beside(path: Path, folder: Path) -> _Link:
    relative = Path(os.path.relpath(path, folder)).as_posix()
    kind = path.suffix.removeprefix(".").upper()
    # "./" keeps a name with a colon from being read as a protocol.
    return _Link(name=path.name, kind=kind, address=f"./{quote(relative)}", inside=False)


def _size(suffix: str, content: bytes) -> tuple[int, int]:
    """Width and height on the page in CSS pixels, before it is fitted to the column."""
    if suffix == ".png":
        width, height = struct.unpack(">II", content[16:24])
        return width, height
    head = content[:2000].decode("utf-8", errors="replace")
    points = [re.search(rf'<svg[^>]*?\b{side}="([\d.]+)pt"', head) for side in ("width", "height")]
    width, height = (float(found[1]) if found else 360.0 for found in points)
    return round(width * _POINT * _ENLARGED), round(height * _POINT * _ENLARGED)


def _sort_value(cell: Cell) -> str | None:
    """What the script sorts by: a number, "" for a missing one, None for the text of the cell."""
    if cell.value is None:
        return None
    if math.isnan(cell.value):
        return ""
    return repr(float(cell.value)).replace("inf", "Infinity")
