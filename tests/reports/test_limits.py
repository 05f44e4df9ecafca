from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from make_cases import make_records, row

from reports.limits import limits, rising
from reports.records import StudyRecords
from unetpp.recipe import TrainRecipe


def _study(
    *, num_cases: int = 60, seeds: int = 1, gap: float = 0.2, **changes: Any
) -> StudyRecords:
    return make_records(
        [
            row(
                arm,
                f"{k:03d}",
                round(0.5 + 0.002 * (k % 20) + 0.01 * seed + gap * (arm == "unetpp"), 3),
                fold=k % 5,
                seed=seed,
            )
            for k in range(num_cases)
            for seed in range(seeds)
            for arm in ("unet", "unetpp")
        ],
        **changes,
    )


def _says(study: StudyRecords, part: str) -> bool:
    return any(part in line for line in limits(study))


def test_what_is_always_true_is_always_said(study: StudyRecords) -> None:
    for part in ("no external test set", "One recipe served all arms", "strong the baseline is"):
        assert _says(study, part)


def test_one_seed_is_said_of_one_seed_alone() -> None:
    assert _says(_study(), "One seed")
    assert not _says(_study(seeds=2), "One seed")


def test_few_groups_are_counted() -> None:
    assert _says(_study(num_cases=20), "20 independent groups (unit: case)")
    assert not _says(_study(), "independent groups")


def test_groups_in_several_folds_are_a_leak() -> None:
    assert not _says(_study(), "several folds")
    rows = [
        row(arm, f"{k}", 0.5, fold=k % 2, group="g" if k < 2 else f"{k}")
        for k in range(6)
        for arm in ("unet", "unetpp")
    ]
    assert _says(make_records(rows), "1 of 5 groups has cases in several folds")


def test_arms_within_the_noise_of_runs_are_said_to_be() -> None:
    assert not _says(_study(gap=0.2), "differ by less")
    assert _says(_study(gap=0.002), "differ by less")


def _curve(gain: float) -> pd.DataFrame:
    """Twenty epochs that reach 0.5 at epoch 15 and gain this much by epoch 19."""
    return pd.DataFrame(
        {
            "arm": "unetpp", "fold": 0, "seed": 0, "epoch": range(20),
            "held_out_dice": [0.5 * min(1, e / 15) + gain * max(0, e - 15) / 4 for e in range(20)],
        }
    )  # fmt: skip


def test_curves_that_still_rise_are_told_with_the_size() -> None:
    study = replace(_study(), curves=_curve(0.04))
    assert rising(study).loc["unetpp"] == pytest.approx(0.04)
    assert _says(study, "still rose by up to 0.040 (UNet++)")
    assert not _says(replace(_study(), curves=_curve(0.004)), "still rose")


def test_curves_scored_once_say_nothing_of_rising() -> None:
    assert rising(replace(_study(), curves=_curve(0.04).tail(1))).empty
    assert rising(replace(_study(), curves=_curve(0.04).assign(held_out_dice=float("nan")))).empty


def test_missing_runs_come_first() -> None:
    study = replace(_study(), missing=(("unet", 0, 1),))
    assert limits(study)[0].startswith("1 of 10 runs are missing")


def test_precision_and_width_are_said_where_they_differ_from_the_paper() -> None:
    half = TrainRecipe(epochs=20, precision="bf16").to_json()
    assert not _says(_study(), "bf16")
    assert _says(_study(recipe=half), "trained in bf16 and scored in fp32")
    assert _says(_study(), "finest level has 8 channels in place of 32")


def test_imputed_distances_are_counted() -> None:
    sizes = {"size_predicted": [5, 0, 0], "size_truth": [5, 5, 0]}
    distances = {key: [1.0, None, None] for key in ("hd95", "assd")}
    near = {key: [5, 0, 0] for key in ("near_predicted", "near_truth")}
    surfaces = pd.DataFrame({**sizes, **distances, **near, "diagonal": 100.0})
    assert _says(replace(_study(), surfaces=surfaces), "1 of 3 boundary distances")
    assert not _says(_study(), "boundary distances")


def test_one_machine_and_several() -> None:
    rows = pd.DataFrame({"machine_summary": ["A", "A"]})
    assert _says(replace(_study(), latencies=rows), "one machine (A)")
    rows = pd.DataFrame({"machine_summary": ["A", "B"]})
    assert _says(replace(_study(), latencies=rows), "several machines")


def test_a_study_that_trains_nothing_has_no_limits(study: StudyRecords) -> None:
    described = replace(study.manifest, trains=False)
    assert limits(replace(study, manifest=described)) == ()


def test_two_runs_are_few() -> None:
    rows = [row(arm, f"{k}", 0.5, fold=k % 2) for k in range(4) for arm in ("unet", "unetpp")]
    assert _says(make_records(rows), "Only 2 runs an arm")
    assert not _says(_study(), "Only")


def test_machines_that_trained_are_counted_where_there_are_several(study: StudyRecords) -> None:
    assert not _says(study, "kinds of machines")
    runs = study.runs.copy()
    runs.loc[runs.index[0], "machine"] = "another"
    assert _says(replace(study, runs=runs), "2 kinds of machines (")


def test_networks_that_came_out_otherwise_are_counted(study: StudyRecords) -> None:
    assert not _says(study, "came out otherwise")
    runs = study.runs.copy()
    runs.loc[runs.index[:2], "retrained_at"] = "2026-11-29T08:00:00+00:00"
    assert _says(replace(study, runs=runs), f"networks of 2 of {len(runs)} runs were lost")
