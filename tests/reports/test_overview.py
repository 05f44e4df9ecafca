"""One report over several data sets: what it joins, what it says, what it refuses."""

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from make_depth import SCORES, depth_manifest, make_depth_study
from make_study import make_manifest, make_study

import reports
from reports import Report
from reports.across import load_across
from reports.depth import depth_rows
from reports.depth_texts import depth_lines, depth_verdict
from reports.plots.depth_per_dataset import draw_depth_per_dataset
from reports.records import load_study
from unetpp.errors import UserError

# Every depth differs from the next by far more than the folds do.
_STEEP = {
    arm: tuple(0.2 * depth + 0.001 * (fold * depth % 3) for fold in range(5))
    for arm, depth in ((arm, int(arm[-1])) for arm in SCORES)
}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets, one of them steep; read it, do not write."""
    parent = tmp_path_factory.mktemp("across")
    make_depth_study(parent / "cells")
    make_depth_study(parent / "deep", scores=_STEEP)
    return parent


@pytest.fixture(scope="module")
def report(parent: Path) -> Report:
    return reports.build_across(parent)


def test_the_rows_are_those_of_each_study_alone(parent: Path) -> None:
    studies = [(name, load_study(parent / name)) for name in ("cells", "deep")]
    alone = [depth_rows([pair]) for pair in studies]
    pd.testing.assert_frame_equal(depth_rows(studies), pd.concat(alone, ignore_index=True))
    assert [name for name, _ in load_across(parent).studies] == ["cells", "deep"]


def test_the_dice_of_every_depth_is_the_one_that_was_recorded(parent: Path) -> None:
    rows = depth_rows([("cells", load_study(parent / "cells"))])
    assert len(rows) == 8
    for row in rows.to_dict("records"):
        scores = SCORES[row["arm"]]
        assert row["dice_mean"] == pytest.approx(sum(scores) / 5)
        assert row["dice_low"] < row["dice_mean"] < row["dice_high"]
        assert row["shared"] == (row["depth"] == 1)
    starts = rows[rows["depth"] == 1]
    assert starts["arm"].tolist() == ["l1", "l1"]
    assert starts["family"].tolist() == ["U-Net", "UNet++"]


def test_the_answer_names_the_shallowest_depth_that_is_enough(report: Report) -> None:
    assert report.verdict[:2] == (
        "U-Net, shallow enough: L2 on cells, L4 on deep.",
        "UNet++, shallow enough: L4 on cells, L4 on deep.",
    )
    assert report.verdict[2].startswith(
        "On cells, U-Net has its best Dice at L3 (0.802), and L2 is shallow enough: it is 0.003 "
        "below it (95 % interval "
    )
    low = re.search(r"interval -(\d\.\d{3}) to", report.verdict[2])
    assert low
    assert (
        f"cannot tell from zero, though they do not rule out a loss of {low[1]};"
        in (report.verdict[2])
    )
    assert report.verdict[3].startswith(
        "On cells, UNet++ needs L4 (0.852), its best depth: every shallower one can be told from "
        "it; the nearest, L3, is 0.050 below it (95 % interval "
    )


def test_a_best_depth_of_1_is_said_to_be_the_shallowest(tmp_path: Path) -> None:
    falling = {arm: tuple(1 - value for value in row) for arm, row in _STEEP.items()}
    make_depth_study(tmp_path / "easy", scores=falling)
    sentence = depth_verdict(depth_rows([("easy", load_study(tmp_path / "easy"))]))[2]
    assert sentence.startswith("On easy, U-Net has its best Dice at its shallowest depth, L1 (0.7")


def test_the_table_has_a_row_a_curve_and_raw_numbers_in_its_csv(report: Report) -> None:
    names = [path.name for path in report.tables]
    assert names == ["table.txt", "table.md", "table.csv", "arms.md", "arms.csv"]
    raw = pd.read_csv(report.page.parent / "table.csv")
    lines = depth_lines(raw)
    assert [(line.data, line.family, line.best, line.enough) for line in lines] == [
        ("cells", "U-Net", "L3", "L2"),
        ("cells", "UNet++", "L4", "L4"),
        ("deep", "U-Net", "L4", "L4"),
        ("deep", "UNet++", "L4", "L4"),
    ]
    assert lines[0].scores == ("0.600", "0.799", "0.802", "0.782")
    assert lines[0].comparison.startswith("-0.003 [")
    assert lines[1].comparison == ""
    markdown = (report.page.parent / "table.md").read_text()
    # By hand: sd of the five folds 0.0079, t of 4 degrees 2.776, sqrt(1/5 + 1/4).
    assert lines[0].spreads[0] == "[0.585, 0.615]"
    # The folds of L3 are all equal: they have no spread to tell of.
    assert lines[2].spreads[2] == ""
    page = report.page.read_text()
    for line in lines:
        pairs = list(zip(line.scores, line.spreads, strict=True))
        cells = " | ".join(f"{a} \\{b}" if b else a for a, b in pairs)
        assert f"| {line.data} | {line.family} | {cells} | {line.best} |" in markdown
        assert all(f'<span class="spread">{spread}</span>' in page for _, spread in pairs)
    assert max(map(len, report.text.splitlines())) <= 80
    assert len(pd.read_csv(report.page.parent / "arms.csv")) == 14


def test_the_figure_marks_best_and_enough_in_every_panel(parent: Path, report: Report) -> None:
    rows = depth_rows(load_across(parent).studies)
    figure = draw_depth_per_dataset(rows)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["cells", "deep"]
    for axes, name in zip(figure.axes[:2], ("cells", "deep"), strict=True):
        rings = [line for line in axes.lines if line.get_markersize() > 10]
        chosen = rows[(rows["data"] == name) & rows["shallow_enough"]]
        assert [round(float(ring.get_xdata()[0])) for ring in rings] == chosen["depth"].tolist()  # pyright: ignore[reportArgumentType, reportIndexIssue]
    assert [path.name for path in report.figures] == [
        "depth_per_dataset.svg", "depth_per_dataset.png", "depth_per_dataset.csv",
    ]  # fmt: skip


@pytest.mark.parametrize("number", [1, 4])
def test_any_number_of_data_sets_has_its_panels(parent: Path, number: int) -> None:
    study = load_study(parent / "cells")
    rows = depth_rows([(f"set {k}", study) for k in range(number)])
    shown = [axes for axes in draw_depth_per_dataset(rows).axes if axes.get_visible()]
    assert len(shown) == 2 * number


class _Page(HTMLParser):
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


def test_the_page_stands_alone_and_shows_no_picture_of_the_data(report: Report) -> None:
    page = _Page(report.page.read_text())
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 1
    assert images[0]["src"]
    assert images[0]["src"].startswith("data:image/svg+xml")
    text = " ".join("".join(page.words).split())
    assert not re.search(r"https?://|@import|url\(", text)
    for part in (
        *report.verdict,
        "no depth was selected on a test set",
        "corrected resampled t (Nadeau and Bengio 2003)",
        "unetpp run depth_per_dataset --data cells",
        "cells: data, methods, provenance",
        "figures/depth_per_dataset.csv",
    ):
        assert part in text


def test_the_same_records_give_the_same_bytes(parent: Path, report: Report) -> None:
    paths = [report.page, *report.tables, *report.figures]
    first = {path: path.read_bytes() for path in paths}
    reports.build_across(parent)
    assert {path: path.read_bytes() for path in paths} == first


def test_a_name_with_markup_is_inert(tmp_path: Path) -> None:
    name = "<b>[x] & co"
    make_depth_study(tmp_path / name)
    report = reports.build_across(tmp_path)
    assert "&lt;b&gt;[x] &amp; co" in report.page.read_text()
    assert not [tag for tag, _ in _Page(report.page.read_text()).tags if tag == "b"]
    assert "[x]" in report.text


def test_missing_runs_are_said_loudly_and_the_rest_is_told(tmp_path: Path) -> None:
    gone = frozenset({("unetpp_l4", fold) for fold in range(5)} | {("unet_l4", 2)})
    make_depth_study(tmp_path / "half", missing=gone)
    begun = tmp_path / "begun"
    make_depth_study(begun, missing=frozenset((a, f) for a in SCORES for f in range(5)))
    report = reports.build_across(tmp_path)
    assert report.verdict[0].startswith("begun is left out: a report needs at least one finished")
    assert report.verdict[1].startswith("half is incomplete: 6 of 35 runs are missing")
    assert "UNet++, shallow enough: undecided on half." in report.verdict
    assert "On half, no run has all depths of UNet++ yet, so they cannot be compared." in (
        report.verdict
    )
    rows = depth_rows(load_across(tmp_path).studies)
    assert set(rows.loc[rows["family"] == "U-Net", "curve_folds"]) == {4}
    assert math.isnan(rows["dice_mean"].iloc[-1])
    assert report.page.read_text().count('role="alert"') == 2


def test_one_fold_gives_no_interval(tmp_path: Path) -> None:
    gone = frozenset((arm, fold) for arm in SCORES for fold in range(1, 5))
    make_depth_study(tmp_path / "one", missing=gone)
    verdict = reports.build_across(tmp_path).verdict
    assert "On one, U-Net has its best Dice at L3 (0.800); one run gives no interval." in verdict


def test_a_study_without_depths_is_joined_by_its_arms(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_study(tmp_path / name, overlays=False, latencies=False)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "arms.csv").write_text("of an earlier report")
    report = reports.build_across(tmp_path)
    assert [path.name for path in report.tables] == ["table.txt", "table.md", "table.csv"]
    assert report.figures == ()
    assert not (tmp_path / "report" / "arms.csv").exists()
    assert len(pd.read_csv(tmp_path / "report" / "table.csv")) == 12
    assert any(sentence.startswith("b: UNet++ is ") for sentence in report.verdict)
    assert max(map(len, report.text.splitlines())) <= 80


def test_different_studies_in_one_folder_are_refused(tmp_path: Path) -> None:
    make_depth_study(tmp_path / "cells")
    make_study(tmp_path / "other", manifest=make_manifest(), overlays=False)
    with pytest.raises(UserError, match="holds depth_per_dataset in cells and nested_vs_plain in"):
        reports.build_across(tmp_path)
    assert not (tmp_path / "report").exists()


def test_a_folder_without_studies_is_refused(tmp_path: Path) -> None:
    # The page's own folder is no study, whatever lies in it.
    make_depth_study(tmp_path / "report")
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="holds none; give the --out of `unetpp run`"):
            reports.build_across(folder)


def test_one_study_alone_answers_the_same(parent: Path, tmp_path: Path) -> None:
    make_depth_study(tmp_path / "cells", manifest=depth_manifest(name="cells"))
    alone = reports.build(tmp_path / "cells")
    assert alone.verdict[0] == "U-Net, shallow enough: L2 on cells."
    told = depth_verdict(depth_rows([("cells", load_study(parent / "cells"))]))
    assert list(alone.verdict[: len(told)]) == told
    assert "depth_per_dataset.svg" in {path.name for path in alone.figures}
