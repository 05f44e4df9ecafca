"""A document as one Markdown file, its pictures beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from reports.document import Chapter, Document, SavedFigure, Section
from reports.escaping import escape_markdown
from reports.writers import markdown


def document_markdown(document: Document, folder: Path) -> str:
    """The whole report as text.

    Args:
        document: what is printed.
        folder: in which the file will lie; links to pictures are relative to it.
    """
    blocks = [f"# {escape_markdown(document.title)}"]
    for chapter in document.chapters:
        blocks += _chapter(chapter, folder, titled=chapter.title != document.title)
    return "\n\n".join(blocks) + "\n"


def _chapter(chapter: Chapter, folder: Path, *, titled: bool) -> Iterator[str]:
    if titled:
        yield f"## {escape_markdown(chapter.title)}"
    if chapter.question:
        yield f"*{escape_markdown(chapter.question)}*"
    for sentence in chapter.loud:
        yield f"**{escape_markdown(sentence)}**"
    if chapter.verdict:
        yield _listed(chapter.verdict)
    if chapter.limits:
        yield "What this does not show:"
        yield _listed(chapter.limits)
    for section in chapter.sections:
        yield from _section(section, folder)


def _section(section: Section, folder: Path) -> Iterator[str]:
    yield f"### {escape_markdown(section.title)}"
    yield from map(escape_markdown, (*section.paragraphs, *section.answer))
    yield from (markdown(table).rstrip("\n") for table in section.tables)
    if section.pairs:
        yield "\n".join(
            f"- {escape_markdown(what)}: {escape_markdown(value)}" for what, value in section.pairs
        )
    for figure in section.figures:
        yield from _figure(figure, folder)


def _figure(figure: SavedFigure, folder: Path) -> Iterator[str]:
    if not figure.files:
        yield escape_markdown(f"{figure.title}: {figure.refusal}")
        return
    path = quote(figure.files[0].relative_to(folder).as_posix())
    yield f"![{escape_markdown(figure.title)}]({path})"
    yield f"*{escape_markdown(figure.caption)}*"


def _listed(sentences: tuple[str, ...]) -> str:
    return "\n".join(f"- {escape_markdown(sentence)}" for sentence in sentences)
