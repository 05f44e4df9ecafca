from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest
from make_scores import make_arm, make_scored, noise

from reports.crossing import crossing_rows, skip_titles
from reports.plots.backbones import bridge_text
from reports.records import StudyRecords
from studies import backbones, pruning

ENCODERS = ("plain", "resnet18")


def make_crossed(score: Callable[[str, str, int, int], float]) -> StudyRecords:
    """Six arms; widths stand for encoders, so that nothing needs timm."""
    arms = []
    for place, encoder in enumerate(ENCODERS):
        for arm in backbones.STUDY.arms:
            entry = make_arm(arm, width=8 + 2 * place)
            name = arm.name if place == 0 else f"{encoder}_{arm.name}"
            label = arm.label if place == 0 else f"{arm.label} {encoder}"
            levels = {**arm.levels, "encoder": encoder}
            arms.append(replace(entry, name=name, label=label, levels=levels))
    return make_scored(backbones.STUDY, score, arms=arms)


def _score(arm: str, output: str, seed: int, fold: int) -> float:
    """UNet++ gains 0.04 on resnet18 and loses 0.04 on plain; encoders differ by 0.2."""
    gain = {"unetpp_ds": -0.04, "resnet18_unetpp_ds": 0.04}.get(arm, 0.0)
    base = 0.8 if arm.startswith("resnet18") else 0.6
    return base + gain + noise("fold", fold) + noise(arm, fold, scale=0.003)


def test_each_network_is_compared_on_its_own_encoder() -> None:
    rows = crossing_rows(make_crossed(_score)).set_index("arm")
    assert list(rows.index[rows["is_reference"]]) == ["unet", "resnet18_unet"]
    assert rows.loc["unetpp_ds", "delta_dice"] == pytest.approx(-0.04, abs=0.006)
    assert rows.loc["resnet18_unetpp_ds", "delta_dice"] == pytest.approx(0.04, abs=0.006)
    assert rows.loc[["unet", "resnet18_unet"], "p"].isna().all()


def test_holm_is_over_all_comparisons_of_all_encoders() -> None:
    rows = crossing_rows(make_crossed(_score))
    assert rows["p"].notna().sum() == 4
    assert rows["p_holm"].min() == pytest.approx(4 * rows["p"].min())


def test_an_encoder_without_its_reference_is_not_tested() -> None:
    study = make_crossed(_score)
    kept = tuple(arm for arm in study.arms if arm.name != "resnet18_unet")
    rows = crossing_rows(replace(study, manifest=replace(study.manifest, arms=kept)))
    assert rows[rows["encoder"] == "resnet18"]["p"].isna().all()
    assert rows["p"].notna().sum() == 2


def test_series_are_called_as_on_the_first_encoder() -> None:
    assert skip_titles(make_crossed(_score)) == {
        "U-Net": "U-Net",
        "UNet+": "UNet+",
        "UNet++": "UNet++ DS",
    }


def test_a_study_that_crosses_nothing_has_no_rows() -> None:
    empty = crossing_rows(make_scored(pruning.STUDY, _score))
    pd.testing.assert_frame_equal(empty, pd.DataFrame())


@pytest.mark.parametrize(
    ("p", "text"), [(0.0004, "p < 0.001"), (0.012, "p 0.012"), (0.05, "n.s."), (0.9, "n.s.")]
)
def test_a_bridge_says_p_or_that_nothing_was_told(p: float, text: str) -> None:
    assert bridge_text(p).replace("<0", "< 0") == text
