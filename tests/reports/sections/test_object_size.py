"""Gain by size: the groups, the gains and the objects are those that were put in by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from make_evidence import at, case_row, make_arm, make_records, promise, undrawn

from reports.plots.object_rates import object_rates
from reports.plots.object_size import nested_arms, size_cases, size_gains, size_groups
from reports.records import StudyRecords
from reports.sections import object_size as sections
from reports.sections.object_size import section, size_trends
from unetpp import grid

_ENCODER = grid.plain_encoder(2, width=4)
_ARMS = (
    make_arm("unet", grid.unet(_ENCODER), label="U-Net"),
    make_arm("unetpp", grid.unetpp(_ENCODER), label="UNet++"),
    make_arm("unetpp_ds", grid.unetpp(_ENCODER, deep_supervision=True), label="UNet++"),
)


def _study(num_cases: int = 42, **changes: Any) -> StudyRecords:
    """Case c has 100 (c + 1) pixels; the nested arm misses a tenth of them, the plain a fifth,
    but on the largest half of the cases both miss a tenth.
    """
    rows = [
        case_row(
            arm.name,
            f"c{case:02}",
            tp=100 * (case + 1) - missed,
            fn=missed,
            fp=missed,
            fold=case % 5,
        )
        for case in range(num_cases)
        for arm in _ARMS
        for missed in [10 * (case + 1) * (2 if arm.name == "unet" and case < num_cases // 2 else 1)]
    ]
    return make_records(promise(_ARMS, baseline="unet"), cases=pd.DataFrame(rows), **changes)


def test_the_most_nested_arms_are_compared() -> None:
    assert nested_arms(_study()) == ["unetpp", "unetpp_ds"]
    flat = make_records(promise(_ARMS[:1], baseline="unet"))
    assert nested_arms(flat) == []


@pytest.mark.parametrize(("num_cases", "expected"), [(42, 7), (41, 6), (20, 3), (11, 1)])
def test_seven_groups_or_as_many_as_hold_six_cases(num_cases: int, expected: int) -> None:
    frame = size_cases(_study(num_cases))
    assert frame["size_group"].nunique() == expected
    sizes = frame[frame["arm"] == "unet"].groupby("size_group")["size"]
    assert sizes.count().min() >= 6
    assert (sizes.min().iloc[1:].to_numpy() > sizes.max().iloc[:-1].to_numpy()).all()


def test_equal_sizes_share_a_group() -> None:
    sizes = [5.0] * 30 + [9.0] * 12
    groups = size_groups(sizes, sizes)
    assert set(groups[:30].tolist()) == {0}
    assert set(groups[30:].tolist()) == {1}


def test_sizes_and_gains_are_those_put_in() -> None:
    study = _study()
    frame = size_cases(study)
    assert frame.loc[frame["case"] == "c04", "size"].unique().tolist() == [500]
    gains = size_gains(study, frame).query("arm == 'unetpp'")
    # Dice = 1 - share that is missed, as as many pixels are wrong as are missed.
    np.testing.assert_allclose(gains["base_dice"], [0.8] * 3 + [0.85] + [0.9] * 3)
    np.testing.assert_allclose(gains["dice"], 0.9)
    np.testing.assert_allclose(gains["difference"], [0.1] * 3 + [0.05] + [0] * 3, atol=1e-12)
    assert gains["num_cases"].tolist() == [6] * 7
    assert gains["smallest"].tolist() == [100 + 600 * k for k in range(7)]
    # Six cases that all gain: 2 / 2^6 of the signs are as extreme; three groups are tested.
    np.testing.assert_allclose(gains["p"].iloc[:3], 2 / 2**6)
    np.testing.assert_allclose(gains["p_holm"].iloc[:3], 3 * 2 / 2**6)
    # Where none or three cases differ, the test cannot reach 0.05 and is refused.
    assert np.isnan(gains["p"].to_numpy()[3:]).all()


def test_a_gain_on_small_ones_alone_is_a_falling_trend() -> None:
    study = _study()
    trends = size_trends(study, size_cases(study)).set_index("arm")
    assert at(trends, "unetpp", "rho") == pytest.approx(-np.sqrt(0.75), abs=0.01)
    assert at(trends, "unetpp", "p_holm") < 0.001
    few = _study(9)
    assert np.isnan(size_trends(few, size_cases(few))["rho"]).all()


def test_cases_of_one_patient_are_one_unit() -> None:
    study = _study()
    cases = study.cases.assign(group="p" + study.cases["case"].astype(str).str[1:].astype(int).mod(3).astype(str))  # fmt: skip
    grouped = replace(study, cases=cases)
    gains = size_gains(grouped, size_cases(grouped))
    assert set(gains["num"]) == {3}
    assert np.isnan(gains[["p", "low"]].to_numpy()).all()


def test_cases_without_a_reference_are_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sections, "save_figure", undrawn)
    study = _study()
    empty = [case_row(arm.name, "none", tp=0, fp=3 * (arm.name == "unet")) for arm in _ARMS]
    more = replace(study, cases=pd.concat([study.cases, pd.DataFrame(empty)], ignore_index=True))
    pd.testing.assert_frame_equal(size_cases(more), size_cases(study))
    found = section(more, tmp_path)
    assert found is not None
    assert "U-Net 100%, UNet++ 0%" in found.paragraphs[-1]


def _objects(rows: list[tuple[str, str, tuple[int, ...], tuple[float, ...]]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "arm": arm, "fold": 0, "seed": 0, "case": case, "label": 1, "group": case,
                "reference_sizes": sizes, "reference_ious": ious,
            }
            for arm, case, sizes, ious in rows
        ]
    )  # fmt: skip


def test_objects_are_found_above_one_half_and_counted_once() -> None:
    rows = [
        (arm.name, f"c{case}", (10, 20), (0.5, own))
        for case in range(7)
        for arm, own in zip(_ARMS, (0.4, 0.9, 0.6), strict=True)
    ]
    rates = object_rates(_study(objects=_objects(rows)))
    assert rates["num_objects"].drop_duplicates().tolist() == [7]
    small, large = (rates[rates["size_group"] == k].set_index("arm") for k in (0, 1))
    assert small["found"].tolist() == [0, 0, 0]  # equal to the threshold is not above it
    np.testing.assert_allclose(small["iou"], 0.5)
    assert large["found"].tolist() == [0, 1, 1]
    np.testing.assert_allclose(large["iou"], [0.4, 0.9, 0.6])
    np.testing.assert_allclose(large["iou_gain"], [np.nan, 0.5, 0.2])
    assert (small["largest"] == 10).all()
    assert (large["smallest"] == 20).all()


def test_cases_without_objects_and_of_absent_arms_are_left_out() -> None:
    rows = [(arm.name, "a", (), ()) for arm in _ARMS]
    rows += [(arm.name, "b", (5,), (1.0,)) for arm in _ARMS[:2]]
    assert object_rates(_study(objects=_objects(rows))).empty


def test_the_section_draws_and_says_what_it_compares(tmp_path: Path) -> None:
    rows = [(arm.name, f"c{k}", (10,), (0.7,)) for k in range(9) for arm in _ARMS]
    found = section(_study(objects=_objects(rows)), tmp_path)
    assert found is not None
    assert [figure.name for figure in found.figures] == ["object_size", "object_rates"]
    assert all(figure.files for figure in found.figures)
    assert [table.name for table in found.tables] == ["object_size", "object_rates"]
    assert len(found.tables[0].rows) == 14
    assert "of 3 size groups that could be tested, a gain is significant in 0" in found.answer[0]
    flat = make_records(promise(_ARMS[:1], baseline="unet"), cases=_study().cases)
    assert section(flat, tmp_path) is None
