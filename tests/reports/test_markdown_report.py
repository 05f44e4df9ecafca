"""The report as one Markdown file: what it holds, in which order, and that names are inert."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from make_document import ARMS, HOSTILE, make_table

from reports.document import Chapter, Document, SavedFigure, Section
from reports.escaping import escape_markdown, plain
from reports.markdown_report import document_markdown
from reports.writers import markdown


def _figure(folder: Path, name: str = "curves", **changes: str) -> SavedFigure:
    fields = {"name": name, "title": "Learning curves", "caption": "Loss of the training cases."}
    files = tuple(folder / "figures" / f"{name}{suffix}" for suffix in (".svg", ".pdf", ".csv"))
    return SavedFigure(**(fields | changes), files=files)


def _chapter(title: str = "Nested on cells", **changes: object) -> Chapter:
    fields = {
        "name": "", "title": title, "question": "Does it help?", "loud": ("Incomplete: 1 of 2.",),
        "verdict": ("It does.", "It costs."), "limits": ("One data set.",), "sections": (),
    }  # fmt: skip
    return Chapter(**(fields | changes))  # pyright: ignore[reportArgumentType]


def _printed(folder: Path, *chapters: Chapter, title: str = "Nested on cells") -> str:
    return document_markdown(Document(title=title, chapters=chapters), folder)


def test_a_chapter_is_this_text(tmp_path: Path) -> None:
    section = Section(
        name="s", title="Result", paragraphs=("First.", "Second."), pairs=(("Command", "run it"),),
        figures=(_figure(tmp_path),),
    )  # fmt: skip
    assert _printed(tmp_path, _chapter(sections=(section,))) == (
        "# Nested on cells\n\n"
        "*Does it help?*\n\n"
        "**Incomplete: 1 of 2.**\n\n"
        "- It does.\n- It costs.\n\n"
        "What this does not show:\n\n"
        "- One data set.\n\n"
        "### Result\n\n"
        "First.\n\nSecond.\n\n"
        "- Command: run it\n\n"
        "![Learning curves](figures/curves.svg)\n\n"
        "*Loss of the training cases.*\n"
    )


def test_a_table_is_the_one_of_its_own_file(tmp_path: Path) -> None:
    table = make_table(ARMS)
    text = _printed(tmp_path, _chapter(sections=(Section(name="s", title="S", tables=(table,)),)))
    assert f"\n\n{markdown(table)}" in text


def test_chapters_have_headings_where_there_are_several(tmp_path: Path) -> None:
    text = _printed(tmp_path, _chapter("One"), _chapter("Two"), title="Both")
    assert re.findall(r"^#+ .*$", text, re.MULTILINE) == ["# Both", "## One", "## Two"]


def test_what_a_chapter_lacks_leaves_nothing_behind(tmp_path: Path) -> None:
    empty = _chapter(question="", loud=(), verdict=(), limits=())
    assert _printed(tmp_path, empty) == "# Nested on cells\n"


def test_a_figure_that_was_not_drawn_leaves_its_reason(tmp_path: Path) -> None:
    refused = SavedFigure(
        name="x", title="Latency", caption="", files=(), refusal="Not drawn: two machines."
    )
    text = _printed(
        tmp_path, _chapter(sections=(Section(name="s", title="S", figures=(refused,)),))
    )
    assert text.endswith("### S\n\nLatency: Not drawn: two machines.\n")


@pytest.mark.parametrize("name", ["a b", "100%", "a)b", "a#b?c", "ß"])
def test_links_to_pictures_lead_to_them(tmp_path: Path, name: str) -> None:
    section = Section(name="s", title="S", figures=(_figure(tmp_path, name),))
    text = _printed(tmp_path, _chapter(sections=(section,)))
    (link,) = re.findall(r"^!\[[^]]*\]\((\S+)\)$", text, re.MULTILINE)
    assert unquote(link) == f"figures/{name}.svg"
    assert re.fullmatch(r"[A-Za-z0-9/._~%-]+", link)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_wherever_they_stand(tmp_path: Path, name: str) -> None:
    section = Section(
        name="s", title=name, paragraphs=(name,), pairs=((name, name),),
        figures=(_figure(tmp_path, title=name, caption=name),),
    )  # fmt: skip
    chapter = _chapter(
        title=name,
        question=name,
        loud=(name,),
        verdict=(name,),
        limits=(name,),
        sections=(section,),
    )
    text = _printed(tmp_path, chapter, title="Report")
    assert text.count(escape_markdown(name)) == 11
    # No line is broken, and nothing is hidden from the eye.
    own = text.replace(escape_markdown(name), "")
    for letter in "<`$|\x1b\u202e\u200b":
        assert letter not in own
    assert "\x1b" not in text
    assert plain(text.replace("\n", " ")) == text.replace("\n", " ")
