"""The page in a real browser; left out, with the reason, where there is none."""

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from make_document import ARMS, HOSTILE, make_document

from reports.html import render

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, Playwright

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(_CHROMIUM is None, reason="no Chromium is installed"),
]

_OPTIONS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with sync_api.sync_playwright() as playwright:
        found = _launched(playwright)
        yield found
        found.close()


def _launched(playwright: "Playwright") -> "Browser":
    return playwright.chromium.launch(executable_path=_CHROMIUM, args=list(_OPTIONS))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page")
    path = folder / "index.html"
    path.write_text(render(make_document(folder), folder), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def page(browser: "Browser", address: str) -> Iterator["Page"]:
    """An open page; whatever it asks the network for, or complains of, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("dialog", lambda dialog: said.append(dialog.message))
    opened.goto(address)
    yield opened
    assert [url for url in asked if not url.startswith("data:")] == [address]
    assert said == []
    context.close()


def _table(page: "Page") -> list[list[str]]:
    return page.evaluate(
        "[...document.querySelector('#c0-result table').tBodies[0].rows]"
        ".map((row) => [...row.cells].map((cell) => cell.innerText))"
    )


def _lay_out_all(page: "Page") -> None:
    """Lays out what is far away too: else it has no text, and nothing of it sticks out."""
    page.evaluate(
        "for (const part of document.querySelectorAll('.part'))"
        " part.style.contentVisibility = 'visible'"
    )


def _width(picture: "Locator") -> float:
    return picture.evaluate("(image) => image.getBoundingClientRect().width")


def _left(picture: "Locator") -> float:
    return picture.evaluate("(image) => image.getBoundingClientRect().left")


def _head(page: "Page", title: str) -> Any:
    return page.locator(f"#c0-result th[data-title='{title}'] button")


def test_a_click_sorts_by_number_a_second_turns_a_third_restores(page: "Page") -> None:
    original = _table(page)
    assert [row[0] for row in original] == list(ARMS)
    scores = page.evaluate(
        "[...document.querySelectorAll('#c0-result tbody tr')].map((r) => r.cells[4].dataset.value)"
    )
    head = _head(page, "Dice")
    head.click()
    known = sorted((float(s), arm) for s, arm in zip(scores, ARMS, strict=True) if s)
    missing = [arm for s, arm in zip(scores, ARMS, strict=True) if not s]
    assert missing
    assert [row[0] for row in _table(page)] == [*(arm for _, arm in known), *missing]
    assert page.locator("th[aria-sort=ascending]").count() == 1
    assert "sorted by Dice, ascending" in page.locator("#status").inner_text()
    head.click()
    assert [row[0] for row in _table(page)] == [*(arm for _, arm in known[::-1]), *missing]
    assert head.locator("..").get_attribute("aria-sort") == "descending"
    head.click()
    assert _table(page) == original
    assert page.locator("th[aria-sort]").count() == 0


def test_the_keyboard_sorts_and_equal_rows_keep_their_order(page: "Page") -> None:
    head = _head(page, "DS")
    head.focus()
    page.keyboard.press("Enter")
    assert [row[0] for row in _table(page)] == [*ARMS[::2], *ARMS[1::2]]
    page.keyboard.press("Space")
    assert [row[0] for row in _table(page)] == [*ARMS[1::2], *ARMS[::2]]


def test_numbers_are_sorted_as_numbers_and_texts_stay_behind_them(page: "Page") -> None:
    _head(page, "Params").click()
    _head(page, "Params").click()
    assert _table(page)[0][2] == "13.04 M"
    _head(page, "Delta Dice [95 %]").click()
    last = [row[6] for row in _table(page)[-2:]]
    assert last == ["baseline", "n/a"]


def test_a_figure_opens_zooms_moves_and_gives_the_focus_back(page: "Page") -> None:
    opener = page.locator(".picture button").first
    opener.focus()
    page.keyboard.press("Enter")
    dialog, picture = page.locator("dialog"), page.locator("dialog img")
    picture.wait_for()
    assert dialog.get_attribute("open") is not None
    assert picture.get_attribute("alt")
    page.wait_for_function("document.querySelector('dialog img').style.width !== ''")
    fitted = _width(picture)
    page.keyboard.press("+")
    assert _width(picture) == pytest.approx(1.5 * fitted, rel=0.01)
    page.locator("dialog [data-zoom=in]").click()
    assert _width(picture) == pytest.approx(2.25 * fitted, rel=0.01)
    before = _left(picture)
    page.mouse.move(600, 500)
    page.mouse.down()
    page.mouse.move(500, 460, steps=4)
    page.mouse.up()
    assert _left(picture) == pytest.approx(before - 100, abs=3)
    page.keyboard.press("-")
    page.keyboard.press("0")
    assert _width(picture) == pytest.approx(fitted, rel=0.01)
    page.mouse.wheel(0, -100)
    page.wait_for_function(f"document.querySelector('dialog img').offsetWidth > {fitted * 1.1}")
    page.keyboard.press("Escape")
    page.wait_for_function("!document.querySelector('dialog').open")
    page.wait_for_function("document.activeElement === document.querySelector('.picture button')")


def test_the_first_key_skips_to_the_report(page: "Page") -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"


def test_tab_reaches_everything_in_the_order_of_the_page(page: "Page") -> None:
    order = page.evaluate(
        "[...document.querySelectorAll('a, button, summary, [tabindex]')]"
        ".filter((e) => e.tabIndex > 0).length"
    )
    assert order == 0
    seen: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.innerText.trim().slice(0, 30)"))
        shown = page.evaluate(
            "getComputedStyle(document.activeElement).outlineStyle !== 'none'"
            " || document.activeElement === document.body"
        )
        assert shown
    assert [seen.index(word) for word in ("Dark colours", "Result", "CSV")] == sorted(
        seen.index(word) for word in ("Dark colours", "Result", "CSV")
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_until_the_reader_chooses(
    browser: "Browser", address: str, scheme: str
) -> None:
    context = browser.new_context(color_scheme=scheme)  # pyright: ignore[reportArgumentType]
    page = context.new_page()
    page.goto(address)
    papers = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}
    other = "light" if scheme == "dark" else "dark"
    paper = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(paper) == papers[scheme]
    page.locator("#theme").focus()
    page.keyboard.press("Space")
    assert page.evaluate(paper) == papers[other]
    assert page.locator("#theme").get_attribute("aria-pressed") == str(other == "dark").lower()
    figure = "getComputedStyle(document.querySelector('.picture')).backgroundColor"
    assert page.evaluate(figure) == papers["light"]
    page.reload()
    assert page.evaluate(paper) == papers[other]
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 31, 36)"
    context.close()


@pytest.mark.parametrize("width", [360, 800, 1280])
def test_nothing_sticks_out_of_the_window(page: "Page", width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    _lay_out_all(page)
    page.wait_for_function(
        f"document.querySelector('.contents details').open === {str(width >= 1024).lower()}"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_link_of_the_contents_leads_to_its_place(page: "Page") -> None:
    page.locator(".contents a[href='#c2']").click()
    page.locator(".contents a[href='#c2-provenance']").click()
    page.wait_for_function(
        "Math.abs(document.getElementById('c2-provenance').getBoundingClientRect().top) < 850"
    )
    assert page.locator("#c2-provenance").is_visible()


def test_names_are_shown_and_never_run(page: "Page") -> None:
    _lay_out_all(page)
    shown = page.locator("#c1-result tbody th").all_inner_texts()
    assert shown[:3] == [HOSTILE[0], HOSTILE[1], HOSTILE[2]]
    assert page.locator("main script, main style, main iframe").count() == 0


def test_what_got_in_all_the_same_would_not_run(
    browser: "Browser", address: str, tmp_path: Path
) -> None:
    attack = (
        "<script>window.ran = 1</script><img src=x onerror='window.ran = 2'>"
        "<p id='styled' style='color: red'>x</p><img src='http://example.org/x.png'>"
        "<form action='http://example.org'><button>x</button></form>"
    )
    text = Path(address.removeprefix("file://")).read_text()
    (tmp_path / "index.html").write_text(text.replace("</main>", f"{attack}</main>"))
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto((tmp_path / "index.html").as_uri())
    assert page.evaluate("window.ran") is None
    color = page.locator("#styled").evaluate("(e) => getComputedStyle(e).color")
    assert color != "rgb(255, 0, 0)"
    # Last: playwright waits for the page that this would have led to.
    page.evaluate("document.querySelector('form').requestSubmit()")
    words = ("inline script", "inline event handler", "inline style", "image", "form data")
    deadline = time.monotonic() + 60
    while missing := [word for word in words if word not in "\n".join(said).lower()]:
        assert time.monotonic() < deadline, (missing, said)
        page.wait_for_timeout(20)
    page.close()


def test_the_numbers_of_a_figure_are_downloaded(page: "Page") -> None:
    with page.expect_download() as found:
        page.locator("#c0-curves a[download='curves.csv']").click()
    assert found.value.suggested_filename == "curves.csv"
    path = found.value.path()
    assert path.read_text().startswith("epoch,loss\n0,1.0\n")


def test_it_prints_as_pages_without_what_only_a_screen_needs(page: "Page", tmp_path: Path) -> None:
    page.emulate_media(media="print")
    for part in (".contents", ".skip", "#c0-curves .inside", "#theme", ".table .fetch"):
        assert not page.locator(part).first.is_visible()
    # A4 without margins of 16 mm, in CSS pixels.
    width = round((210 - 32) / 25.4 * 96)
    page.set_viewport_size({"width": width, "height": 1000})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    path = tmp_path / "page.pdf"
    page.pdf(path=path, prefer_css_page_size=True)
    content = path.read_bytes()
    assert len(re.findall(rb"/Type\s*/Page\b", content)) >= 4
    assert re.search(rb"/MediaBox\s*\[0 0 59[45](\.\d+)? 84[12]", content)


def test_all_can_be_read_without_the_script(browser: "Browser", address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.locator("#c0-result table").is_visible()
    assert page.locator("#c0-result thead button").count() == 0
    assert page.locator(".contents a").first.is_visible()
    assert not page.locator("#theme").is_visible()
    assert page.locator("#c0-curves img").evaluate("(image) => image.naturalWidth") > 100
    context.close()


def test_assistive_technology_finds_names_for_everything(page: "Page") -> None:
    _lay_out_all(page)
    tree = page.locator("body").aria_snapshot()
    for part in (
        'navigation "Contents"',
        "main",
        'table "Dice and price of every arm"',
        'columnheader "Dice higher is better"',
        'rowheader "UNet++ DS"',
        'figure "Learning curves. Loss of the training cases, mean over folds; the band is the range."',
        'img "Learning curves. Described below; its numbers are in curves.csv."',
        'group "Answer"',
        'note "Missing or wrong"',
    ):
        assert part in tree, tree
    assert not re.findall(
        r"- (?:link|button|img|table|navigation|heading)(?: \[.*)?:?$", tree, re.MULTILINE
    )
