import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from make_study import make_manifest, make_study

from reports import Report, build
from unetpp.errors import UserError


class _Page(HTMLParser):
    """Tags with their attributes, and the text of all of them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def page(report: Report) -> _Page:
    return _Page(report.page.read_text())


def test_all_promised_files_are_there(folder: Path, report: Report) -> None:
    assert report.page == folder / "report" / "index.html"
    assert [path.name for path in report.tables] == [
        "table.txt", "table.md", "table.csv", "table.tex", "heads.md", "heads.csv",
    ]  # fmt: skip
    for path in (report.page, *report.tables, *report.figures):
        assert path.is_file()
    assert report.text == report.tables[0].read_text()


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    make_study(tmp_path)
    paths = [path for path in _files(build(tmp_path))]
    first = {path: path.read_bytes() for path in paths}
    assert _files(build(tmp_path)) == paths
    assert {path: path.read_bytes() for path in paths} == first


def _files(report: Report) -> list[Path]:
    return [report.page, *report.tables, *report.figures]


def test_the_page_needs_nothing_beside_it(page: _Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object"}
        if source := attributes.get("src"):
            assert source.startswith("data:image/")
        if link := attributes.get("href"):
            assert ":" not in link
    style = "".join(page.words)
    assert not re.search(r"https?://|@import|url\(", style)
    assert sum(tag == "img" for tag, _ in page.tags) == 4


def test_the_page_opens_on_a_phone_and_reads_aloud(page: _Page) -> None:
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in (
        page.tags
    )
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")


def test_the_page_holds_answer_data_methods_and_provenance(page: _Page, report: Report) -> None:
    text = " ".join("".join(page.words).split())
    for sentence in report.verdict:
        assert sentence in text
    for part in (
        "Do nested, dense skips segment better than the plain U-Net?",
        "Circles whose scores were drawn from a generator.",
        "5, held-out cases 9, 8, 8, 8, 8",
        "41 in 41 groups",
        "The weights of the last epoch were scored",
        "unetpp run nested_vs_plain --data example",
        "did not finish",
        "2026-01-01T01:00:00+00:00",
        "torch 2.9.0",
        "Example CPU, 2 cores, 8 GiB",
        "abc123",
        "d" * 64,
        "0.52 hours in total",
        "figures/paired_differences.csv",
        "Cases are chosen by a rule",
    ):
        assert part in text


def test_markup_in_a_record_is_inert(tmp_path: Path) -> None:
    manifest = make_manifest(arms=("unet", "unetpp"))
    attack = '<script>alert("x")</script>'
    hostile = make_manifest(
        arms=("unet", "unetpp"),
        question=attack,
        dataset={**manifest.dataset, "name": attack, "description": f"'\"><img src=x {attack}"},
    )
    make_study(tmp_path, manifest=hostile, overlays=False)
    text = build(tmp_path).page.read_text()
    assert "&lt;script&gt;alert" in text
    assert not [tag for tag, _ in _Page(text).tags if tag == "script"]
    assert attack not in text


def test_an_interrupted_study_says_so_everywhere(tmp_path: Path) -> None:
    make_study(tmp_path, missing=frozenset({("unetpp", 4)}), latencies=False, overlays=False)
    report = build(tmp_path)
    assert report.verdict[0].startswith("incomplete: 1 of 30 runs are missing: UNet++ fold 4.")
    texts = {p.suffix: " ".join(p.read_text().split()) for p in report.tables if p.stem == "table"}
    for suffix in (".txt", ".md", ".tex"):
        assert "ncomplete: 1 of 30 runs are missing" in texts[suffix]
    page = report.page.read_text()
    assert 'role="alert">incomplete: 1 of 30 runs' in page
    assert "Nothing was recorded for this figure." in page


@pytest.mark.parametrize("keep", [("unet", 0), ("unetpp", 2)])
def test_a_single_finished_run_still_gives_a_report(tmp_path: Path, keep: tuple[str, int]) -> None:
    manifest = make_manifest(arms=("unet", "unetpp"))
    pairs = {(arm.name, fold) for arm in manifest.arms for fold in range(5)}
    make_study(
        tmp_path, manifest=manifest, missing=frozenset(pairs - {keep}), latencies=False,
        overlays=False,
    )  # fmt: skip
    report = build(tmp_path)
    assert "n/a" in report.text
    assert "significant" not in report.page.read_text()


def test_nothing_of_an_earlier_report_stays(tmp_path: Path) -> None:
    make_study(tmp_path, manifest=make_manifest(arms=("unet", "unetpp")), overlays=False)
    stale = tmp_path / "report" / "heads.csv"
    stale.parent.mkdir()
    stale.write_text("of an earlier report")
    assert stale not in build(tmp_path).tables
    assert not stale.exists()


def test_the_wrong_folder_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds `records\.sqlite`"):
        build(tmp_path)
    assert list(tmp_path.iterdir()) == []
