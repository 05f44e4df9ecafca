from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reports.overlays import Overlays, choose_cases, read_overlays, write_overlays
from reports.records import StudyRecords
from unetpp.errors import UserError


def _overlays() -> Overlays:
    return Overlays(
        case_ids=("a", "b"),
        reasons=("worst", "best"),
        arms=("unet",),
        images=np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3),
        masks=np.ones((2, 4, 5), np.uint8),
        predictions=np.zeros((2, 1, 4, 5), np.uint8),
    )


def test_the_file_gives_back_what_was_written(tmp_path: Path) -> None:
    path, written = tmp_path / "overlays.npz", _overlays()
    write_overlays(path, written)
    read = read_overlays(path)
    assert (read.case_ids, read.reasons, read.arms) == (("a", "b"), ("worst", "best"), ("unet",))
    for name in ("images", "masks", "predictions"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
    assert [file.name for file in tmp_path.iterdir()] == ["overlays.npz"]


def test_a_broken_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "overlays.npz"
    path.write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(UserError, match=r"overlays\.npz must be a file of overlays"):
        read_overlays(path)


def test_a_pickled_file_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "overlays.npz"
    np.savez(path, case_ids=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match="cannot be read"):
        read_overlays(path)


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(UserError, match=r"`predictions` of 2 overlays must have the shape"):
        replace(_overlays(), arms=("unet", "unetpp"))


def _dice(study: StudyRecords) -> dict[str, dict[str, float]]:
    """Case -> arm -> Dice, without pandas' help."""
    table: dict[str, dict[str, float]] = {}
    for row in study.cases[study.cases["output"] == "L4"].to_dict("records"):
        below = 2 * row["tp"] + row["fp"] + row["fn"]
        if below:
            table.setdefault(row["case"], {})[row["arm"]] = 2 * row["tp"] / below
    return table


def test_worst_best_gain_and_loss_are_those(study: StudyRecords) -> None:
    table = _dice(study)
    mean = {case: np.mean(list(scores.values())) for case, scores in table.items()}
    chosen = choose_cases(study)
    assert len({case.case for case in chosen}) == 6
    by_reason = {case.reason.split(":")[0]: case.case for case in chosen}
    assert by_reason["worst"] == min(mean, key=lambda c: mean[c])
    assert by_reason["best"] == max(mean, key=lambda c: mean[c])
    taken = {chosen[k].case for k in range(3)}
    gain = {c: s["unetpp"] - s["unet"] for c, s in table.items() if c not in taken}
    assert by_reason["largest gain of UNet++ against U-Net"] == max(gain, key=lambda c: gain[c])
    assert by_reason["largest loss of UNet++ against U-Net"] == min(gain, key=lambda c: gain[c])


def test_the_choice_does_not_hang_on_the_order_of_rows(study: StudyRecords) -> None:
    shuffled = replace(study, cases=study.cases.sample(frac=1, random_state=1))
    assert choose_cases(shuffled) == choose_cases(study)


def test_equal_cases_are_taken_by_name(study: StudyRecords) -> None:
    flat = study.cases.assign(tp=10, fp=1, fn=1)
    names = [case.case for case in choose_cases(replace(study, cases=flat), num_cases=3)]
    assert names == ["case_000", "case_001", "case_002"]


def test_a_gain_is_not_called_a_loss(study: StudyRecords) -> None:
    nested = study.cases["arm"] == "unetpp"
    perfect = study.cases["tp"] + study.cases["fn"]
    cases = study.cases.assign(
        tp=study.cases["tp"].mask(nested, perfect),
        fp=study.cases["fp"].mask(nested, 0),
        fn=study.cases["fn"].mask(nested, 0),
    )
    reasons = [case.reason for case in choose_cases(replace(study, cases=cases))]
    assert any(reason.startswith("smallest gain of UNet++") for reason in reasons)
    assert not any("loss" in reason for reason in reasons)


def test_equal_arms_neither_gain_nor_lose(study: StudyRecords) -> None:
    flat = study.cases.assign(tp=10, fp=1, fn=1)
    reasons = [case.reason for case in choose_cases(replace(study, cases=flat))]
    assert "smallest loss of UNet++ against U-Net: +0.000 Dice" in reasons
    assert "smallest gain of UNet++ against U-Net: +0.000 Dice" in reasons


def test_a_case_that_one_arm_has_not_scored_is_not_shown(study: StudyRecords) -> None:
    worst = choose_cases(study)[0].case
    kept = study.cases[(study.cases["case"] != worst) | (study.cases["arm"] != "wide_unet")]
    assert worst not in {case.case for case in choose_cases(replace(study, cases=kept))}


def test_fewer_cases_than_asked_for_is_no_error(study: StudyRecords) -> None:
    two = study.cases[study.cases["case"].isin(["case_003", "case_004"])]
    assert len(choose_cases(replace(study, cases=two))) == 2
