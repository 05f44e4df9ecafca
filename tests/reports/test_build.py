"""The whole report of one study: what is written, what it says, what it refuses."""

import re
from pathlib import Path

import pandas as pd
import pytest
from make_study import make_manifest, make_study
from PIL import Image
from read_page import Page

from reports import Report, build
from unetpp.errors import UserError


@pytest.fixture(scope="module")
def page(report: Report) -> Page:
    return Page(report.page.read_text())


def test_all_promised_files_are_there(folder: Path, report: Report) -> None:
    assert report.page == folder / "report" / "index.html"
    names = [path.name for path in report.tables]
    assert names[:4] == ["result.txt", "result.md", "result.csv", "result.tex"]
    assert names[-1] == "report.md"
    assert len(set(names)) == len(names)
    stems = {Path(name).stem for name in names[:-1]}
    assert {"heads", "savings", "new_cases", "architectures", "datasets", "checklist"} <= stems
    for path in (report.page, *report.tables, *report.figures):
        assert path.is_file()
    assert report.text == report.tables[0].read_text()


def test_every_picture_has_its_numbers_beside_it(report: Report) -> None:
    names = {path.stem for path in report.figures}
    own = {"paired_differences", "accuracy_latency", "savings", "learning_curves", "overlays"}
    assert own <= names
    for path in report.figures:
        assert path.stat().st_size > 0
        if path.suffix == ".png":
            with Image.open(path) as picture:
                # A column of 3.5 inches at 200 dots, within what its marks reach beyond.
                assert picture.width >= 600
    for name in names:
        assert {p.suffix for p in report.figures if p.stem == name} >= {".png", ".csv"}
        csv = next(p for p in report.figures if p.name == f"{name}.csv")
        assert len(pd.read_csv(csv)) > 0


def test_the_page_needs_nothing_beside_it(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "object"}
        if source := attributes.get("src"):
            assert tag == "img"
            assert source.startswith("data:image/")
    assert not re.search(r"https?://|@import|url\(", "".join(page.words))
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")


def test_the_page_holds_answer_limits_data_methods_and_provenance(
    page: Page, report: Report
) -> None:
    for sentence in report.verdict:
        assert sentence in page.text
    for part in (
        "Do nested, dense skips segment better than the plain U-Net?",
        "What this does not show",
        "Circles whose scores were drawn from a generator.",
        "The weights of the last epoch were scored",
        "unetpp run nested_vs_plain --data example",
        "did not finish",
        "2026-01-01T01:00:00+00:00",
        "torch 2.9.0",
        "Example CPU, 2 cores, 8 GiB",
        "abc123",
        "d" * 64,
        "0.52 hours in total",
        "Cases are chosen by a rule",
    ):
        assert part in page.text


def test_report_md_holds_the_answer_and_links_files_that_exist(report: Report) -> None:
    text = report.tables[-1].read_text()
    assert text.startswith("# nested\\_vs\\_plain on made up\n")
    for sentence in report.verdict:
        assert sentence.replace("<", "\\<") in text
    linked = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert set(linked) >= {"figures/paired_differences.svg", "figures/overlays.png"}
    assert all((report.page.parent / link).is_file() for link in linked)


def test_markup_in_a_record_is_inert(tmp_path: Path) -> None:
    arms = {"arms": ("unet",), "num_folds": 2, "num_cases": 4}
    manifest = make_manifest(**arms)
    attack = '<script>alert("x")</script>'
    hostile = make_manifest(
        **arms,
        question=attack,
        dataset={**manifest.dataset, "name": attack, "description": f"'\"><img src=x {attack}"},
    )
    make_study(tmp_path, manifest=hostile, overlays=False, latencies=False)
    report = build(tmp_path)
    text = report.page.read_text()
    assert "&lt;script&gt;alert" in text
    scripts = [attributes for tag, attributes in Page(text).tags if tag == "script"]
    assert all(set(attributes) <= {"id", "type"} for attributes in scripts)
    assert attack not in text
    assert "\\<script>" in report.tables[-1].read_text()
    assert not any(attack in path.read_text() for path in report.tables if path.suffix == ".tex")


def test_an_interrupted_study_says_so_before_anything_else(tmp_path: Path) -> None:
    manifest = make_manifest(arms=("unet", "unetpp"), num_folds=2, num_cases=8)
    make_study(
        tmp_path, manifest=manifest, missing=frozenset({("unetpp", 1)}), latencies=False,
        overlays=False,
    )  # fmt: skip
    report = build(tmp_path)
    loud = "Incomplete: 1 of 4 runs are missing: UNet++ fold 2."
    assert report.verdict[0].startswith(loud)
    page = report.page.read_text()
    assert page.index(loud) < page.index("<h2")
    markdown = report.tables[-1].read_text()
    assert markdown.index(f"**{loud}") < markdown.index("### ")


@pytest.mark.parametrize("keep", [("unet", 0), ("unetpp", 1)])
def test_a_single_finished_run_still_gives_a_report(tmp_path: Path, keep: tuple[str, int]) -> None:
    manifest = make_manifest(arms=("unet", "unetpp"), num_folds=2, num_cases=8)
    pairs = {(arm.name, fold) for arm in manifest.arms for fold in range(2)}
    make_study(
        tmp_path, manifest=manifest, missing=frozenset(pairs - {keep}), latencies=False,
        overlays=False,
    )  # fmt: skip
    report = build(tmp_path)
    assert report.verdict[0].startswith("Incomplete: 3 of 4 runs are missing")
    rows = pd.read_csv(tmp_path / "report" / "result.csv").set_index("arm")
    assert rows.index[rows["dice_mean"].notna()].tolist() == [keep[0]]
    assert "n/a" in report.text
    assert not any("significant" in sentence for sentence in report.verdict)


def test_the_wrong_folder_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds `records\.sqlite`"):
        build(tmp_path)
    assert list(tmp_path.iterdir()) == []
