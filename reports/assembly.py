"""From the studies in a folder to all files of their report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from reports import Report
from reports.chapter import study_chapter
from reports.document import Chapter, Document, Table
from reports.html import render
from reports.markdown_report import document_markdown
from reports.overview import overview_chapter
from reports.sources import Sources, load_sources, report_folder
from reports.writers import table_files, terminal
from unetpp.metrics.overlap import EmptyPolicy

_FIGURES = "figures"
_LIST = "files.txt"
# Of the list, in bytes: of tens of thousands of files.
_MOST_LISTED = 2**22


def build_report(
    folder: Path, *, shown: str | None, empty: EmptyPolicy, store: str | None
) -> Report:
    """See `reports.build`."""
    sources = load_sources(folder, empty=empty, store=store)
    target = report_folder(folder)
    _remove_earlier(target)
    document = _document(sources, target)
    texts = {**table_files(document), "report.md": document_markdown(document, target)}
    for name, text in texts.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    page = target / "index.html"
    page.write_text(render(document, target), encoding="utf-8", newline="\n")
    pictures = _pictures(document)
    written = [page, *(target / name for name in texts), *pictures]
    _list_files(target, written)
    first = _leading(document, sources, shown)
    return Report(
        page=page,
        tables=tuple(target / name for name in texts),
        figures=pictures,
        verdict=(*first.loud, *first.verdict),
        text=_leading_text(first),
    )


def _leading(document: Document, sources: Sources, shown: str | None) -> Chapter:
    """The chapter of the study that is shown, else the first."""
    names = [source.name for source in sources.found if source.study.manifest.study == shown]
    # With several data sets the overview speaks for all.
    if len(names) != 1 or len(sources.found) == 1:
        return document.chapters[0]
    return next(chapter for chapter in document.chapters if chapter.name == names[0])


def _document(sources: Sources, target: Path) -> Document:
    """All chapters, their figures drawn."""
    several = len(sources.found) > 1
    chapters: list[Chapter] = []
    for source in sources.found:
        name = source.name if several else ""
        figures = _made(target / name / _FIGURES)
        chapters.append(study_chapter(source.study, name=name, data=source.data, folder=figures))
    if several:
        answers = {chapter.name: chapter.verdict[0] for chapter in chapters if chapter.verdict}
        figures = _made(target / "overview" / _FIGURES)
        chapters.insert(0, overview_chapter(sources, figures, answers=answers))
    title = "Report of several studies" if several else chapters[0].title
    return Document(title=title, chapters=tuple(chapters))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _list_files(target: Path, written: Sequence[Path]) -> None:
    """Note what was written, so that the next report can take it away and nothing else."""
    names = sorted(path.relative_to(target).as_posix() for path in written)
    (target / _LIST).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def _remove_earlier(target: Path) -> None:
    """Take away the files of an earlier report; what somebody else put there stays."""
    listed = target / _LIST
    if not listed.is_file():
        return
    inside = target.resolve()
    with listed.open("rb") as file:
        names = file.read(_MOST_LISTED).splitlines()
    for name in names:
        path = _file_inside(inside, name)
        if path is not None:
            path.unlink()
            if path.parent != inside and not any(path.parent.iterdir()):
                path.parent.rmdir()
    listed.unlink(missing_ok=True)


def _file_inside(folder: Path, name: bytes) -> Path | None:
    """The file of that name, where it is one and in the folder, whoever wrote the name."""
    try:
        path = (folder / os.fsdecode(name)).resolve()
        return path if path.is_relative_to(folder) and path.is_file() else None
    except (OSError, ValueError):
        return None


def _pictures(document: Document) -> tuple[Path, ...]:
    return tuple(
        path
        for chapter in document.chapters
        for section in chapter.sections
        for figure in section.figures
        for path in figure.files
    )


def _leading_text(chapter: Chapter) -> str:
    """The first table of the chapter, for a terminal."""
    tables: list[Table] = [table for section in chapter.sections for table in section.tables]
    return terminal(tables[0]) if tables else ""
