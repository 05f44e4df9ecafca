from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_cases import by_arm, make_records, row

from reports.boundary_scores import boundary_scores, num_imputed
from reports.object_scores import object_counts, precision_rows
from reports.records import StudyRecords
from reports.sections.boundaries import section
from unetpp.metrics.objects import (
    ObjectMatch,
    average_precision,
    dsb_score,
    panoptic_quality,
)
from unetpp.metrics.overlap import EmptyPolicy
from unetpp.metrics.surface import SurfaceScores, impute


def _surface(arm: str, case: str, hd95: float | None, **changes: Any) -> dict[str, Any]:
    values = {
        "arm": arm, "fold": 0, "seed": 0, "case": case, "group": case, "label": 1,
        "hd": hd95, "hd95": hd95, "assd": hd95, "masd": hd95, "tolerance": 2.0,
        "near_predicted": 30, "near_truth": 20, "size_predicted": 50, "size_truth": 50,
        "diagonal": 100.0, "unit": "mm",
    }  # fmt: skip
    return values | changes


def _study(rows: list[dict[str, Any]], name: str = "surfaces", **changes: Any) -> StudyRecords:
    cases = [row(arm, f"{k}", 0.5, fold=k % 2) for k in range(8) for arm in ("unet", "unetpp")]
    texts = dict.fromkeys(("arm", "case", "group"), "category")
    return replace(
        make_records(cases, **changes), **{name: pd.DataFrame(rows).astype(texts)}
    )  # fmt: skip


_EMPTY = {"near_predicted": 0, "near_truth": 0, "size_predicted": 0}


def test_a_missed_object_gets_the_diagonal_and_an_empty_pair_nothing() -> None:
    rows = pd.DataFrame(
        [
            _surface("unet", "a", 4.0),
            _surface("unet", "b", None, **_EMPTY),
            _surface("unet", "c", None, **_EMPTY, size_truth=0),
        ]
    )
    found = boundary_scores(rows)
    np.testing.assert_array_equal(found.scores["hd95"], [4.0, 100.0, np.nan])
    np.testing.assert_array_equal(found.scores["nsd"], [0.5, 0.0, np.nan])
    assert found.imputed.tolist() == [False, True, False]
    assert found.both_empty.tolist() == [False, False, True]


@given(predicted=st.integers(0, 2), truth=st.integers(0, 2))
def test_the_rule_is_that_of_the_metric(predicted: int, truth: int) -> None:
    both = bool(predicted and truth)
    sizes = {"size_predicted": predicted, "size_truth": truth, "near_predicted": 0, "near_truth": 0}
    one = _surface("unet", "a", 7.0 if both else None, **sizes)
    wanted, made_up = impute(
        SurfaceScores(
            hd=np.nan, hd95=7.0 if both else np.nan, assd=np.nan, masd=np.nan, tolerance=2,
            near_predicted=0, near_truth=0, size_predicted=predicted, size_truth=truth,
        ),
        100.0,
    )  # fmt: skip
    found = boundary_scores(pd.DataFrame([one]))
    np.testing.assert_array_equal(found.scores["hd95"], [wanted.hd95])
    assert found.imputed.tolist() == [made_up]


def test_missing_more_objects_makes_the_mean_distance_no_better(tmp_path: Path) -> None:
    rows = [_surface("unet", f"{k}", 5.0) for k in range(8)]
    rows += [_surface("unetpp", f"{k}", 4.0) for k in range(6)]
    rows += [_surface("unetpp", f"{k}", None, **_EMPTY) for k in (6, 7)]
    study = _study(rows)
    found = section(study, tmp_path)
    assert found is not None
    (table,) = found.tables
    data = by_arm(table.data)
    assert data["unetpp"]["hd95"] == pytest.approx((6 * 4 + 2 * 100) / 8)
    assert data["unetpp"]["hd95_delta"] == pytest.approx(28 - 5)
    assert table.data["imputed"].tolist() == [0, 2]
    assert num_imputed(study) == 2
    assert table.rows[0][1].rank == 1
    text = " ".join(table.notes)
    for part in ("2 of 16 (case and run)", "within 2 mm", "95th percentiles", "unit: case"):
        assert part in text


def test_units_are_never_mixed(tmp_path: Path) -> None:
    rows = [_surface("unet", "0", 5.0), _surface("unet", "1", 5.0, unit="pixel")]
    found = section(_study(rows), tmp_path)
    assert found is not None
    assert found.tables == ()
    assert "which no mean may mix" in " ".join(found.paragraphs)


def test_nothing_recorded_gives_no_section(study: StudyRecords, tmp_path: Path) -> None:
    assert section(study, tmp_path) is None


_BARE = make_records([row("unet", "a", 0.5)])
_ious = st.lists(st.sampled_from([0.0, 0.3, 0.5, 0.55, 0.6, 0.81, 0.95, 1.0]), max_size=4)


@st.composite
def _matches(draw: st.DrawFn) -> ObjectMatch:
    """Partners have one IoU; some objects of either side have none."""
    paired = [iou for iou in draw(_ious) if iou]
    true, found = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    predicted = draw(st.permutations([*paired, *([0.0] * found)]))
    scores = draw(
        st.lists(st.sampled_from([0.2, 0.5, 0.9]), min_size=len(predicted), max_size=len(predicted))
    )
    return ObjectMatch(
        reference_sizes=(9,) * (len(paired) + true),
        reference_ious=(*paired, *([0.0] * true)),
        predicted_sizes=(9,) * len(predicted),
        predicted_ious=tuple(predicted),
        predicted_scores=tuple(scores),
    )


def _object_rows(matches: list[ObjectMatch], arm: str = "unet") -> list[dict[str, Any]]:
    return [
        {"arm": arm, "fold": 0, "seed": 0, "case": f"{k}", "group": f"{k}", "label": 1}
        | {name: list(getattr(match, name)) for name in ObjectMatch.__slots__}
        for k, match in enumerate(matches)
    ]


@settings(max_examples=60, deadline=None)
@given(
    matches=st.lists(_matches(), min_size=1, max_size=6),
    empty=st.sampled_from(["nan", "one", "drop_empty_gt"]),
)
def test_all_rows_at_once_score_what_the_metric_scores_one_by_one(
    matches: list[ObjectMatch], empty: EmptyPolicy
) -> None:
    rows = pd.DataFrame(_object_rows(matches))
    found = object_counts(rows, empty=empty)
    np.testing.assert_allclose(found.dsb, [dsb_score(match, empty=empty) for match in matches])
    quality = panoptic_quality(matches)
    hits, overlap, num = found.hits.sum(), found.overlap.sum(), found.num_objects.sum()
    if num:
        assert quality.pq == pytest.approx(2 * overlap / num)
        assert quality.rq == pytest.approx(2 * hits / num)
    if hits:
        assert quality.sq == pytest.approx(overlap / hits)


@settings(max_examples=30, deadline=None)
@given(matches=st.lists(_matches(), min_size=1, max_size=6))
def test_average_precision_is_that_of_all_images_of_a_run(matches: list[ObjectMatch]) -> None:
    rows = pd.DataFrame(_object_rows(matches))
    (found,) = precision_rows(_BARE, rows).to_dict("records")
    np.testing.assert_allclose(found["ap"], average_precision(matches))
    np.testing.assert_allclose(found["ap50"], average_precision(matches, (0.5,)))


def _match(*ious: float) -> ObjectMatch:
    sizes = (9,) * len(ious)
    return ObjectMatch(
        reference_sizes=sizes, reference_ious=ious, predicted_sizes=sizes, predicted_ious=ious,
        predicted_scores=(0.9,) * len(ious),
    )  # fmt: skip


def test_the_table_of_objects_ranks_and_compares(tmp_path: Path) -> None:
    rows = _object_rows([_match(0.99)] * 8) + _object_rows([_match(0.99, 0.0)] * 8, "unetpp")
    found = section(_study(rows, "objects"), tmp_path)
    assert found is not None
    (table,) = found.tables
    data = by_arm(table.data)
    assert table.data["dsb"].tolist() == pytest.approx([1, 1 / 3])
    assert table.data["pq"].tolist() == pytest.approx([0.99, 0.99 * 0.5])
    assert data["unetpp"]["pq_delta"] == pytest.approx(-0.495)
    assert data["unetpp"]["dsb_delta_high"] < 0
    # Of two arms the second is no distinction.
    assert [line[1].rank for line in table.rows] == [1, 0]
    assert "not COCO's AP" in " ".join(table.notes)


def test_an_arm_that_lacks_cases_is_not_ranked_nor_compared_by_pooled_scores(
    tmp_path: Path,
) -> None:
    rows = _object_rows([_match(0.9)] * 8) + _object_rows([_match(0.8)] * 7, "unetpp")
    found = section(_study(rows, "objects"), tmp_path)
    assert found is not None
    (table,) = found.tables
    assert np.isnan(by_arm(table.data)["unetpp"]["pq_delta"])
    # The mean over cases is paired: over the seven that both have.
    assert by_arm(table.data)["unetpp"]["dsb_delta"] == pytest.approx(6 / 10 - 8 / 10)
    assert {line[1].rank for line in table.rows} == {0}
