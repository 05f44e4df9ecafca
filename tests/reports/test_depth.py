import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_study import make_manifest
from scipy import stats

from reports.depth import choose_depth, depth_curves, depth_rows
from reports.records import StudyRecords
from unetpp.grid import plain_encoder, unet, unet_plus, unetpp
from unetpp.records import ArmEntry
from unetpp.spec import GridSpec

RATIO = 0.25
NAN = math.nan

# Multiples of 1/64: sums and differences of them are exact, so that ties are ties.
scores = st.integers(0, 64).map(lambda k: k / 64)


@st.composite
def tables(draw: st.DrawFn, *, min_folds: int = 2) -> pd.DataFrame:
    """Scores [depth, fold] of 1 to 4 depths."""
    num_depths, num_folds = draw(st.integers(1, 4)), draw(st.integers(min_folds, 8))
    values = st.lists(scores, min_size=num_folds, max_size=num_folds)
    return _table({depth: draw(values) for depth in range(1, num_depths + 1)})


def _table(by_depth: dict[int, list[float]]) -> pd.DataFrame:
    return pd.DataFrame(by_depth).transpose()


def _told(values: np.ndarray, ratio: float) -> bool:
    """The rule, written out: t is larger than its 97.5 % quantile."""
    spread = values.std(ddof=1) * math.sqrt(1 / len(values) + ratio)
    limit = stats.t.ppf(0.975, len(values) - 1)
    return bool(abs(values.mean()) > limit * spread)


@given(table=tables(), ratio=st.floats(0.05, 1))
def test_is_the_rule_written_out(table: pd.DataFrame, ratio: float) -> None:
    choice = choose_depth(table, test_train_ratio=ratio)
    assert choice is not None
    values = dict(enumerate(table.to_numpy(dtype=float), start=1))
    assert choice.best == 1 + int(table.to_numpy().mean(axis=1).argmax())
    best = values[choice.best]
    untold = [depth for depth, row in values.items() if not _told(row - best, ratio)]
    assert choice.shallow_enough == untold[0]
    assert untold[0] <= choice.best
    assert choice.num_folds == table.shape[1]


@given(table=tables(), data=st.data())
def test_only_what_depths_differ_by_within_a_fold_counts(
    table: pd.DataFrame, data: st.DataObject
) -> None:
    """Folds may be harder or easier, and come in any order."""
    shifts = [data.draw(scores) for _ in table.columns]
    order = data.draw(st.permutations(list(table.columns)))
    changed = table.add(pd.Series(shifts, index=table.columns), axis="columns")[order]
    first, second = (choose_depth(t, test_train_ratio=RATIO) for t in (table, changed))
    assert first is not None
    assert second is not None
    assert (first.best, first.shallow_enough) == (second.best, second.shallow_enough)


@given(table=tables(), smaller=st.floats(0.05, 1), larger=st.floats(0.05, 1))
def test_a_wider_interval_never_asks_for_a_deeper_network(
    table: pd.DataFrame, smaller: float, larger: float
) -> None:
    smaller, larger = sorted((smaller, larger))
    narrow, wide = (choose_depth(table, test_train_ratio=ratio) for ratio in (smaller, larger))
    assert narrow is not None
    assert wide is not None
    assert narrow.shallow_enough is not None
    assert wide.shallow_enough is not None
    assert wide.shallow_enough <= narrow.shallow_enough


def test_a_depth_is_enough_when_it_loses_in_some_folds_alone() -> None:
    table = _table(
        {
            1: [0.50, 0.51, 0.52, 0.50, 0.51],
            2: [0.80, 0.82, 0.83, 0.79, 0.81],
            3: [0.80, 0.83, 0.82, 0.80, 0.81],
            4: [0.79, 0.82, 0.82, 0.79, 0.80],
        }
    )
    choice = choose_depth(table, test_train_ratio=RATIO)
    assert choice is not None
    assert (choice.best, choice.shallow_enough) == (3, 2)
    # -0.01, 0.01, -0.01, 0, 0: by hand, t = 2.776 and the error sqrt(0.7e-4 (1/5 + 1/4)).
    difference = choice.differences[2]
    assert difference is not None
    assert difference.mean == pytest.approx(-0.002)
    half = 2.7764 * math.sqrt(0.7e-4 * 0.45)
    assert difference.high == pytest.approx(-0.002 + half, abs=1e-6)


def test_the_same_loss_in_every_fold_is_told() -> None:
    table = _table({1: [0.25, 0.5, 0.75], 2: [0.5, 0.75, 1.0]})
    choice = choose_depth(table, test_train_ratio=RATIO)
    assert choice is not None
    assert (choice.best, choice.shallow_enough) == (2, 2)


def test_of_equal_depths_the_shallower_is_best() -> None:
    table = _table({1: [0.25, 0.75], 2: [0.75, 0.25], 3: [0.5, 0.5]})
    choice = choose_depth(table, test_train_ratio=RATIO)
    assert choice is not None
    assert choice.best == 1


def test_one_fold_has_a_best_and_tells_nothing() -> None:
    choice = choose_depth(_table({1: [0.5], 2: [0.75]}), test_train_ratio=RATIO)
    assert choice is not None
    assert (choice.best, choice.shallow_enough) == (2, None)


def test_a_fold_that_some_depth_lacks_does_not_count() -> None:
    whole = _table({1: [0.5, 0.4, 0.6], 2: [0.7, 0.6, 0.9]})
    holed = _table({1: [0.5, 0.4, 0.6, NAN], 2: [0.7, 0.6, 0.9, 0.0]})
    first, second = (choose_depth(t, test_train_ratio=RATIO) for t in (whole, holed))
    assert first == second
    assert choose_depth(_table({1: [0.5, NAN], 2: [NAN, 0.5]}), test_train_ratio=RATIO) is None


def _arm(name: str, spec: GridSpec) -> ArmEntry:
    return ArmEntry(
        name=name,
        label=name,
        deep_supervision=spec.deep_supervision,
        spec_id=spec.id,
        spec=spec.to_json(),
        num_parameters=1000 * spec.depth,
        macs=2000 * spec.depth,
    )


def _depths() -> dict[str, GridSpec]:
    """The arms of a study of depth, out of order."""
    encoders = {depth: plain_encoder(depth, width=2) for depth in (1, 2, 3)}
    nested = {f"unetpp_l{depth}": unetpp(encoders[depth]) for depth in (3, 2)}
    return {**nested, **{f"unet_l{depth}": unet(encoders[depth]) for depth in (1, 2, 3)}}


_UNUSED = ("surfaces", "objects", "edges", "traces", "curves")


def _study(specs: Mapping[str, GridSpec], percent: Mapping[str, Sequence[int]]) -> StudyRecords:
    """Records with these Dice by fold, in per cent, of one case a fold."""
    arms = tuple(_arm(name, spec) for name, spec in specs.items())
    rows = [
        {
            "arm": arm, "fold": fold, "seed": 0, "case": f"case {fold}", "group": "",
            "output": "L1", "label": 1, "tp": value, "fp": 100 - value, "fn": 100 - value,
            "tn": 0, "judged": True,
        }
        for arm, values in percent.items()
        for fold, value in enumerate(values)
    ]  # fmt: skip
    runs = [{"arm": row["arm"], "fold": row["fold"], "primary_output": "L1"} for row in rows]
    manifest = make_manifest(num_folds=4, num_cases=40)
    unused: dict[str, Any] = {name: pd.DataFrame() for name in _UNUSED}
    return StudyRecords(
        manifest=replace(manifest, arms=arms, baseline=arms[0].name),
        invocations=(),
        runs=pd.DataFrame(runs),
        cases=pd.DataFrame(rows),
        latencies=pd.DataFrame(),
        missing=(),
        overlays=None,
        feature_maps=None,
        **unused,
    )


_PERCENT = {
    "unet_l1": [50, 50, 52, 50],
    "unet_l2": [80, 81, 82, 80],
    "unet_l3": [80, 82, 81, 80],
    "unetpp_l2": [70, 70, 71, 71],
    "unetpp_l3": [80, 81, 80, 81],
}


def test_curves_are_the_depths_of_each_family_shallowest_first() -> None:
    curves = depth_curves(_study(_depths(), _PERCENT))
    names = {
        family: {depth: arm.name for depth, arm in arms.items()} for family, arms in curves.items()
    }
    assert names == {
        "U-Net": {1: "unet_l1", 2: "unet_l2", 3: "unet_l3"},
        "UNet++": {1: "unet_l1", 2: "unetpp_l2", 3: "unetpp_l3"},
    }
    assert [list(depths) for depths in names.values()] == [[1, 2, 3], [1, 2, 3]]


def test_one_depth_or_deep_supervision_makes_no_curve() -> None:
    encoder = plain_encoder(3, width=2)
    flat = {
        "a": unet(encoder),
        "b": unet_plus(encoder),
        "c": unetpp(plain_encoder(2, width=2), deep_supervision=True),
        "d": unetpp(encoder, deep_supervision=True),
    }
    study = _study(flat, {"a": [50, 60]})
    assert depth_curves(study) == {}
    assert depth_rows([("data", study)]).empty


def _by_depth(frame: pd.DataFrame) -> dict[tuple[str, int], dict[Hashable, Any]]:
    return {(row["family"], row["depth"]): row for row in frame.to_dict("records")}


def _marked(rows: Mapping[tuple[str, int], Mapping[Hashable, Any]], mark: str) -> list[object]:
    return [place for place, row in rows.items() if row[mark]]


def test_rows_are_scores_and_differences_of_every_depth() -> None:
    study = _study(_depths(), _PERCENT)
    both = depth_rows([("first", study), ("second", study)])
    assert list(both["data"]) == ["first"] * 6 + ["second"] * 6
    rows = _by_depth(both[both["data"] == "second"])
    assert list(rows) == [(f, d) for f in ("U-Net", "UNet++") for d in (1, 2, 3)]
    assert _marked(rows, "shared") == [("U-Net", 1), ("UNet++", 1)]
    assert _marked(rows, "shallow_enough") == [("U-Net", 2), ("UNet++", 3)]
    assert ("UNet++", 3) in _marked(rows, "best")
    nested = rows["UNet++", 2]
    assert nested["dice_mean"] == pytest.approx(0.705)
    assert nested["delta_best"] == pytest.approx(-0.1)
    assert nested["delta_low"] < nested["delta_best"] < nested["delta_high"] < 0
    assert (nested["num_folds"], nested["curve_folds"]) == (4, 4)
    assert (nested["num_parameters"], nested["macs"]) == (2000, 4000)
    # By hand: sd of 70, 70, 71, 71 is 0.577; t of 3 degrees 3.182; 1/4 + 1/3 under the root.
    half = 3.18245 * 0.577350e-2 * math.sqrt(1 / 4 + 1 / 3)
    assert nested["dice_low"] == pytest.approx(0.705 - half, abs=1e-6)
    assert nested["dice_high"] == pytest.approx(0.705 + half, abs=1e-6)


def test_an_arm_without_a_score_has_a_row_without_one() -> None:
    percent = {name: values for name, values in _PERCENT.items() if name != "unet_l3"}
    rows = _by_depth(depth_rows([("data", _study(_depths(), percent))]))
    assert math.isnan(rows["U-Net", 3]["dice_mean"])
    assert rows["U-Net", 3]["num_folds"] == 0
    assert _marked(rows, "best") == [("UNet++", 3)]
