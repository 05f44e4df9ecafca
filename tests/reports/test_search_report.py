import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_search import make_search, make_search_manifest
from read_page import Page

from nas.search_space import SearchSpace
from reports import Report, build_search
from reports.plots.pareto_front import hypervolume_history, pareto_front
from reports.plots.search_history import search_history
from reports.search_records import load_search
from unetpp.errors import UserError
from unetpp.metrics.pareto import hypervolume

_SHARES = {"depth": 0.5, "width": 0.3, "skips": 0.2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    make_search(folder, importances=_SHARES)
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    return build_search(folder)


@pytest.fixture(scope="module")
def page(report: Report) -> Page:
    return Page(report.page.read_text())


def test_all_files_are_there(folder: Path, report: Report) -> None:
    assert report.page == folder / "report" / "index.html"
    assert [path.name for path in report.tables] == [
        "table.txt", "table.md", "table.csv", "table.tex", "confirmation.csv", "depths.csv",
    ]  # fmt: skip
    stems = dict.fromkeys(path.stem for path in report.figures)
    assert list(stems) == ["history", "front", "hypervolume", "depth", "importances", "winner"]
    for path in (report.page, *report.tables, *report.figures):
        assert path.is_file()
    assert report.text == report.tables[0].read_text()


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    make_search(tmp_path, importances=_SHARES)
    first, paths = {}, []
    for _ in range(2):
        report = build_search(tmp_path)
        paths = [report.page, *report.tables, *report.figures]
        found = {path: path.read_bytes() for path in paths}
        assert found == (first or found)
        first = found


def test_the_text_fits_a_terminal_and_says_how_many_trials_are_left_out(report: Report) -> None:
    assert max(map(len, report.text.splitlines())) <= 80
    assert "... and 4 more, in table.csv" in report.text
    assert "~0.610" in report.text
    assert len(pd.read_csv(report.tables[2])) == 14


def test_the_page_needs_nothing_beside_it(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object"}
        if source := attributes.get("src"):
            assert source.startswith("data:image/")
        if link := attributes.get("href"):
            assert ":" not in link
    assert not re.search(r"https?://|@import|url\(", page.text)
    assert sum(tag == "img" for tag, _ in page.tags) == 6
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")


def test_the_page_holds_answer_space_rules_and_provenance(page: Page, report: Report) -> None:
    for part in (
        *report.verdict,
        "What this does not show",
        "it is not an ablation",
        "wilcoxon (cases paired, p < 0.0001, effect at least 0.005)",
        "skips is dense and depth is 2 or 3 or 4",
        "0.001 to 0.01, logarithmic",
        "parameters at most 600000",
        "Dice up, macs down",
        "seeds 11, 12",
        "seeds 21, 22",
        "unetpp search --data example",
        "did not finish",
        "Example CPU, 2 cores, 8 GiB",
        "optuna 5.0.0",
        "not trained: parameters 2.266e+06, allowed 600000",
        "figures/front.csv",
    ):
        assert " ".join(part.split()) in page.text


def test_the_space_of_the_tests_is_one_that_can_be_searched() -> None:
    text = make_search_manifest().space
    assert json.loads(SearchSpace.from_json(text).to_json()) == json.loads(text)


def test_markup_in_a_record_is_inert(tmp_path: Path) -> None:
    attack = '<script>alert("x")</script>'
    plain = make_search_manifest()
    hostile = make_search_manifest(
        rule=attack, dataset={**plain.dataset, "name": attack, "description": f"'\"><img {attack}"}
    )
    make_search(tmp_path, manifest=hostile, label=attack, reason=attack)
    text = build_search(tmp_path).page.read_text()
    assert "&lt;script&gt;alert" in text
    assert attack not in text
    assert "script" not in {tag for tag, _ in Page(text).tags}


def test_an_unfinished_search_says_so_loudly_everywhere(tmp_path: Path) -> None:
    make_search(tmp_path, ended=False)
    report = build_search(tmp_path)
    assert report.verdict[0].startswith("incomplete: no winner has been named")
    assert "Incomplete: no winner has been named" in report.text
    assert 'role="alert">incomplete: no winner' in report.page.read_text()
    assert "winner" not in {path.stem for path in report.figures}


def test_nothing_of_an_earlier_report_stays(tmp_path: Path) -> None:
    make_search(tmp_path, ended=False)
    stale = [tmp_path / "report" / name for name in ("confirmation.csv", "figures/importances.svg")]
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("of an earlier report")
    build_search(tmp_path)
    assert not any(path.exists() for path in stale)


def test_a_search_without_objectives_beside_the_score_has_no_hypervolume(tmp_path: Path) -> None:
    make_search(
        tmp_path,
        manifest=make_search_manifest(
            costs=(), reference={}, confirmation=None, tests=(), evaluation="none"
        ),
    )
    report = build_search(tmp_path)
    assert {path.stem for path in report.figures} == {"history", "front", "depth", "winner"}
    assert "ypervolume" not in report.page.read_text()


def test_the_incumbent_is_the_best_validated_score_so_far(folder: Path) -> None:
    data = search_history(load_search(folder))
    validated = data["state"].isin(["validated", "proposed_again"])
    expected = data["score"].where(validated).cummax().ffill()
    assert data["incumbent"].tolist() == expected.tolist()
    assert data["incumbent"].iloc[-1] == data["score"].max()


def test_the_hypervolume_grows_to_that_of_the_front(folder: Path) -> None:
    search = load_search(folder)
    grown = hypervolume_history(search)["hypervolume"]
    assert grown.is_monotonic_increasing
    points = pareto_front(search)
    best = points[points["on_front"]]
    corner = [search.manifest.reference[name] for name in ("dice", "macs")]
    covered = hypervolume(best[["score", "macs"]].to_numpy().tolist(), corner, (1, -1))
    assert grown.iloc[-1] == pytest.approx(covered / np.prod([1 - corner[0], corner[1]]))


def test_a_pictures_csv_is_what_it_shows(folder: Path, report: Report) -> None:
    path = next(path for path in report.figures if path.name == "history.csv")
    shown = pd.read_csv(path)
    pd.testing.assert_frame_equal(shown, search_history(load_search(folder)), check_dtype=False)


def test_the_wrong_folder_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds `records\.sqlite`"):
        build_search(tmp_path)
    assert list(tmp_path.iterdir()) == []
