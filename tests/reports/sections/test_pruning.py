from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from make_scores import make_scored, make_timed, noise

from reports.document import Section
from reports.plots import accuracy_latency
from reports.price import saving_rows, trained_rows
from reports.price_texts import pruning_sentences
from reports.records import StudyRecords
from reports.sections.pruning import saving_table, section
from studies import pruning

_DICE = {"L1": 0.60, "L2": 0.75, "L3": 0.80, "L4": 0.805, "mean": 0.81}
_TIMES = {
    **{f"unet_l{d} L{d}": 1.0 + d for d in (1, 2, 3, 4)},
    **{f"unetpp_ds L{d}": 2.5 * d for d in (1, 2, 3, 4)},
}


def _score(arm: str, output: str, seed: int, fold: int) -> float:
    return _DICE[output] + noise("fold", fold) + noise(arm, output, fold, seed, scale=0.002)


@pytest.fixture(scope="module")
def untimed() -> StudyRecords:
    return make_scored(pruning.STUDY, _score)


@pytest.fixture(scope="module")
def study(untimed: StudyRecords) -> StudyRecords:
    return make_timed(untimed, _TIMES)


@pytest.fixture(scope="module")
def found(study: StudyRecords, tmp_path_factory: pytest.TempPathFactory) -> Section:
    made = section(study, tmp_path_factory.mktemp("figures"))
    assert made is not None
    return made


def test_the_section_has_both_tables_and_both_figures(found: Section) -> None:
    assert [table.name for table in found.tables] == ["savings", "pruned_against_trained"]
    assert [figure.name for figure in found.figures] == ["accuracy_latency", "savings"]
    assert all(figure.files and not figure.refusal for figure in found.figures)
    first = found.tables[0]
    assert [row[0].text for row in first.rows] == [f"UNet++ DS L{d}" for d in (1, 2, 3, 4)]
    saved = next(k for k, c in enumerate(first.columns) if c.title.startswith("time saved"))
    assert [row[saved].text for row in first.rows] == ["75.0 %", "50.0 %", "25.0 %", ""]


def test_sentences_say_what_the_table_says(found: Section) -> None:
    delta = next(k for k, c in enumerate(found.tables[0].columns) if c.title.startswith("Delta"))
    for row, sentence in zip(found.tables[0].rows[:3], found.answer, strict=False):
        assert row[0].text.replace(" L", " pruned to L") in sentence
        assert row[delta].text in sentence
    assert "reference (Dice 0," in found.pairs[0][1]


def test_without_latencies_nothing_is_said_of_time(untimed: StudyRecords) -> None:
    rows = saving_rows(untimed)
    titles = [column.title for column in saving_table(untimed, rows).columns]
    assert not [title for title in titles if "ms per image" in title or "time" in title]
    text = accuracy_latency.caption(untimed, accuracy_latency.accuracy_latency(untimed))
    assert "multiply-accumulates of one image stand in their place" in text
    assert "of the time" not in " ".join(pruning_sentences(untimed, rows, trained_rows(untimed)))


def test_two_machines_are_refused_with_the_reason(study: StudyRecords, tmp_path: Path) -> None:
    mixed = study.latencies.copy()
    mixed.loc[0, "machine"] = "bbbb"
    found = section(replace(study, latencies=mixed), tmp_path)
    assert found is not None
    assert found.tables == ()
    assert "must share their machine" in found.paragraphs[0]
    assert "must share their machine" in found.figures[0].refusal


@pytest.mark.parametrize(("slowest", "scale"), [(9.0, "linear"), (11.0, "log")])
def test_the_axis_is_logarithmic_from_a_range_of_five(
    untimed: StudyRecords, slowest: float, scale: str
) -> None:
    timed = make_timed(untimed, {"unetpp_ds L1": 2.0, "unetpp_ds L4": slowest})
    data = accuracy_latency.accuracy_latency(timed)
    axes = accuracy_latency.draw_accuracy_latency(timed, data).axes[0]
    assert axes.get_xscale() == scale
    if scale == "log":
        assert axes.get_xlim()[0] > 0


def test_the_front_is_joined_by_steps(study: StudyRecords) -> None:
    data = accuracy_latency.accuracy_latency(study)
    axes = accuracy_latency.draw_accuracy_latency(study, data).axes[0]
    steps = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    front = data[data["status"] == "front"]
    assert len(steps) == 1
    assert sorted(np.asarray(steps[0].get_xdata())) == pytest.approx(sorted(front["milliseconds"]))


def test_the_disc_has_the_area_of_the_parameters(study: StudyRecords) -> None:
    data = accuracy_latency.accuracy_latency(study)
    axes = accuracy_latency.draw_accuracy_latency(study, data).axes[0]
    sizes = sorted(
        float(size)
        for discs in axes.collections
        if (get := getattr(discs, "get_sizes", None))
        for size in get()
    )
    counts = sorted(data["num_parameters"])
    assert sizes[-1] / sizes[0] == pytest.approx(counts[-1] / counts[0])


def test_a_study_without_supervised_arms_still_shows_its_price(
    tmp_path: Path, untimed: StudyRecords
) -> None:
    kept = tuple(arm for arm in untimed.arms if arm.name != "unetpp_ds")
    found = section(replace(untimed, manifest=replace(untimed.manifest, arms=kept)), tmp_path)
    assert found is not None
    assert found.title == found.figures[0].title == "Accuracy versus multiply-accumulates"
    assert "No latencies were taken" in found.paragraphs[0]
    assert [figure.name for figure in found.figures] == ["accuracy_latency"]
    assert found.tables == ()


def test_one_network_is_no_comparison(tmp_path: Path, untimed: StudyRecords) -> None:
    one = tuple(arm for arm in untimed.arms if arm.name == "unet_l4")
    manifest = replace(untimed.manifest, arms=one)
    assert section(replace(untimed, manifest=manifest), tmp_path) is None
