from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import ndimage

from unetpp.metrics.objects import (
    COCO_EDGES,
    THRESHOLDS,
    ObjectMatch,
    average_precision,
    dsb_score,
    match_objects,
    panoptic_quality,
    recall_by_size,
    tertile_edges,
)
from unetpp.metrics.overlap import EMPTY_POLICIES, EmptyPolicy, count_overlap, dice

_SHAPES = hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=7)
_EMPTY = match_objects(np.zeros((4, 4), bool), np.zeros((4, 4), bool))


@st.composite
def _pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Masks that share most of their pixels, so that objects overlap in all ways."""
    shape = draw(_SHAPES)
    seed, flipped = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.0, 0.1, 0.3, 0.5]))
    generator = np.random.default_rng(seed)
    truth = generator.random(shape) < draw(st.sampled_from([0.3, 0.5, 0.7]))
    return truth ^ (generator.random(shape) < flipped), truth


def _row(text: str) -> np.ndarray:
    """One line of pixels: "##.#" has an object of 2 and one of 1."""
    return np.array([[mark == "#" for mark in text]])


def _made(
    reference: list[float], predicted: list[float], scores: list[float] | None = None
) -> ObjectMatch:
    """A match with these IoUs; sizes do not matter to the scores."""
    return ObjectMatch(
        reference_sizes=(5,) * len(reference),
        reference_ious=tuple(reference),
        predicted_sizes=(5,) * len(predicted),
        predicted_ious=tuple(predicted),
        predicted_scores=tuple(scores or [np.nan] * len(predicted)),
    )


def _pixel_sets(mask: np.ndarray) -> list[set[tuple[int, ...]]]:
    """Objects by flooding from pixel to pixel, in the order of the image."""
    left, objects = {tuple(p) for p in np.argwhere(mask).tolist()}, []
    while left:
        grown, edge = set(), [min(left)]
        while edge:
            pixel = edge.pop()
            if pixel in left:
                left.remove(pixel)
                grown.add(pixel)
                steps = [(a, s) for a in range(mask.ndim) for s in (-1, 1)]
                edge += [(*pixel[:a], pixel[a] + s, *pixel[a + 1 :]) for a, s in steps]
        objects.append(grown)
    return objects


@given(_pairs())
def test_a_match_is_that_of_a_slow_walk_over_all_pairs(pair: tuple[np.ndarray, np.ndarray]):
    predicted, truth = (_pixel_sets(mask) for mask in pair)
    pairs = [
        (-len(p & r) / len(p | r), i, j)
        for i, p in enumerate(predicted)
        for j, r in enumerate(truth)
        if p & r
    ]
    ious_p, ious_r = [0.0] * len(predicted), [0.0] * len(truth)
    for minus_iou, i, j in sorted(pairs):
        if ious_p[i] == ious_r[j] == 0:
            ious_p[i] = ious_r[j] = -minus_iou
    match = match_objects(*pair)
    assert match.predicted_sizes == tuple(len(p) for p in predicted)
    assert match.reference_sizes == tuple(len(r) for r in truth)
    assert match.predicted_ious == tuple(ious_p)
    assert match.reference_ious == tuple(ious_r)
    assert np.isnan(match.predicted_scores).all()


def test_objects_touch_along_an_axis_and_not_over_a_corner():
    corner = np.eye(2, dtype=bool)
    assert match_objects(corner, corner).reference_sizes == (1, 1)
    side = np.ones((2, 1), bool)
    assert match_objects(side, side).reference_sizes == (2,)


def test_a_score_is_the_mean_confidence_over_the_object():
    confidence = np.array([[0.9, 0.7, 0.1, 0.6]], np.float32)
    match = match_objects(_row("##.#"), _row("...."), confidence)
    assert match.predicted_scores == pytest.approx((0.8, 0.6))
    assert match_objects(_row("...."), _row("#..."), confidence).predicted_scores == ()


def test_below_a_half_the_largest_iou_takes_its_pair_first():
    # The one predicted object shares 2 of 8 pixels with the first and 3 of 8 with the second;
    # the second predicted object, 1 of 5 with the second, goes without.
    match = match_objects(_row("########.#"), _row("##.####..."))
    assert match.reference_ious == (0.0, 4 / 8)
    assert match.predicted_ious == (4 / 8, 0.0)


def test_of_equal_ious_the_first_one_in_the_image_gets_the_pair():
    halves = match_objects(_row("##.##"), _row("#####"))
    assert (halves.predicted_ious, halves.reference_ious) == ((0.4, 0.0), (0.4,))
    halves = match_objects(_row("#####"), _row("##.##"))
    assert (halves.predicted_ious, halves.reference_ious) == ((0.4,), (0.4, 0.0))


@given(_pairs())
def test_from_a_half_on_no_object_has_two_partners(pair: tuple[np.ndarray, np.ndarray]):
    predicted, truth = (_pixel_sets(mask) for mask in pair)
    ious = np.array([[len(p & r) / len(p | r) for r in truth] for p in predicted])
    if ious.size:
        assert (ious >= 0.5).sum(axis=0).max() <= 1
        assert (ious >= 0.5).sum(axis=1).max() <= 1


@given(_pairs())
def test_fewer_pairs_hit_a_higher_threshold(pair: tuple[np.ndarray, np.ndarray]):
    match = match_objects(*pair)
    hits = [recall_by_size([match], (), threshold=t)[0].hits for t in (0, 0.1, 0.3, *THRESHOLDS)]
    assert hits == sorted(hits, reverse=True)
    assert sorted(filter(None, match.reference_ious)) == sorted(filter(None, match.predicted_ious))


@given(hnp.arrays(np.bool_, _SHAPES))
def test_what_is_found_exactly_scores_one(mask: np.ndarray):
    match = match_objects(mask, mask, mask.astype(np.float32))
    expected = 1.0 if mask.any() else np.nan
    quality = panoptic_quality([match])
    scores = [dsb_score(match), quality.pq, quality.sq, quality.rq]
    scores += [average_precision([match]), recall_by_size([match], ())[0].recall]
    np.testing.assert_allclose(scores, expected)


@given(_pairs())
def test_panoptic_quality_is_a_product_and_all_scores_are_shares(
    pair: tuple[np.ndarray, np.ndarray],
):
    match = match_objects(*pair, pair[0].astype(np.float64))
    quality = panoptic_quality([match])
    if quality.rq > 0:
        assert quality.pq == pytest.approx(quality.sq * quality.rq)
        assert 0.5 < quality.sq <= 1
    for value in (quality.pq, dsb_score(match), average_precision([match])):
        assert np.isnan(value) or 0 <= value <= 1


def test_the_dsb_score_by_hand():
    # IoU 0.62 is a hit at 0.5, 0.55 and 0.6; with it there are 2 hits, a missed and a false one.
    match = _made([1.0, 0.62, 0.0], [0.0, 1.0, 0.62])
    assert dsb_score(match) == pytest.approx((3 * 2 / 4 + 7 * 1 / 5) / 10)


@pytest.mark.parametrize(("twentieths", "hits"), [(k, k - 10) for k in range(10, 21)])
def test_an_iou_on_a_threshold_hits_it_in_coco_and_not_in_the_data_science_bowl(
    twentieths: int, hits: int
):
    match = match_objects(
        np.arange(20)[None] < twentieths, np.ones((1, 20), bool), np.ones((1, 20))
    )
    assert dsb_score(match) == pytest.approx(hits / 10)
    assert average_precision([match]) == pytest.approx(min(hits + 1, 10) / 10)


def test_objects_that_are_merged_cost_both_and_hardly_any_dice():
    truth = np.zeros((30, 61), bool)
    truth[5:25, 5:30] = truth[5:25, 31:56] = True
    merged = truth.copy()
    merged[15, 30] = True
    match = match_objects(merged, truth)
    assert len(match.reference_ious) == 2
    assert match.predicted_ious == (pytest.approx(500 / 1001),)
    assert dsb_score(match) == 0
    assert dice(*count_overlap(merged[None], truth[None])[:3])[0] > 0.999


def test_objects_that_touch_in_the_truth_are_one():
    truth = _row("###.###")
    assert match_objects(truth, truth).reference_sizes == (3, 3)
    truth = _row("######.")
    assert match_objects(truth, truth).reference_sizes == (6,)


def _pq_of_one(match: ObjectMatch, *, empty: EmptyPolicy) -> float:
    return panoptic_quality([match], empty=empty).pq


@pytest.mark.parametrize("score", [dsb_score, _pq_of_one])
def test_images_without_objects_under_each_rule(score: Callable[..., float]):
    false, missed = _made([], [0.0], [0.5]), _made([0.0], [])
    found = [[score(m, empty=rule) for rule in EMPTY_POLICIES] for m in (_EMPTY, false, missed)]
    np.testing.assert_array_equal(found, [[np.nan, 1, np.nan], [0, 0, np.nan], [0, 0, 0]])


def test_without_a_hit_there_is_no_segmentation_quality():
    assert np.isnan(panoptic_quality([_made([0.0], [])]).sq)
    assert panoptic_quality([_made([0.0], [])], empty="one").sq == 0


def test_panoptic_quality_by_hand_per_image_and_pooled():
    one, two = _made([0.8, 0.5], [0.8]), _made([0.6], [0.6, 0.0, 0.0])
    # 0.5 is no hit. One: TP 1, FN 1. Two: TP 1, FP 2.
    assert panoptic_quality([one]).pq == pytest.approx(0.8 / 1.5)
    assert panoptic_quality([two]).pq == pytest.approx(0.6 / 2)
    pooled = panoptic_quality([one, two, _EMPTY])
    assert pooled.sq == pytest.approx(0.7)
    assert pooled.rq == pytest.approx(2 / 3.5)
    assert pooled.pq == pytest.approx(1.4 / 3.5)


def test_average_precision_by_hand():
    # In the order of confidence: hit, false, hit; a third object is never found. The precision is
    # 1 up to a recall of 1/3 (34 of the 101 recalls) and 2/3 up to 2/3 (33 more).
    match = _made([0.7, 0.7, 0.0], [0.7, 0.0, 0.7], [0.9, 0.5, 0.1])
    assert average_precision([match], (0.5,)) == pytest.approx((34 + 33 * 2 / 3) / 101)
    assert average_precision([match]) == pytest.approx((34 + 33 * 2 / 3) / 101 * 5 / 10)


def test_average_precision_where_there_is_nothing():
    perfect = _made([1.0, 1.0], [1.0, 1.0], [0.3, 0.3])
    assert average_precision([perfect]) == 1
    assert average_precision([_made([0.0], [])]) == 0
    # COCO says -1 for a class that never occurs; a mean must not swallow that, so ours is NaN.
    assert np.isnan(average_precision([_EMPTY]))
    assert np.isnan(average_precision([_made([], [0.0], [0.5])]))
    # Nothing can be sorted without a confidence.
    assert np.isnan(average_precision([_made([1.0], [1.0])]))


def _cocos_precision(cases: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """AP and AP50 as pycocotools computes them from the components, as run lengths."""
    truths: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image, (predicted, truth, confidence) in enumerate(cases, start=1):
        for mask, rows in ((truth, truths), (predicted, found)):
            labels = np.zeros(mask.shape, int)
            num = ndimage.label(mask, output=labels)
            assert isinstance(num, int)
            for k in range(1, num + 1):
                code = rle.encode(np.asfortranarray(labels == k, np.uint8))
                row = {"id": len(rows) + 1, "image_id": image, "category_id": 1}
                row |= {"segmentation": code, "bbox": rle.toBbox(code).tolist(), "iscrowd": 0}
                rows.append(
                    row | {"area": int(rle.area(code)), "score": confidence[labels == k].mean()}
                )
    sides = []
    with contextlib.redirect_stdout(io.StringIO()):
        for rows in (truths, found):
            coco, size = COCO(), dict(zip(("height", "width"), cases[0][0].shape, strict=True))
            tables: Any = {"annotations": rows, "categories": [{"id": 1}]}
            tables["images"] = [{"id": n + 1, **size} for n in range(len(cases))]
            coco.dataset = tables
            coco.createIndex()
            sides.append(coco)
        judge = COCOeval(*sides, iouType="segm")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return float(judge.stats[0]), float(judge.stats[1])


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_that_of_pycocotools(seed: int):
    generator, cases = np.random.default_rng(seed), []
    for _ in range(5):
        noise = [ndimage.gaussian_filter(n, 2.5) for n in generator.standard_normal((3, 64, 64))]
        truth, predicted = noise[0] > 0.07, noise[0] + 0.3 * noise[1] > 0.07
        # Few values, so that objects tie; eighths, so that their means are exact and tie as well.
        confidence = np.round(8 * ndimage.grey_dilation(noise[2], 15)) / 8
        cases.append((predicted, truth, confidence))
    cases.append((np.zeros_like(cases[0][0]), *cases[0][1:]))
    cases.append((cases[0][0], np.zeros_like(cases[0][1]), cases[0][2]))
    matches = [match_objects(*case) for case in cases]
    ap, ap50 = _cocos_precision(cases)
    assert 0.02 < ap < ap50 < 0.98
    assert average_precision(matches) == pytest.approx(ap, abs=1e-12)
    assert average_precision(matches, (0.5,)) == pytest.approx(ap50, abs=1e-12)


def test_recall_by_size_counts_each_true_object_once():
    match = ObjectMatch(
        reference_sizes=(3, 1023, 1024, 9216),
        reference_ious=(0.9, 0.5, 0.6, 0.0),
        predicted_sizes=(3, 1000, 1100),
        predicted_ious=(0.9, 0.5, 0.6),
        predicted_scores=(np.nan,) * 3,
    )
    groups = recall_by_size([match, _EMPTY, match], COCO_EDGES)
    assert [(g.low, g.high, g.num, g.hits) for g in groups] == [
        (0, 1024, 4, 2),
        (1024, 9216, 2, 2),
        (9216, np.inf, 2, 0),
    ]
    assert [g.recall for g in groups] == [0.5, 1, 0]
    assert recall_by_size([match], (), threshold=0.4)[0].recall == 0.75
    assert np.isnan(recall_by_size([_EMPTY], (10,))[0].recall)


@given(st.lists(st.integers(1, 40), max_size=30, unique=True))
def test_tertiles_part_the_objects_into_thirds(sizes: list[int]):
    match = ObjectMatch(
        reference_sizes=tuple(sizes),
        reference_ious=(1.0,) * len(sizes),
        predicted_sizes=(),
        predicted_ious=(),
        predicted_scores=(),
    )
    groups = recall_by_size([match], tertile_edges([match]))
    assert sum(g.num for g in groups) == len(sizes)
    if len(sizes) >= 3:
        assert len(groups) == 3
        assert max(g.num for g in groups) - min(g.num for g in groups) <= 1


def test_tertiles_of_equal_sizes_are_one_group():
    assert tertile_edges([_EMPTY]) == ()
    assert tertile_edges([_made([1.0] * 9, [])]) == ()


@pytest.mark.real_data
def test_components_over_faces_are_closer_to_the_annotated_nuclei():
    folder = Path(os.environ.get("UNETPP_SHARED", "../shared")) / "data" / "dsb2018" / "masks"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}, or UNETPP_SHARED")
    totals = np.zeros(3, int)
    for path in sorted(folder.iterdir()):
        nuclei = np.array(Image.open(path))
        over_corners = ndimage.label(nuclei > 0, np.ones((3, 3)), np.zeros(nuclei.shape, int))
        over_faces = len(match_objects(nuclei > 0, nuclei > 0).reference_sizes)
        totals += [len(np.unique(nuclei)) - 1, over_faces, over_corners]
    assert totals.tolist() == [28_986, 24_111, 23_891]
