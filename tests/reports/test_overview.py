"""The chapter that speaks of several studies and data sets: what it joins, says and refuses."""

import math
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_depth import SCORES, depth_manifest, make_depth_study
from make_study import make_manifest, make_study

import reports
from reports.across_sets import arm_scores, ranking_of
from reports.depth import depth_rows
from reports.depth_texts import depth_verdict
from reports.document import Chapter, Section
from reports.overview import overview_chapter
from reports.plots.depth_per_dataset import draw_depth_per_dataset
from reports.records import load_study
from reports.sources import Sources, load_sources
from reports.statistics.ranking import friedman, nemenyi
from reports.verdict import verdict
from reports.writers import terminal

# Every depth differs from the next by far more than the folds do.
_STEEP = {
    arm: tuple(0.2 * depth + 0.001 * (fold * depth % 3) for fold in range(5))
    for arm, depth in ((arm, int(arm[-1])) for arm in SCORES)
}
# By hand. cells: 0.852, 0.8022, 0.802, 0.7994, 0.7818, 0.7022, 0.600; on deep each depth ties.
_MEAN_RANKS = {
    "UNet++ L4": (1 + 1.5) / 2,
    "UNet++ L3": (2 + 3.5) / 2,
    "U-Net L3": (3 + 3.5) / 2,
    "U-Net L2": (4 + 5.5) / 2,
    "U-Net L4": (5 + 1.5) / 2,
    "UNet++ L2": (6 + 5.5) / 2,
    "L1 (both)": 7.0,
}


def _depths(folder: Path, scores: Mapping[str, Sequence[float]] = SCORES, **changes: object):
    """A study of depths on a data set that is called as its folder is."""
    manifest = depth_manifest(
        num_folds=len(next(iter(scores.values()))), name=folder.name,
        dataset_hash=folder.name.ljust(64, "0"),
    )  # fmt: skip
    return make_depth_study(folder, manifest=manifest, scores=scores, **changes)  # pyright: ignore[reportArgumentType]


def _small(folder: Path, *, name: str = "", arms: tuple[str, ...] = ("unet", "unetpp"), **more):
    """A study of few runs and of no depths, so that there is nothing to draw."""
    base = make_manifest(arms=arms, num_folds=2, num_cases=8)
    manifest = make_manifest(
        arms=arms, num_folds=2, num_cases=8, dataset={**base.dataset, "name": name or folder.name},
        dataset_hash=(name or folder.name).encode().hex().ljust(64, "0")[:64],
        **more.pop("promised", {}),
    )  # fmt: skip
    make_study(folder, manifest=manifest, overlays=False, latencies=False, **more)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets, one of them steep, and another study; read it, do not write."""
    parent = tmp_path_factory.mktemp("across")
    _depths(parent / "cells")
    _depths(parent / "deep", _STEEP)
    _small(parent / "other", name="cores")
    return parent


@pytest.fixture(scope="module")
def sources(parent: Path) -> Sources:
    return load_sources(parent)


@pytest.fixture(scope="module")
def chapter(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Chapter:
    return overview_chapter(sources, tmp_path_factory.mktemp("figures"))


def _section(chapter: Chapter, name: str) -> Section:
    return next(section for section in chapter.sections if section.name == name)


def _texts(section: Section, place: int = 0) -> list[tuple[str, ...]]:
    return [tuple(cell.text for cell in row) for row in section.tables[place].rows]


def test_different_studies_in_one_folder_have_a_chapter_each(
    chapter: Chapter, sources: Sources
) -> None:
    texts = _texts(_section(chapter, "contents"))
    assert [row[2] for row in texts] == [s.study.manifest.question for s in sources.found]
    assert [(*row[:2], *row[3:]) for row in texts] == [
        ("depth_per_dataset", "cells", "7", "35", "35"),
        ("depth_per_dataset", "deep", "7", "35", "35"),
        ("nested_vs_plain", "cores", "2", "4", "4"),
    ]
    assert [source.name for source in sources.found] == [
        "depth_per_dataset-cells", "depth_per_dataset-deep", "nested_vs_plain-cores",
    ]  # fmt: skip
    # Only what is there on several data sets is joined.
    names = [section.name for section in chapter.sections]
    assert names == ["contents", "depth_per_dataset-joined", "data"]
    assert chapter.question == "", "the studies ask different ones"


def test_the_data_sets_are_told_once_each(chapter: Chapter) -> None:
    assert [row[0] for row in _texts(_section(chapter, "data"))] == ["cells", "deep", "cores"]


def test_scores_are_the_means_that_were_recorded(chapter: Chapter, sources: Sources) -> None:
    scores = arm_scores(sources.found[:2])
    assert list(scores.columns) == ["cells", "deep"]
    for arm, folds in SCORES.items():
        assert scores.loc[arm, "cells"] == pytest.approx(np.mean(folds))
        assert scores.loc[arm, "deep"] == pytest.approx(np.mean(_STEEP[arm]), abs=6e-4)
    table = _section(chapter, "depth_per_dataset-joined").tables[0]
    rows = {row[0].text: row for row in table.rows}
    assert [rows["UNet++ L4"][k].rank for k in (1, 2)] == [1, 1]
    assert [rows["U-Net L4"][k].rank for k in (1, 2)] == [0, 1], "equal best share their mark"
    assert rows["UNet++ L3"][1].rank == 2
    assert rows["L1 (both)"][1].text == "0.600"


def test_ranks_over_data_sets_are_those_by_hand(chapter: Chapter, sources: Sources) -> None:
    ranking = ranking_of(sources.found[:2])
    assert dict(zip(ranking.arms, ranking.friedman.mean_ranks, strict=True)) == _MEAN_RANKS
    # Demsar 2006, with 2 data sets and 7 arms.
    squares = sum(rank**2 for rank in _MEAN_RANKS.values())
    chi2 = 12 * 2 / (7 * 8) * (squares - 7 * 8**2 / 4)
    assert ranking.friedman.chi2 == pytest.approx(chi2)
    f = chi2 / (2 * 6 - chi2)
    assert ranking.friedman.f == pytest.approx(f)
    table = _section(chapter, "depth_per_dataset-joined").tables[0]
    assert {row[0].text: row[-1].text for row in table.rows} == {
        arm: f"{rank:.2f}" for arm, rank in _MEAN_RANKS.items()
    }
    note = " ".join(table.notes)
    assert f"Friedman's test of 7 arms over 2 data sets: chi2 {chi2:.2f}, p " in note
    assert f"as F after Iman and Davenport {f:.2f}, p " in note
    # Nemenyi's critical value of 7 arms at 0.05 is 2.949.
    caption = _section(chapter, "depth_per_dataset-joined").figures[-1].caption
    assert f"critical difference {2.949 * math.sqrt(7 * 8 / (6 * 2)):.2f}" in caption


def test_the_ranking_is_that_of_the_statistics(tmp_path: Path) -> None:
    # Dice of two arms on three data sets; all others score 0.3 everywhere.
    made = {"first": (0.80, 0.70), "second": (0.90, 0.95), "third": (0.20, 0.55)}
    rows: list[dict[str, float]] = []
    for name, (plain, nested) in made.items():
        rows.append({**dict.fromkeys(SCORES, 0.3), "unet_l4": plain, "unetpp_l4": nested})
        _depths(tmp_path / name, {arm: (score, score) for arm, score in rows[-1].items()})
    ranking = ranking_of(load_sources(tmp_path).found)
    alone = friedman([list(row.values()) for row in rows])
    assert ranking.friedman == alone
    assert ranking.nemenyi == nemenyi(alone.mean_ranks, 3)


def test_two_arms_are_not_ranked_and_the_table_says_why(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _small(tmp_path / name)
    joined = _section(overview_chapter(load_sources(tmp_path), tmp_path), "nested_vs_plain-joined")
    assert joined.figures == ()
    assert "Mean rank" not in [column.title for column in joined.tables[0].columns]
    assert (
        joined.tables[0]
        .notes[-1]
        .startswith(
            "No test over data sets: ranks of arms are tested with three arms or more, but there are 2"
        )
    )


def test_an_arm_that_a_data_set_lacks_is_shown_and_not_ranked(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        few = frozenset({("wide_unet", fold) for fold in range(2)} if name == "b" else ())
        _small(tmp_path / name, arms=("unet", "wide_unet", "unet_plus", "unetpp"), missing=few)
    found = load_sources(tmp_path).found
    assert ranking_of(found).arms == ("U-Net", "UNet+", "UNet++")
    table = _section(overview_chapter(load_sources(tmp_path), tmp_path), "nested_vs_plain-joined")
    row = dict(zip(("arm", "a", "b", "c", "rank"), _texts(table)[1], strict=True))
    assert (row["arm"], row["b"], row["rank"]) == ("wide U-Net", "n/a", "n/a")
    assert row["a"] != "n/a"


def test_missing_runs_and_studies_are_said_loudly(tmp_path: Path) -> None:
    _small(tmp_path / "half", missing=frozenset({("unetpp", 1)}))
    _small(tmp_path / "whole")
    begun = frozenset((arm, fold) for arm in ("unet", "unetpp") for fold in range(2))
    _small(tmp_path / "begun", missing=begun)
    chapter = overview_chapter(load_sources(tmp_path), tmp_path)
    assert len(chapter.loud) == 2
    assert chapter.loud[0].startswith("nested_vs_plain in begun is left out: ")
    assert chapter.loud[0].endswith(".")
    assert chapter.loud[1].startswith(
        "nested_vs_plain on half is incomplete: 1 of 4 runs are missing: UNet++ fold 2."
    )
    assert [row[1] for row in _texts(_section(chapter, "contents"))] == ["half", "whole"]


def test_a_study_that_trains_nothing_is_listed_and_answers_nothing(tmp_path: Path) -> None:
    nothing = frozenset((arm, fold) for arm in ("unet", "unetpp") for fold in range(2))
    for name in ("a", "b"):
        _small(tmp_path / name, missing=nothing, promised={"trains": False, "study": "diagrams"})
    chapter = overview_chapter(load_sources(tmp_path), tmp_path)
    assert chapter.verdict == ()
    assert chapter.loud == ()
    assert [section.name for section in chapter.sections] == ["contents", "data"]
    assert [row[-2:] for row in _texts(chapter.sections[0])] == [("0", "0"), ("0", "0")]


def test_every_study_that_trained_answers_in_a_sentence(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _small(tmp_path / name)
    sources = load_sources(tmp_path)
    chapter = overview_chapter(sources, tmp_path)
    assert chapter.question == "Do nested, dense skips segment better than the plain U-Net?"
    assert chapter.verdict == tuple(
        f"nested_vs_plain on {source.data}: {verdict(source.study)[0]}" for source in sources.found
    )


def test_names_with_markup_are_inert_in_everything_that_is_written(tmp_path: Path) -> None:
    attack = "<b>[x](y) & co = \\input{z}"
    for place in ("a", "b"):
        _small(tmp_path / place, name=f"{attack} {place}", arms=("unet",))
    report = reports.build(tmp_path)
    page = report.page.read_text()
    assert "&lt;b&gt;[x](y) &amp; co" in page
    assert not [tag for tag in _tags(page) if tag == "b"]
    for path in report.tables:
        text = path.read_text()
        match path.suffix:
            case ".md":
                assert not re.search(r"(?<!\\)<b>|(?<!\\)\[x\]", text), path
            case ".tex":
                assert r"\input" not in text, path
    contents = (tmp_path / "report" / "overview" / "contents.csv").read_text()
    assert attack in contents
    assert "[x](y)" in report.text
    # Names of folders in the report hold letters, digits and dashes alone.
    names = [path.name for path in (tmp_path / "report").iterdir() if path.is_dir()]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in names)
    assert len(names) == 3


def _tags(text: str) -> list[str]:
    class Tags(HTMLParser):
        seen: list[str]

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.seen.append(tag)

    reader = Tags()
    reader.seen = []
    reader.feed(text)
    return reader.seen


def test_the_rows_are_those_of_each_study_alone(parent: Path) -> None:
    studies = [(name, load_study(parent / name)) for name in ("cells", "deep")]
    alone = [depth_rows([pair]) for pair in studies]
    pd.testing.assert_frame_equal(depth_rows(studies), pd.concat(alone, ignore_index=True))


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


def test_the_answer_names_the_shallowest_depth_that_is_enough(chapter: Chapter) -> None:
    assert chapter.verdict[:2] == (
        "U-Net, shallow enough: L2 on cells, L4 on deep.",
        "UNet++, shallow enough: L4 on cells, L4 on deep.",
    )
    assert chapter.verdict[2].startswith(
        "On cells, U-Net has its best Dice at L3 (0.802), and L2 is shallow enough: it is 0.003 "
        "below it (95 % interval "
    )
    low = re.search(r"interval -(\d\.\d{3}) to", chapter.verdict[2])
    assert low
    assert (
        f"cannot tell from zero, though they do not rule out a loss of {low[1]};"
        in (chapter.verdict[2])
    )
    assert chapter.verdict[3].startswith(
        "On cells, UNet++ needs L4 (0.852), its best depth: every shallower one can be told from "
        "it; the nearest, L3, is 0.050 below it (95 % interval "
    )
    assert chapter.verdict[-1].startswith("nested_vs_plain on cores: ")


def test_a_best_depth_of_1_is_said_to_be_the_shallowest(tmp_path: Path) -> None:
    falling = {arm: tuple(1 - value for value in row) for arm, row in _STEEP.items()}
    make_depth_study(tmp_path / "easy", scores=falling)
    sentence = depth_verdict(depth_rows([("easy", load_study(tmp_path / "easy"))]))[0]
    assert sentence.startswith("On easy, U-Net has its best Dice at its shallowest depth, L1 (0.7")


def test_the_figures_are_of_depths_and_of_ranks(chapter: Chapter) -> None:
    figures = _section(chapter, "depth_per_dataset-joined").figures
    assert [figure.name for figure in figures] == [
        "depth_per_dataset_depths", "depth_per_dataset_ranks",
    ]  # fmt: skip
    for figure in figures:
        assert [path.name for path in figure.files] == [
            f"{figure.name}{suffix}" for suffix in (".svg", ".pdf", ".png", ".csv")
        ]
        assert all(path.stat().st_size for path in figure.files)
    ranks = pd.read_csv(figures[1].files[-1])
    assert dict(zip(ranks["arm"], ranks["mean_rank"], strict=True)) == _MEAN_RANKS


def test_the_table_of_depths_has_a_row_a_curve(chapter: Chapter) -> None:
    table = _section(chapter, "depth_per_dataset-joined").tables[1]
    assert [(row[0].text, row[1].text, row[-3].text, row[-2].text) for row in table.rows] == [
        ("cells", "U-Net", "L3", "L2"),
        ("cells", "UNet++", "L4", "L4"),
        ("deep", "U-Net", "L4", "L4"),
        ("deep", "UNet++", "L4", "L4"),
    ]
    first, second, third, _ = table.rows
    assert [cell.text for cell in first[2:6]] == ["0.600", "0.799", "0.802", "0.782"]
    assert first[-1].text == "-0.003"
    assert first[-1].spread.startswith("[")
    assert second[-1].text == second[-1].spread == ""
    # By hand: sd of the five folds 0.0079, t of 4 degrees 2.776, sqrt(1/5 + 1/4).
    assert first[2].spread == "[0.585, 0.615]"
    # The folds of L3 are all equal: they have no spread to tell of.
    assert third[4].spread == ""
    assert max(map(len, terminal(table).splitlines())) <= 80


def test_the_figure_marks_best_and_enough_in_every_panel(parent: Path) -> None:
    rows = depth_rows([(name, load_study(parent / name)) for name in ("cells", "deep")])
    figure = draw_depth_per_dataset(rows)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["cells", "deep"]
    for axes, name in zip(figure.axes[:2], ("cells", "deep"), strict=True):
        rings = [line for line in axes.lines if line.get_markersize() >= 10]
        chosen = rows[(rows["data"] == name) & rows["shallow_enough"]]
        assert [round(float(ring.get_xdata()[0])) for ring in rings] == chosen["depth"].tolist()  # pyright: ignore[reportArgumentType, reportIndexIssue]


@pytest.mark.parametrize("number", [1, 4])
def test_any_number_of_data_sets_has_its_panels(parent: Path, number: int) -> None:
    study = load_study(parent / "cells")
    rows = depth_rows([(f"set {k}", study) for k in range(number)])
    shown = [axes for axes in draw_depth_per_dataset(rows).axes if axes.get_visible()]
    assert len(shown) == 2 * number


def test_runs_without_all_depths_are_told_to_decide_nothing(tmp_path: Path) -> None:
    gone = frozenset({("unetpp_l4", fold) for fold in range(5)} | {("unet_l4", 2)})
    _depths(tmp_path / "half", missing=gone)
    rows = depth_rows([("half", load_study(tmp_path / "half"))])
    told = depth_verdict(rows)
    assert "On half, no run has all depths of UNet++ yet, so they cannot be compared." in told
    assert set(rows.loc[rows["family"] == "U-Net", "curve_folds"]) == {4}
    assert math.isnan(rows["dice_mean"].iloc[-1])


def test_one_fold_gives_no_interval(tmp_path: Path) -> None:
    gone = frozenset((arm, fold) for arm in SCORES for fold in range(1, 5))
    _depths(tmp_path / "one", missing=gone)
    told = depth_verdict(depth_rows([("one", load_study(tmp_path / "one"))]))
    assert "On one, U-Net has its best Dice at L3 (0.800); one run gives no interval." in told


def test_one_study_alone_answers_the_same(parent: Path) -> None:
    study = load_study(parent / "cells")
    told = depth_verdict(depth_rows([("cells", study)]))
    assert told[0].startswith("On cells, U-Net has its best Dice at L3")
    assert list(verdict(study)[: len(told)]) == told
