from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import dataset_of, feed_of
from torch import Tensor

from unetpp.data.datasets import ArraysInMemory, Dataset
from unetpp.data.labels import BINARY, Labels
from unetpp.data.normalise import Scaling
from unetpp.errors import UserError
from unetpp.grid import plain_encoder, unetpp
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.recipe import AUGMENTATIONS, TrainRecipe
from unetpp.training.feed import Feed
from unetpp.training.loop import train

_RECIPE = TrainRecipe(epochs=1, batch_size=3, augmentation=None)


class _Ragged(ArraysInMemory):
    """Cases of different sizes."""

    def __init__(self, shapes: list[tuple[int, ...]]) -> None:
        rng = np.random.default_rng(0)
        whole = rng.random((len(shapes), 1, *np.max(shapes, axis=0)), dtype=np.float32)
        cut = [tuple(slice(side) for side in shape) for shape in shapes]
        self._parts = [image[:, *part] for image, part in zip(whole, cut, strict=True)]
        parts = [
            ArraysInMemory((f"c{k}",), image[None], (image[None] > 0.7).astype(np.uint8), BINARY)
            for k, image in enumerate(self._parts)
        ]
        self.facts = tuple(part.facts[0] for part in parts)
        self.in_channels = 1

    def image(self, case: int) -> np.ndarray:
        return self._parts[case]

    def mask(self, case: int) -> np.ndarray:
        return (self._parts[case] > 0.7).astype(np.uint8)

    def image_patch(self, case: int, start: np.ndarray, patch: tuple[int, ...]) -> np.ndarray:
        from unetpp.data.patches import cut

        return cut(self._parts[case], start, patch)


def _ragged(shapes: list[tuple[int, ...]]) -> Dataset:
    ids = tuple(f"c{k}" for k in range(len(shapes)))
    return Dataset(
        name="ragged",
        description="Of several sizes.",
        case_ids=ids,
        groups=ids,
        strata=("all",) * len(ids),
        arrays=_Ragged(shapes),
    )


def _square(num: int = 7, size: int = 8) -> Dataset:
    rng = np.random.default_rng(1)
    images = rng.random((num, 1, size, size))
    return dataset_of(images, images > 0.6)


def _epoch(feed: Feed, recipe: TrainRecipe = _RECIPE, *, seed: int = 0, epoch: int = 1):
    return list(feed.training_batches(recipe, seed=seed, epoch=epoch))


def _rows(batches: list[tuple[Tensor, Tensor]]) -> set[bytes]:
    return {row.numpy().tobytes() for images, _ in batches for row in images}


def test_an_epoch_holds_every_case_once_in_parts_of_nearly_equal_size():
    feed = feed_of(_square())
    batches = _epoch(feed)
    assert [len(images) for images, _ in batches] == [3, 2, 2]
    assert _rows(batches) == {feed.case(k)[0][0].numpy().tobytes() for k in range(7)}
    assert batches[0][1].dtype == torch.uint8


@pytest.mark.parametrize("augmentation", ["none", "standard", "strong"])
@pytest.mark.parametrize("patch", [None, (6, 6)])
def test_an_epoch_follows_from_seed_and_number_alone(
    augmentation: str, patch: tuple[int, ...] | None
):
    recipe = replace(_RECIPE, augmentation=AUGMENTATIONS[augmentation], patch=patch)
    feed = feed_of(_square(), patch=patch)
    first = _epoch(feed, recipe, epoch=2)
    torch.rand(5)  # whatever happened before
    _epoch(feed, recipe, epoch=1)
    again = _epoch(feed_of(_square(), patch=patch), recipe, epoch=2)
    for (a, b), (c, d) in zip(first, again, strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)
    assert not torch.equal(first[0][0], _epoch(feed, recipe, epoch=3)[0][0])
    assert not torch.equal(first[0][0], _epoch(feed, recipe, seed=1, epoch=2)[0][0])


def test_a_case_is_changed_alike_whatever_the_size_of_the_batch():
    feed = feed_of(_square())
    recipe = replace(_RECIPE, augmentation=AUGMENTATIONS["standard"])
    large = replace(recipe, batch_size=7)
    assert _rows(_epoch(feed, recipe)) == _rows(_epoch(feed, large))


def test_patches_are_parts_of_the_cases_with_their_masks():
    dataset = _square(3, 12)
    feed = feed_of(dataset, patch=(4, 4))
    assert feed.num_samples == 3 * 9
    whole = [feed.case(k) for k in range(3)]
    windows = {
        (image[0, :, i : i + 4, j : j + 4].numpy().tobytes()): mask[0, :, i : i + 4, j : j + 4]
        for image, mask in whole
        for i in range(9)
        for j in range(9)
    }
    recipe = replace(_RECIPE, patch=(4, 4))
    for images, masks in _epoch(feed, recipe):
        for image, mask in zip(images, masks, strict=True):
            assert torch.equal(windows[image.numpy().tobytes()], mask)


def test_more_patches_lie_on_foreground_when_asked():
    rng = np.random.default_rng(2)
    masks = np.zeros((4, 1, 32, 32))
    masks[:, :, 3:5, 3:5] = 1
    feed = feed_of(dataset_of(rng.random((4, 1, 32, 32)), masks), patch=(6, 6))
    shares = []
    for share in (0.0, 1.0):
        recipe = replace(_RECIPE, patch=(6, 6), foreground_share=share)
        found = torch.cat([masks for _, masks in _epoch(feed, recipe)])
        shares.append(found.flatten(1).any(1).float().mean().item())
    assert shares[0] < 0.4
    assert shares[1] == 1.0


def test_cases_of_different_sizes_need_patches():
    dataset = _ragged([(8, 8), (12, 9)])
    with pytest.raises(UserError, match=r"`c0` of `ragged` is 8 x 8 and `c1` is 12 x 9; resample"):
        feed_of(dataset)
    with pytest.raises(UserError, match=r"`patch` \(=4 x 4 x 4\) must have as many sides"):
        feed_of(dataset, patch=(4, 4, 4))
    feed = feed_of(dataset, patch=(4, 4))
    assert [images.shape[2:] for _, images, _ in feed.predicted_batches()] == [(8, 8), (12, 9)]


def test_predicted_batches_are_all_cases_in_order_and_not_too_large():
    feed = feed_of(_square(40, 96))
    parts = list(feed.predicted_batches())
    assert [len(p) for p, _, _ in parts] == [32, 8]
    assert np.concatenate([p for p, _, _ in parts]).tolist() == list(range(40))
    assert torch.equal(parts[1][1][0], feed.case(32)[0][0])


def test_only_the_cases_of_the_index_are_fed():
    dataset = _square()
    index = np.array([5, 2])
    feed = Feed(
        dataset, index, Scaling(mean=(0.5,), deviation=(0.1,)), torch.device("cpu"), patch=None
    )
    image, mask = feed.case(0)
    np.testing.assert_allclose(image[0], (dataset.arrays.image(5) - 0.5) / 0.1, rtol=1e-5)
    np.testing.assert_array_equal(mask[0], dataset.arrays.mask(5))


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("kind", ["binary", "classes", "multilabel"])
def test_every_kind_of_mask_is_learned_by_heart(spatial_dims: int, kind: str):
    # Left and right half, a bright and a dark one: a network must tell them apart.
    shape = (8,) * spatial_dims
    place = np.indices(shape)[-1]
    images = np.stack([place / 8, 1 - place / 8] * 2)[:, None]
    high, low = images[:, 0] > 0.7, images[:, 0] < 0.3
    labels, masks = {
        "binary": (BINARY, high[:, None]),
        "classes": (
            Labels(kind="classes", names=("high", "low")), (high + 2 * low)[:, None]
        ),
        "multilabel": (
            Labels(kind="multilabel", names=("high", "not low")), np.stack([high, ~low], 1)
        ),
    }[kind]  # fmt: skip
    feed = feed_of(dataset_of(images, masks, labels=labels))
    spec = unetpp(
        plain_encoder(1, width=6),
        classes=labels.num_logits,
        spatial_dims=3 if spatial_dims == 3 else 2,
    )
    recipe = TrainRecipe(epochs=60, batch_size=4, learning_rate=2e-2, augmentation=None)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        curve = train(UNetPlusPlus(spec), feed, feed, recipe, seed=0)
    assert curve[-1].held_out_dice is not None
    assert curve[-1].held_out_dice > 0.95
