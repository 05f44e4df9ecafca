from dataclasses import replace
from pathlib import Path

import pandas as pd
from make_cases import make_records, row
from make_study import make_manifest, make_study

from reports.records import StudyRecords, load_study
from reports.verdict import verdict


def test_an_interval_that_holds_zero_is_said_to(study: StudyRecords) -> None:
    first = verdict(study)[0]
    assert first.startswith("UNet++ is 0.012 above U-Net in Dice (0.904 against 0.892)")
    assert first.endswith("with 5 folds this cannot be told from zero.")


def test_two_to_five_sentences_with_price_and_losses(study: StudyRecords) -> None:
    sentences = verdict(study)
    assert 2 <= len(sentences) <= 5
    assert "times the parameters" in sentences[1]
    assert "of 40 cases" in sentences[1]
    assert "On new cases these trained networks are 0.012 above it" in sentences[2]
    assert "outside the Holm family" in sentences[3]
    assert "none is significant" in sentences[-1]
    assert "wide U-Net and UNet+ DS lie below U-Net" in sentences[-1]


def _shifted(study: StudyRecords, arm: str, pixels: int) -> StudyRecords:
    """Every case of an arm equals the baseline's but for some pixels missed (or found)."""
    base = study.cases[study.cases["arm"] == "unet"].set_index("case")
    cases = study.cases.copy()
    where = cases["arm"] == arm
    twin = base.loc[cases.loc[where, "case"]]
    step = pixels + (twin["tp"] % 3)
    step = step.where(twin["tp"] > 0, 0)
    cases.loc[where, "tp"] = (twin["tp"] + step).to_numpy()
    cases.loc[where, "fn"] = (twin["fn"] - step).clip(lower=0).to_numpy()
    cases.loc[where, "fp"] = twin["fp"].to_numpy()
    return replace(study, cases=cases)


def test_a_clear_gain_is_significant(study: StudyRecords) -> None:
    sentences = verdict(_shifted(study, "unetpp", 20))
    assert "significant after Holm's correction (p" in sentences[0]
    assert "UNet++ above" in sentences[-1]


def test_a_clear_loss_is_said_as_plainly(study: StudyRecords) -> None:
    sentences = verdict(_shifted(study, "unetpp", -40))
    assert "below U-Net" in sentences[0]
    assert "in 5 of 5 folds" in sentences[1]
    assert "UNet++ below" in sentences[-1]


def test_one_fold_claims_nothing(tmp_path: Path) -> None:
    gone = frozenset((arm, fold) for arm in ("unet", "unetpp") for fold in range(1, 5))
    manifest = make_manifest(arms=("unet", "unetpp"))
    make_study(tmp_path, manifest=manifest, missing=gone, overlays=False)
    text = " ".join(verdict(load_study(tmp_path)))
    assert "one run gives no interval and no test" in text
    assert "significant" not in text


def test_a_missing_baseline_compares_nothing(tmp_path: Path) -> None:
    gone = frozenset(("unet", fold) for fold in range(5))
    make_study(tmp_path, missing=gone, overlays=False)
    sentences = verdict(load_study(tmp_path))
    assert sentences[0] == (
        "UNet++ and U-Net share no finished run, so they cannot be compared yet."
    )
    assert "significant" not in " ".join(sentences)


def test_the_order_of_rows_changes_no_word(study: StudyRecords) -> None:
    cases = study.cases.sample(frac=1, random_state=2)
    assert isinstance(cases, pd.DataFrame)
    assert verdict(replace(study, cases=cases)) == verdict(study)


def test_several_seeds_are_counted_as_runs() -> None:
    study = make_records(
        [
            row(arm, f"{fold}", round(0.5 + 0.01 * seed + 0.1 * (arm == "unetpp"), 3), fold=fold, seed=seed)
            for arm in ("unet", "unetpp")
            for seed in range(2)
            for fold in range(3)
        ]
    )  # fmt: skip
    sentences = verdict(study)
    assert sentences[0].endswith("the same in every run, so that no interval can be given.")
    assert "in 0 of 6 runs (fold and seed) and on 0 of 3 cases." in sentences[1]


def test_a_single_arm_says_its_score() -> None:
    study = make_records([row("unet", f"{k}", 0.5, fold=k) for k in range(2)], arms=("unet",))
    assert verdict(study) == ["U-Net reaches a Dice of 0.500; it has no other arm beside it."]
