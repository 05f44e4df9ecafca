from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unetpp.data.augment import BatchAugmenter
from unetpp.recipe import Augmentation

_STILL = Augmentation(flip=0.0, rotation=0.0, zoom=(1.0, 1.0), intensity=0.0)


def _letters(num: int, size: int = 48) -> Tensor:
    """The letter F, off centre: no mirroring and no rotation leaves it as it is."""
    mask = torch.zeros(num, 1, size, size)
    mask[:, :, 10:38, 10:16] = 1
    mask[:, :, 10:16, 10:34] = 1
    mask[:, :, 22:27, 10:26] = 1
    return mask


def test_image_and_mask_move_together():
    torch.manual_seed(0)
    masks = _letters(64)
    images, moved = BatchAugmenter(Augmentation(intensity=0.0))(masks.repeat(1, 3, 1, 1), masks)
    assert images.shape == (64, 3, 48, 48)
    assert moved.shape == masks.shape
    for channel in range(3):
        seen = (images[:, channel] > 0.5).float()
        overlap = (seen * moved[:, 0]).sum((1, 2))
        dice = 2 * overlap / (seen.sum((1, 2)) + moved[:, 0].sum((1, 2)))
        assert dice.min() > 0.93  # bilinear against nearest, at the border alone


def test_masks_stay_zero_or_one_and_every_image_is_moved_in_its_own_way():
    torch.manual_seed(0)
    masks = _letters(32)
    _, moved = BatchAugmenter(Augmentation())(masks.clone(), masks)
    assert set(moved.unique().tolist()) == {0.0, 1.0}
    assert len({tuple(m.flatten().tolist()) for m in moved}) == 32


def test_the_same_random_state_draws_the_same_changes():
    augment, masks = BatchAugmenter(Augmentation()), _letters(4)
    images = torch.randn(4, 2, 48, 48)

    def draw(seed: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed)
        return augment(images, masks)

    first, second, other = draw(1), draw(1), draw(2)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], other[0])


def test_a_new_augmenter_needs_nothing_but_the_random_state():
    masks = _letters(4)
    torch.manual_seed(3)
    first = BatchAugmenter(Augmentation())(masks, masks)
    torch.manual_seed(3)
    second = BatchAugmenter(Augmentation())(masks, masks)
    assert torch.equal(first[0], second[0])


def test_nothing_asked_for_nothing_changed():
    images, masks = torch.randn(3, 2, 48, 48), _letters(3)
    same_images, same_masks = BatchAugmenter(_STILL)(images, masks)
    torch.testing.assert_close(same_images, images, atol=1e-4, rtol=1e-4)
    assert torch.equal(same_masks, masks)


def test_intensity_leaves_the_mask_alone_and_stays_in_its_range():
    torch.manual_seed(0)
    images, masks = torch.randn(200, 1, 16, 16), (torch.rand(200, 1, 16, 16) > 0.5).float()
    still = Augmentation(flip=0.0, rotation=0.0, zoom=(1.0, 1.0), intensity=0.3)
    changed, same = BatchAugmenter(still)(images, masks)
    assert torch.equal(same, masks)
    spread = changed.std((2, 3)) / images.std((2, 3))
    assert 0.699 < spread.min() < 0.75
    assert 1.25 < spread.max() < 1.301
    shift = changed.mean((2, 3)) - spread * images.mean((2, 3))
    assert 0.25 < shift.abs().max() < 0.301


def test_flips_are_exact_mirrors():
    torch.manual_seed(0)
    flipping = Augmentation(flip=0.5, rotation=0.0, zoom=(1.0, 1.0), intensity=0.0)
    masks = _letters(40)
    images, moved = BatchAugmenter(flipping)(masks, masks)
    torch.testing.assert_close(images, moved, atol=1e-4, rtol=0)
    letter = masks[0]
    mirrors = [letter, letter.flip(1), letter.flip(2), letter.flip(1, 2)]
    kinds = [next(k for k, m in enumerate(mirrors) if torch.equal(m, x)) for x in moved]
    assert set(kinds) == {0, 1, 2, 3}


@pytest.mark.parametrize(("zoom", "larger"), [((1.5, 1.5), True), ((0.6, 0.6), False)])
def test_a_zoom_above_one_enlarges(zoom: tuple[float, float], larger: bool):
    disc = torch.zeros(1, 1, 64, 64)
    disc[..., 22:42, 22:42] = 1
    _, moved = BatchAugmenter(Augmentation(flip=0, rotation=0, zoom=zoom, intensity=0))(disc, disc)
    inside = moved[..., 16:48, 16:48].sum().item()  # a mirrored border may bring the disc in again
    assert inside == pytest.approx(zoom[0] ** 2 * disc.sum().item(), rel=0.1)
    assert (inside > disc.sum().item()) == larger


def test_inputs_are_not_changed_in_place():
    images, masks = torch.randn(2, 1, 48, 48), _letters(2)
    before = images.clone(), masks.clone()
    BatchAugmenter(Augmentation())(images, masks)
    assert torch.equal(images, before[0])
    assert torch.equal(masks, before[1])
