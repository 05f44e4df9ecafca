import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from unetpp.data import duplicates
from unetpp.data.duplicates import (
    NEAR_DUPLICATE,
    Pair,
    clusters,
    content_hash,
    fingerprint,
    join_groups,
    near_duplicates,
)
from unetpp.data.phantoms import make_phantoms

Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def images() -> list[Floats]:
    """[1, 96, 96] each."""
    return list(make_phantoms(num_cases=60, size=96, seed=0).images())


def _volumes(count: int) -> list[Floats]:
    """Smooth random fields [1, 30, 40, 34]."""
    rng = np.random.default_rng(0)
    return [
        ndimage.gaussian_filter(rng.standard_normal((1, 30, 40, 34)), (0, 3, 3, 3)).astype(
            np.float32
        )
        for _ in range(count)
    ]


def _resized(image: Floats, factors: list[float]) -> Floats:
    resized = ndimage.zoom(image, [1, *factors], order=1, grid_mode=True, mode="nearest")
    return np.asarray(resized, np.float32)


def _as_jpeg(image: Floats) -> Floats:
    """[1, H, W], stored with 8 bits at quality 60 and read back; 0..1."""
    low, high = image.min(), image.max()
    picture = Image.fromarray(((image[0] - low) / (high - low) * 255).astype(np.uint8))
    picture.save(stored := io.BytesIO(), "JPEG", quality=60)
    return np.asarray(Image.open(stored), np.float32)[None] / np.float32(255)


def _changed(image: Floats, data: st.DataObject, rng: np.random.Generator) -> Floats:
    """A copy with other size, brightness, contrast and noise."""
    factors = [data.draw(st.floats(0.7, 1.6)) for _ in image.shape[1:]]
    copy = _resized(image, factors)
    copy = copy * data.draw(st.floats(0.5, 3)) + data.draw(st.floats(-0.5, 0.5))
    noise = data.draw(st.floats(0, 0.02)) * np.ptp(copy)
    return (copy + noise * rng.standard_normal(copy.shape)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_changed_copy_is_found_and_nothing_else_is(
    images: list[Floats], data: st.DataObject
) -> None:
    case = data.draw(st.integers(0, len(images) - 1))
    copy = _changed(images[case], data, np.random.default_rng(case))
    if data.draw(st.booleans()):
        copy = _as_jpeg(copy)
    found = near_duplicates(np.stack([fingerprint(image) for image in [*images, copy]]))
    assert [pair[:2] for pair in found] == [(case, len(images))]


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_changed_copy_of_a_volume_is_found_and_nothing_else_is(data: st.DataObject) -> None:
    volumes = _volumes(6)
    case = data.draw(st.integers(0, 5))
    copy = _changed(volumes[case], data, np.random.default_rng(case))
    found = near_duplicates(np.stack([fingerprint(image) for image in [*volumes, copy]]))
    assert [pair[:2] for pair in found] == [(case, 6)]


def test_a_grey_copy_of_a_colour_image_is_found(images: list[Floats]) -> None:
    colours = np.concatenate([images[0] * weight for weight in (0.9, 0.6, 0.7)])
    grey = colours.mean(axis=0, keepdims=True)
    assert fingerprint(colours) @ fingerprint(grey) == pytest.approx(1, abs=1e-5)


def test_flips_and_crops_are_not_found(images: list[Floats]) -> None:
    # As the docstring says; if this fails, the docstring can promise more.
    image = images[0]
    for other in (image[:, :, ::-1], image[:, ::-1], image[:, 12:, 12:]):
        assert fingerprint(image) @ fingerprint(other) < NEAR_DUPLICATE


@pytest.mark.parametrize(("shape", "size"), [((3, 7, 300), 576), ((2, 5, 40, 11), 1728)])
def test_a_fingerprint_has_length_one_and_one_size(shape: tuple[int, ...], size: int) -> None:
    image = np.random.default_rng(0).random(shape, np.float32)
    print_D = fingerprint(image)
    assert print_D.shape == (size,)
    assert print_D.dtype == np.float32
    assert np.linalg.norm(print_D) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("value", [0, 0.1, 1e6, -3])
def test_images_without_content_are_like_no_other(value: float) -> None:
    flat = np.full((3, 50, 61), value, np.float32)
    assert not fingerprint(flat).any()
    assert near_duplicates(np.stack([fingerprint(flat)] * 3)) == []


def test_only_exact_copies_have_the_same_content(images: list[Floats]) -> None:
    image = images[0]
    assert content_hash(image) == content_hash(image.copy(order="F"))
    assert content_hash(np.zeros((1, 2, 2), np.float32)) == content_hash(
        np.full((1, 2, 2), -0.0, np.float32)
    )
    assert content_hash(image) != content_hash(np.nextafter(image, np.float32(2)))
    assert content_hash(image) != content_hash(image.reshape(1, 48, 192))


@settings(max_examples=50, deadline=None)
@given(
    num_cases=st.integers(0, 20), block=st.integers(1, 8), threshold=st.floats(0.05, 0.95), seed=...
)
def test_blocks_find_what_the_whole_matrix_holds(
    num_cases: int, block: int, threshold: float, seed: bool
) -> None:
    vectors = np.random.default_rng(int(seed)).standard_normal((num_cases, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_BLOCK", block)
        found = near_duplicates(vectors, threshold)
    similar = vectors @ vectors.T
    expected = [
        (i, j)
        for i in range(num_cases)
        for j in range(i + 1, num_cases)
        if similar[i, j] >= threshold
    ]
    assert [pair[:2] for pair in found] == expected
    assert all(pair.similarity == pytest.approx(similar[pair[:2]], abs=1e-6) for pair in found)


def test_clusters_are_chains_of_pairs() -> None:
    pairs = [Pair(1, 4, 0.99), Pair(4, 6, 0.95), Pair(0, 5, 1.0)]
    assert clusters(pairs, 8) == ((0, 5), (1, 4, 6))
    assert clusters([], 8) == ()


def test_joined_groups_take_the_first_name() -> None:
    groups = ["b", "b", "a", "c", "d"]
    assert join_groups(groups, [(1, 2)]) == (("a", "a", "a", "c", "d"), 1)
    assert join_groups(groups, [(0, 1)]) == (tuple(groups), 0)
    # A chain over both relations: 0 ~ 3 by a cluster, 0 and 1 by a group, 1 ~ 4 by a cluster.
    assert join_groups(groups, [(0, 3), (1, 4)]) == (("b", "b", "a", "b", "b"), 2)
    assert join_groups([], []) == ((), 0)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_joined_groups_divide_neither_group_nor_cluster_and_join_no_more(
    data: st.DataObject,
) -> None:
    groups = data.draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=15))
    cluster = st.lists(st.integers(0, len(groups) - 1), min_size=1, max_size=3, unique=True)
    near = data.draw(st.lists(cluster, max_size=4))
    joined, fewer = join_groups(groups, near)
    assert fewer == len(set(groups)) - len(set(joined))
    links = [*near, *([k for k, g in enumerate(groups) if g == name] for name in set(groups))]
    assert all(len({joined[k] for k in link}) == 1 for link in links)
    # An oracle by hand: spread labels along the links until nothing changes.
    labels = list(range(len(groups)))
    for _ in range(len(groups)):
        for link in links:
            least = min(labels[k] for k in link)
            for k in link:
                labels[k] = least
    assert len(set(labels)) == len(set(joined))
