import base64
import hashlib
import itertools
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from make_document import ARMS, HOSTILE, make_document, make_table, save_curves
from read_page import Page

import reports
from reports.document import Document, Section
from reports.html import MOST_EMBEDDED, render
from reports.writers import csv


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("document")


@pytest.fixture(scope="module")
def document(folder: Path) -> Document:
    return make_document(folder)


@pytest.fixture(scope="module")
def text(document: Document, folder: Path) -> str:
    return render(document, folder)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_everything_of_a_document_is_on_the_page(page: Page, document: Document) -> None:
    shown = " ".join("".join(page.words).split())
    for chapter in document.chapters:
        assert "What this does not show" in shown
        for line in (chapter.title, chapter.question, *chapter.loud, *chapter.verdict):
            assert line in shown
        for section in chapter.sections:
            assert all(line in shown for line in (section.title, *section.paragraphs))
            assert all(what in shown for what, _ in section.pairs)
            for figure in section.figures:
                assert (figure.caption or figure.refusal) in shown


def test_the_page_needs_nothing_beside_it(page: Page, text: str) -> None:
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "object", "base", "embed"}
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        if source := attributes.get("src"):
            assert source.startswith("data:image/")
        if link := attributes.get("href"):
            assert link.startswith(("#", "./", "data:text/"))
    assert not re.search(r"@import|url\(", text)


def test_the_policy_allows_one_style_and_one_script_by_their_hashes(text: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy[1]
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]


def test_names_are_text_on_the_page(page: Page, text: str) -> None:
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert len(page.all("img")) == 3
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u200b\u202a-\u202e\u2066-\u2069\ufeff]", text)
    shown = "".join(page.words)
    for name in HOSTILE[:6]:
        assert name in shown


def test_pictures_tables_and_headings_can_be_read_aloud(page: Page) -> None:
    assert all(attributes.get("alt") for attributes in page.all("img"))
    assert all(attributes.get("scope") in {"col", "row"} for attributes in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table")) == 6
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    for landmark in ("nav", "main", "header"):
        assert len(page.all(landmark)) == 1
    assert ("html", {"lang": "en"}) in page.tags


def test_every_link_into_the_page_has_its_place(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    targets = [link for a in page.all("a") if (link := a["href"]) and link.startswith("#")]
    assert len(targets) > 12
    assert {target[1:] for target in targets} <= set(ids)
    for _, attributes in page.tags:
        assert (attributes.get("aria-labelledby") or "top") in ids


def test_equal_names_of_sections_get_places_of_their_own(folder: Path, document: Document) -> None:
    first = document.chapters[0]
    same = tuple(replace(s, name="a b", tables=(), figures=()) for s in first.sections)
    page = Page(render(replace(document, chapters=(replace(first, sections=same),)), folder))
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert {"c0-a-b", "c0-a-b-2", "c0-a-b-3", "c0-a-b-4"} <= set(ids)


def test_the_numbers_of_a_figure_are_one_click_away(page: Page, document: Document) -> None:
    figure = document.chapters[0].sections[2].figures[0]
    links = {a["href"] for a in page.all("a")}
    assert {f"./c0/curves{suffix}" for suffix in (".csv", ".svg", ".pdf", ".png")} <= links
    inside = next(a["href"] for a in page.all("a") if a.get("download") == "curves.csv")
    assert inside is not None
    assert base64.b64decode(inside.partition(",")[2]) == figure.files[-1].read_bytes()


def test_large_numbers_are_linked_and_not_put_inside(tmp_path: Path) -> None:
    figure = save_curves(tmp_path)
    figure.files[-1].write_text("x\n" * MOST_EMBEDDED)
    document = make_document(tmp_path, num_chapters=1)
    section = Section(name="s", title="S", figures=(figure,))
    chapter = replace(document.chapters[0], sections=(section,))
    text = render(replace(document, chapters=(chapter,)), tmp_path)
    assert "./curves.csv" in text
    assert 'download="curves.csv"' not in text


def test_tables_can_be_saved_from_the_page(page: Page) -> None:
    saved = next(a["href"] for a in page.all("a") if a.get("download") == "result.csv")
    assert saved is not None
    assert base64.b64decode(saved.partition(",")[2]).decode() == csv(make_table(ARMS))


def test_missing_numbers_are_sorted_by_nothing(text: str) -> None:
    assert 'data-value="">n/a</td>' in text
    assert '<td class="words">yes</td>' in text


def test_a_single_chapter_of_the_title_of_the_page_has_no_heading_of_its_own(
    document: Document, folder: Path
) -> None:
    chapter = replace(document.chapters[0], name="", title=document.title)
    page = Page(render(replace(document, chapters=(chapter,)), folder))
    levels = [tag for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels == ["h1", *["h2"] * 5]


def test_the_same_document_gives_the_same_page(document: Document, folder: Path, text: str) -> None:
    assert render(document, folder) == text


def test_a_name_with_a_colon_is_a_file_and_no_protocol(tmp_path: Path) -> None:
    document = make_document(tmp_path, num_chapters=1)
    figure = save_curves(tmp_path / "javascript:alert(1) #?")
    chapter = replace(
        document.chapters[0], sections=(Section(name="s", title="S", figures=(figure,)),)
    )
    page = Page(render(replace(document, chapters=(chapter,)), tmp_path))
    assert "./javascript%3Aalert%281%29%20%23%3F/curves.svg" in {a["href"] for a in page.all("a")}


def test_a_hundred_tables_and_sixty_figures_take_less_than_two_seconds(
    document: Document, folder: Path
) -> None:
    result, _, learning, _ = document.chapters[0].sections
    chapters = tuple(
        replace(
            document.chapters[0],
            name=f"n{k}",
            sections=(
                replace(result, tables=result.tables * 5),
                replace(learning, figures=learning.figures[:1] * 3),
            ),
        )
        for k in range(20)
    )
    # Of this process alone: the machine may have other work.
    start = time.process_time()
    text = render(replace(document, chapters=chapters), folder)
    assert time.process_time() - start < 2
    assert text.count("<table") == 100
    assert text.count("<img") == 60


def _colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--(\w+):\s*(#[0-9a-f]{3,6})", block))


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2, "contrast ratio": 1 to 21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert _contrast("#000", "#ffffff") == pytest.approx(21)
    # The grey that just fails on white, of WCAG's own examples.
    assert _contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("ink", ["ink", "soft", "accent"])
@pytest.mark.parametrize("paper", ["paper", "raised", "loud"])
def test_every_text_stands_out_from_its_paper(ink: str, paper: str) -> None:
    style = (Path(reports.__file__).parent / "base.css").read_text()
    blocks = [_colours(block) for block in re.findall(r"{([^{}]*--ink:[^{}]*)}", style)]
    assert len(blocks) == 3
    assert blocks[1] == blocks[2]  # dark by the system's wish and by the reader's
    for colours in blocks:
        assert _contrast(colours[ink], colours[paper]) >= 4.5
