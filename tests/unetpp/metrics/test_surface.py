from __future__ import annotations

from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from unetpp.metrics.overlap import count_overlap, dice
from unetpp.metrics.surface import (
    SurfaceScores,
    boundary,
    image_diagonal,
    impute,
    nsd,
    surface_distances,
)

Pair = tuple[np.ndarray, np.ndarray]

_SHAPES = hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6)
_SPACINGS = st.sampled_from([0.3, 0.5, 1.0, 2.0, 2.7])


@st.composite
def _pairs(draw: st.DrawFn) -> Pair:
    shape = draw(_SHAPES)
    return draw(hnp.arrays(np.bool_, shape)), draw(hnp.arrays(np.bool_, shape))


@st.composite
def _spaced_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    predicted, truth = draw(_pairs())
    return predicted, truth, tuple(draw(_SPACINGS) for _ in predicted.shape)


def _compared(predicted: np.ndarray, truth: np.ndarray, tolerance: float = 1.0) -> SurfaceScores:
    return surface_distances(predicted, truth, (1.0,) * truth.ndim, tolerance=tolerance)


def _directed_by_force(source: np.ndarray, target: np.ndarray, spacing: tuple[float, ...]):
    """Each boundary pixel of one mask against each of the other, neighbour by neighbour."""
    edges = [np.argwhere(_edge_by_force(mask)) for mask in (source, target)]
    gaps = (edges[0][:, None] - edges[1][None]) * np.array(spacing)
    return np.sqrt((gaps**2).sum(axis=-1)).min(axis=1)


def _edge_by_force(mask: np.ndarray) -> np.ndarray:
    edge = np.zeros_like(mask)
    steps = np.concatenate([np.eye(mask.ndim, dtype=int), -np.eye(mask.ndim, dtype=int)])
    for pixel in np.argwhere(mask):
        for neighbour in pixel + steps:
            inside = (neighbour >= 0).all() and (neighbour < mask.shape).all()
            edge[tuple(pixel)] |= not inside or not mask[tuple(neighbour)]
    return edge


def _scores_by_force(
    predicted: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...], tolerance: float
) -> SurfaceScores:
    a = _directed_by_force(predicted, truth, spacing)
    b = _directed_by_force(truth, predicted, spacing)
    return SurfaceScores(
        hd=max([*a, *b]),
        hd95=max(np.quantile(a, 0.95), np.quantile(b, 0.95)),
        assd=(sum(a) + sum(b)) / (len(a) + len(b)),
        masd=(sum(a) / len(a) + sum(b) / len(b)) / 2,
        tolerance=tolerance,
        near_predicted=sum(d <= tolerance + 1e-9 for d in a),
        near_truth=sum(d <= tolerance + 1e-9 for d in b),
        size_predicted=len(a),
        size_truth=len(b),
    )


def _box(shape: tuple[int, ...], *ranges: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*r) for r in ranges)] = True
    return mask


@given(_spaced_pairs(), st.sampled_from([0.0, 0.5, 0.9, 1.0, 2.0]))
def test_scores_are_those_of_brute_force(
    case: tuple[np.ndarray, np.ndarray, tuple[float, ...]], tolerance: float
):
    predicted, truth, spacing = case
    if not (predicted.any() and truth.any()):
        return
    ours = surface_distances(predicted, truth, spacing, tolerance=tolerance)
    theirs = _scores_by_force(predicted, truth, spacing, tolerance)
    np.testing.assert_allclose(astuple(ours), astuple(theirs), atol=1e-9)


@given(hnp.arrays(np.bool_, _SHAPES))
def test_the_boundary_is_the_mask_minus_its_erosion(mask: np.ndarray):
    np.testing.assert_array_equal(boundary(mask), mask & ~ndimage.binary_erosion(mask))
    np.testing.assert_array_equal(boundary(mask), _edge_by_force(mask))


def test_a_mask_that_fills_the_image_has_the_image_border_as_boundary():
    assert boundary(np.ones((4, 5), bool)).sum() == 14
    assert boundary(np.ones((4, 5, 6), bool)).sum() == 120 - 2 * 3 * 4


def test_large_masks_have_the_distances_of_a_distance_transform():
    generator = np.random.default_rng(3)
    for shape, spacing in (((90, 120), (0.7, 1.3)), ((24, 30, 20), (3.0, 1.0, 0.5))):
        noise = generator.standard_normal((2, *shape))
        smooth = [ndimage.gaussian_filter(n, 3, mode="nearest") for n in noise]
        truth, predicted = smooth[0] > 0, smooth[0] + 0.3 * smooth[1] > 0
        edges = boundary(predicted), boundary(truth)
        to_edge = [
            np.asarray(ndimage.distance_transform_edt(~edge, sampling=spacing)) for edge in edges
        ]
        distances = np.concatenate([to_edge[1][edges[0]], to_edge[0][edges[1]]])
        scores = surface_distances(predicted, truth, spacing, tolerance=1)
        assert scores.hd == pytest.approx(distances.max())
        assert scores.assd == pytest.approx(distances.mean())
        assert scores.nsd == pytest.approx(np.mean(distances <= 1))


def test_the_cross_of_metrics_reloaded():
    truth = _box((11, 11), (3, 8), (3, 8))
    predicted = truth | _box((11, 11), (5, 6), (1, 10)) | _box((11, 11), (1, 10), (5, 6))
    scores = _compared(predicted, truth)
    assert scores.hd == pytest.approx(2)
    assert scores.assd == pytest.approx(0.4444444, abs=1e-7)
    assert scores.masd == pytest.approx(0.425, abs=1e-7)
    assert scores.nsd == pytest.approx(0.8888889, abs=1e-7)
    assert _compared(predicted, truth, tolerance=2).nsd == 1


def test_figure_5c_of_metrics_reloaded_and_the_other_definition_of_hd95():
    predicted = _box((14, 14), (9, 12), (9, 12))
    truth = predicted | _box((14, 14), (1, 2), (1, 2))
    scores = _compared(predicted, truth)
    assert scores.hd == pytest.approx(11.313708, abs=1e-6)
    assert scores.hd95 == pytest.approx(6.788225, abs=1e-6)
    # MedPy takes the percentile of both directions together: a third of it on the same masks.
    pooled = np.concatenate(
        [_directed_by_force(*pair, (1.0, 1.0)) for pair in ((predicted, truth), (truth, predicted))]
    )
    assert np.percentile(pooled, 95) == pytest.approx(2.262742, abs=1e-6)


def test_two_pixels_two_millimetres_apart():
    truth = _box((128, 128), (50, 51), (70, 71))
    predicted = _box((128, 128), (50, 51), (72, 73))
    scores = surface_distances(predicted, truth, (2, 1), tolerance=1)
    # DeepMind's surface-distance says 1.5 for the averages and 0.5 for the surface Dice: it walks
    # around each pixel on a finer grid. Its Hausdorff distance is 2 as well.
    assert (scores.hd, scores.hd95, scores.assd, scores.masd, scores.nsd) == (2, 2, 2, 2, 0)
    assert surface_distances(predicted, truth, (2, 1), tolerance=2).nsd == 1
    assert dice(*count_overlap(predicted[None], truth[None])[:3])[0] == 0


def test_two_slabs_of_which_one_is_a_voxel_thicker():
    truth, predicted = (_box((100, 100, 100), (0, n), (0, 100), (0, 100)) for n in (50, 51))
    scores = surface_distances(predicted, truth, (2, 1, 1), tolerance=1)
    assert dice(*count_overlap(predicted[None], truth[None])[:3])[0] == pytest.approx(
        0.990, abs=5e-4
    )
    assert scores.hd == 2
    # By hand. The last layer of the prediction is 2 mm away, all of it. Of the truth's last layer,
    # the rim is on both boundaries, the next ring 1 mm from the rim, the rest 2 mm from the layer
    # above. Everything else is on both.
    sizes = [n * 100 * 100 - (n - 2) * 98 * 98 for n in (51, 50)]
    ring, rest = 98**2 - 96**2, 96**2
    assert [scores.size_predicted, scores.size_truth] == sizes
    assert scores.near_predicted == sizes[0] - 100**2
    assert scores.near_truth == sizes[1] - rest
    sums = 2 * 100**2, ring + 2 * rest
    assert scores.assd == pytest.approx(sum(sums) / sum(sizes))
    assert scores.masd == pytest.approx((sums[0] / sizes[0] + sums[1] / sizes[1]) / 2)
    # DeepMind's surface-distance weighs by area, of which a layer's voxel has half as much as a
    # side's: its directed averages are .322 and .339, its surface Dice .836.
    assert np.divide(sums, sizes) == pytest.approx([0.508, 0.482], abs=5e-4)
    assert scores.nsd == pytest.approx(0.755, abs=5e-4)


# MONAI warns of an argument that it passes to itself.
@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.parametrize("dimensions", [2, 3])
def test_monai_finds_the_same_on_random_blobs(dimensions: int):
    metrics = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(11)
    spacing = (0.8, 1.5, 2.0)[:dimensions]
    for _ in range(6):
        noise = generator.standard_normal((2, *(23, 29, 17)[:dimensions]))
        smooth = [ndimage.gaussian_filter(n, 2.0, mode="nearest") for n in noise]
        truth, predicted = smooth[0] > 0, smooth[0] + 0.5 * smooth[1] > 0
        ours = surface_distances(predicted, truth, spacing, tolerance=1.0)
        pair = [torch.tensor(mask[None, None]).float() for mask in (predicted, truth)]
        options = {"include_background": True, "spacing": spacing}
        hd = metrics.compute_hausdorff_distance(*pair, **options)
        hd95 = metrics.compute_hausdorff_distance(*pair, percentile=95, **options)
        assd = metrics.compute_average_surface_distance(*pair, symmetric=True, **options)
        near = metrics.compute_surface_dice(*pair, class_thresholds=[1.0], **options)
        found = [ours.hd, ours.hd95, ours.assd, ours.nsd]
        theirs = [float(value) for value in (hd, hd95, assd, near)]
        np.testing.assert_allclose(found, theirs, rtol=1e-6)


@given(_spaced_pairs())
def test_nothing_but_names_changes_when_truth_and_prediction_swap(
    case: tuple[np.ndarray, np.ndarray, tuple[float, ...]],
):
    predicted, truth, spacing = case
    one = surface_distances(predicted, truth, spacing, tolerance=1)
    other = surface_distances(truth, predicted, spacing, tolerance=1)
    swapped = replace(
        other,
        near_predicted=other.near_truth,
        near_truth=other.near_predicted,
        size_predicted=other.size_truth,
        size_truth=other.size_predicted,
    )
    np.testing.assert_allclose(astuple(one), astuple(swapped))
    np.testing.assert_allclose(one.nsd, other.nsd)


@given(_pairs(), st.integers(0, 5), st.integers(0, 5))
def test_a_larger_canvas_changes_nothing_wherever_the_masks_lie(
    pair: Pair, before: int, after: int
):
    # Also where they touch the border: there they end at it, and end in the same place without it.
    predicted, truth = (np.pad(mask, (before, after)) for mask in pair)
    padded = _compared(predicted, truth)
    np.testing.assert_allclose(astuple(padded), astuple(_compared(*pair)), atol=1e-12)


@given(_spaced_pairs(), st.sampled_from([0.1, 0.5, 3.0, 10.0]))
def test_distances_grow_with_the_spacing(
    case: tuple[np.ndarray, np.ndarray, tuple[float, ...]], factor: float
):
    predicted, truth, spacing = case
    once = surface_distances(predicted, truth, spacing, tolerance=1)
    larger = tuple(factor * s for s in spacing)
    scaled = surface_distances(predicted, truth, larger, tolerance=factor)
    expected = [factor * d for d in (once.hd, once.hd95, once.assd, once.masd)]
    np.testing.assert_allclose([scaled.hd, scaled.hd95, scaled.assd, scaled.masd], expected)
    np.testing.assert_equal(scaled.nsd, once.nsd)


@given(_spaced_pairs())
def test_the_distances_are_ordered_and_within_the_image(
    case: tuple[np.ndarray, np.ndarray, tuple[float, ...]],
):
    predicted, truth, spacing = case
    scores = surface_distances(predicted, truth, spacing, tolerance=0)
    if np.isnan(scores.hd):
        return
    assert 0 <= scores.hd95 <= scores.hd < image_diagonal(truth.shape, spacing)
    assert scores.assd <= scores.hd
    assert scores.masd <= scores.hd
    assert (scores.hd == 0) == (scores.nsd == 1) == np.array_equal(predicted, truth)


def test_a_tolerance_of_a_whole_number_of_pixels_includes_them():
    truth, predicted = (_box((9, 9), (2, 3), (n, n + 1)) for n in (1, 4))
    assert 3 * 0.1 > 0.3  # in floating point
    assert surface_distances(predicted, truth, (0.1, 0.1), tolerance=0.3).nsd == 1
    assert surface_distances(predicted, truth, (0.1, 0.1), tolerance=0.29).nsd == 0


@pytest.mark.parametrize(("filled", "nsd_then"), [("predicted", 0), ("truth", 0), ("", np.nan)])
def test_an_empty_mask_has_no_distances(filled: str, nsd_then: float):
    masks = {"predicted": np.zeros((5, 6), bool), "truth": np.zeros((5, 6), bool)}
    if filled:
        masks[filled][2, 1:5] = True
    scores = surface_distances(**masks, spacing=(1, 1), tolerance=1e6)
    assert np.isnan([scores.hd, scores.hd95, scores.assd, scores.masd]).all()
    np.testing.assert_equal(scores.nsd, float(nsd_then))
    imputed, made_up = impute(scores, 7.5)
    assert made_up == bool(filled)
    worst = 7.5 if filled else np.nan
    distances = [imputed.hd, imputed.hd95, imputed.assd, imputed.masd]
    np.testing.assert_array_equal(distances, [worst] * 4)
    np.testing.assert_equal(imputed.nsd, float(nsd_then))


def test_scores_that_exist_are_never_imputed():
    scores = _compared(_box((9, 9), (2, 5), (2, 5)), _box((9, 9), (3, 7), (2, 5)))
    assert impute(scores, 100.0) == (scores, False)


def test_the_diagonal_that_brats_used():
    assert image_diagonal((240, 240, 155), (1, 1, 1)) == pytest.approx(373.13, abs=5e-3)
    assert image_diagonal((30, 40), (0.1, 0.1)) == pytest.approx(5)


def test_missing_more_makes_the_mean_worse_and_not_better():
    truth, near, far = (_box((40, 40), (n, n + 5), (5, 10)) for n in (5, 6, 25))
    diagonal = image_diagonal((40, 40), (1, 1))
    found = [_compared(near, truth), _compared(far, truth)]
    missed = [found[0], _compared(np.zeros_like(truth), truth)]
    # Without the rule, a model that loses its worst case improves.
    assert np.nanmean([s.hd95 for s in missed]) < np.mean([s.hd95 for s in found])
    by_rule = [[impute(s, diagonal)[0].hd95 for s in scores] for scores in (found, missed)]
    assert np.mean(by_rule[1]) > np.mean(by_rule[0])


def test_nsd_of_sums_is_the_pooled_score():
    cases = [
        _compared(_box((9, 9), (1, 5), (n, 8)), _box((9, 9), (2, 5), (3, 7))) for n in (1, 3, 5)
    ]
    counts = np.array(
        [(s.near_predicted, s.near_truth, s.size_predicted, s.size_truth) for s in cases]
    )
    near, size = counts[:, :2].sum(), counts[:, 2:].sum()
    assert float(nsd(*counts.sum(axis=0))) == near / size
    np.testing.assert_array_equal(nsd(*counts.T), [s.nsd for s in cases])
