from dataclasses import replace
from pathlib import Path

import pytest
from make_scores import make_arm, make_scored, noise

from reports.crossing import crossing_rows
from reports.document import Section
from reports.plots.backbones import draw_backbones
from reports.records import StudyRecords
from reports.sections.backbones import section
from studies import backbones, pruning


def _score(arm: str, output: str, seed: int, fold: int) -> float:
    gain = {"unetpp_ds": -0.04, "other_unetpp_ds": 0.04}.get(arm, 0.0)
    return 0.7 + gain + noise("fold", fold) + noise(arm, fold, scale=0.003)


@pytest.fixture(scope="module")
def study() -> StudyRecords:
    arms = []
    for encoder, prefix in (("plain", ""), ("other", "other_")):
        for arm in backbones.STUDY.arms:
            levels = {**arm.levels, "encoder": encoder}
            entry = make_arm(arm, width=10 if prefix else 8)
            arms.append(replace(entry, name=prefix + arm.name, levels=levels))
    return make_scored(backbones.STUDY, _score, arms=arms)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("figures")


@pytest.fixture(scope="module")
def found(study: StudyRecords, folder: Path) -> Section:
    made = section(study, folder)
    assert made is not None
    return made


def test_gains_and_losses_are_told_by_encoder(found: Section, folder: Path) -> None:
    nested = next(line for line in found.answer if line.startswith("UNet++ DS against U-Net"))
    assert "better on other (+0.0" in nested
    assert "worse on plain (-0.0" in nested
    plus = next(line for line in found.answer if line.startswith("UNet+ against U-Net"))
    assert "not told apart by the test on plain" in plus
    assert (folder / "backbones.pdf").stat().st_size > 0


def test_marks_are_within_an_encoder(found: Section) -> None:
    rows = {(row[0].text, row[1].text): row for row in found.tables[0].rows}
    assert rows["other", "UNet++ DS"][4].rank == 1
    assert rows["plain", "UNet++ DS"][6].mark == "worse"
    assert rows["plain", "U-Net"][6].text == "baseline"
    assert sum(row[4].rank == 1 for row in rows.values()) == 2


def test_there_is_a_bridge_for_every_test_and_no_other(study: StudyRecords) -> None:
    figure = draw_backbones(study, crossing_rows(study))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert len(texts) == 4
    assert sum(text == "n.s." for text in texts) == 2
    one = replace(study, cases=study.cases[study.cases["fold"] == 0])
    assert not draw_backbones(one, crossing_rows(one)).axes[0].texts


def test_other_studies_have_no_such_section(tmp_path: Path) -> None:
    assert section(make_scored(pruning.STUDY, _score), tmp_path) is None
