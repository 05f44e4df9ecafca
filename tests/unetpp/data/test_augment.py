from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unetpp.data.augment import augment_batch
from unetpp.recipe import AUGMENTATIONS, Augmentation

_STILL = Augmentation(flip=0.0, rotation=0.0, zoom=(1.0, 1.0), intensity=0.0)
_FLIPPING = replace(_STILL, flip=0.5)
_ALWAYS = replace(_STILL, flip=1.0)
_NAMED = {name: strengths for name, strengths in AUGMENTATIONS.items() if strengths is not None}
_SHAPES = [(48, 48), (40, 56), (12, 20, 24)]


def _strong() -> Augmentation:
    strong = AUGMENTATIONS["strong"]
    assert strong is not None
    return strong


def _changed(
    images: Tensor,
    masks: Tensor,
    strengths: Augmentation,
    *,
    seed: int = 1,
    epoch: int = 0,
    spacing: tuple[float, ...] | None = None,
) -> tuple[Tensor, Tensor]:
    cases = np.arange(len(images))
    return augment_batch(images, masks, strengths, seed, epoch, cases, spacing=spacing)


def _moved(masks: Tensor, strengths: Augmentation) -> Tensor:
    return _changed(masks.float(), masks, strengths)[1]


def _letters(num: int, size: int = 48) -> Tensor:
    """The letter F, off centre: no mirroring and no rotation leaves it as it is."""
    mask = torch.zeros(num, 1, size, size)
    mask[:, :, 10:38, 10:16] = 1
    mask[:, :, 10:16, 10:34] = 1
    mask[:, :, 22:27, 10:26] = 1
    return mask


def _noise(num: int, channels: int, *shape: int) -> Tensor:
    return torch.randn(num, channels, *shape, generator=torch.Generator().manual_seed(0))


def _indices(num: int, planes: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 5, (num, planes, *shape), generator=generator, dtype=torch.uint8)


def _turned_by(degrees: float, *, tilted: bool = False) -> Augmentation:
    """Turns by exactly this angle, together with `_at_the_ends`."""
    return replace(_STILL, tilt=degrees) if tilted else replace(_STILL, rotation=degrees)


@pytest.fixture
def _at_the_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """All draws are 1, the end of their range."""

    def ones(seed: int, epoch: int, cases: np.ndarray, count: int, *, purpose: str) -> np.ndarray:
        return np.ones((len(cases), count))

    monkeypatch.setattr("unetpp.data.augment.uniforms", ones)


# --- nothing, mirrors, right angles


@pytest.mark.parametrize("shape", _SHAPES)
def test_nothing_asked_for_nothing_changed(shape: tuple[int, ...]):
    images, masks = _noise(3, 2, *shape), _indices(3, 1, *shape)
    same_images, same_masks = _changed(images, masks, _STILL)
    assert torch.equal(same_images, images)
    assert torch.equal(same_masks, masks)
    assert same_images.data_ptr() != images.data_ptr()
    assert same_masks.data_ptr() != masks.data_ptr()


@pytest.mark.parametrize("shape", _SHAPES)
def test_a_flip_along_every_axis_is_an_exact_mirror(shape: tuple[int, ...]):
    images, masks = _noise(3, 2, *shape), _indices(3, 2, *shape)
    axes = tuple(range(2, 2 + len(shape)))
    moved_images, moved_masks = _changed(images, masks, _ALWAYS)
    assert torch.equal(moved_images, images.flip(axes))
    assert torch.equal(moved_masks, masks.flip(axes))


@pytest.mark.parametrize("shape", _SHAPES)
def test_flips_are_drawn_for_each_axis_alone(shape: tuple[int, ...]):
    images = _noise(1, 1, *shape).expand(64, 1, *shape)
    masks = _indices(1, 1, *shape).expand(64, 1, *shape)
    seen = set()
    for image, mask in zip(*_changed(images, masks, _FLIPPING), strict=True):
        for kind in range(2 ** len(shape)):
            axes = [1 + axis for axis in range(len(shape)) if kind >> axis & 1]
            if torch.equal(image, images[0].flip(axes)):
                assert torch.equal(mask, masks[0].flip(axes))
                seen.add(kind)
    assert seen == set(range(2 ** len(shape)))


@pytest.mark.parametrize("shape", _SHAPES)
def test_a_flip_within_the_warp_is_the_same_flip(shape: tuple[int, ...]):
    images, masks = _noise(16, 1, *shape), _indices(16, 1, *shape)
    alone = _changed(images, masks, _FLIPPING)
    warped = _changed(images, masks, replace(_FLIPPING, rotation=1e-7))
    assert torch.equal(warped[1], alone[1])
    torch.testing.assert_close(warped[0], alone[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(32, 32), (6, 32, 32)])
@pytest.mark.usefixtures("_at_the_ends")
def test_a_right_angle_is_rot90(shape: tuple[int, ...]):
    images, masks = _noise(2, 3, *shape).sigmoid(), _indices(2, 1, *shape)
    for degrees, quarter in ((90.0, 1), (180.0, 2), (270.0, 3)):
        moved_images, moved_masks = _changed(images, masks, _turned_by(degrees))
        expected = [
            torch.rot90(x, way * quarter, (-2, -1)) for x in (images, masks) for way in (1, -1)
        ]
        way = next(k for k in (0, 1) if torch.equal(moved_masks, expected[2 + k]))
        torch.testing.assert_close(moved_images, expected[way], atol=1e-5, rtol=0)


@pytest.mark.usefixtures("_at_the_ends")
def test_tilts_turn_a_cube_about_its_other_axes():
    masks = _indices(1, 1, 16, 16, 16)
    moved = _changed(masks.float(), masks, _turned_by(90.0, tilted=True))[1]
    turned = [
        torch.rot90(torch.rot90(masks, a, (2, 4)), b, (2, 3)) for a in (1, 3) for b in (1, 3)
    ] + [torch.rot90(torch.rot90(masks, b, (2, 3)), a, (2, 4)) for a in (1, 3) for b in (1, 3)]
    assert any(torch.equal(moved, expected) for expected in turned)


def test_a_tilt_is_nothing_to_an_image():
    images, masks = _noise(2, 1, 20, 20), _indices(2, 1, 20, 20)
    assert torch.equal(_changed(images, masks, replace(_STILL, tilt=40.0))[0], images)


# --- geometry


@pytest.mark.parametrize("name", _NAMED)
@pytest.mark.parametrize("size", [48, 64])
def test_image_and_mask_move_together(name: str, size: int):
    masks = _letters(64, size)
    still = replace(_NAMED[name], intensity=0.0, gamma=0.0, noise=0.0, blur=0.0)
    images, moved = _changed(masks.repeat(1, 3, 1, 1), masks, still)
    for channel in range(3):
        seen = (images[:, channel] > 0.5).float()
        overlap = (seen * moved[:, 0]).sum((1, 2))
        dice = 2 * overlap / (seen.sum((1, 2)) + moved[:, 0].sum((1, 2)))
        assert dice.min() > 0.93  # bilinear against nearest, at the border alone


def test_a_volume_and_its_mask_move_together():
    masks = torch.zeros(8, 1, 24, 32, 32, dtype=torch.uint8)
    masks[:, :, 6:16, 8:20, 4:22] = 1
    still = replace(_strong(), intensity=0.0, gamma=0.0, noise=0.0, blur=0.0)
    images, moved = _changed(masks.float(), masks, still, spacing=(2.0, 1.0, 1.5))
    assert ((images > 0.5) == (moved > 0)).float().mean() > 0.97
    assert len({tuple(m.flatten().tolist()) for m in moved}) == 8


@pytest.mark.usefixtures("_at_the_ends")
@pytest.mark.parametrize(
    ("shape", "spacing", "tilted"),
    [
        ((60, 90), None, False),
        ((60, 60), (1.5, 1.0), False),
        ((10, 60, 90), (5.0, 1.0, 1.0), False),
        ((30, 60, 60), (2.0, 1.0, 1.0), True),
    ],
)
def test_a_ball_stays_a_ball_in_millimetres(
    shape: tuple[int, ...], spacing: tuple[float, ...] | None, tilted: bool
):
    pitch = torch.tensor(spacing or (1.0,) * len(shape))
    axes = [
        (torch.arange(side) - (side - 1) / 2) * step
        for side, step in zip(shape, pitch.tolist(), strict=True)
    ]
    squares = torch.stack(torch.meshgrid(*[axis.square() for axis in axes], indexing="ij")).sum(0)
    ball = (squares < 20**2)[None, None].to(torch.uint8)
    moved = _changed(ball.float(), ball, _turned_by(40.0, tilted=tilted), spacing=spacing)[1]
    near = squares < 28**2  # further out the mirrored border brings the ball in again
    assert (moved != ball)[..., near].sum() < 0.06 * ball.sum()


@pytest.mark.parametrize(("zoom", "larger"), [((1.5, 1.5), True), ((0.6, 0.6), False)])
def test_a_zoom_above_one_enlarges(zoom: tuple[float, float], larger: bool):
    disc = torch.zeros(1, 1, 64, 64)
    disc[..., 22:42, 22:42] = 1
    moved = _moved(disc, replace(_STILL, zoom=zoom))
    inside = moved[..., 16:48, 16:48].sum().item()  # a mirrored border may bring the disc in again
    assert inside == pytest.approx(zoom[0] ** 2 * disc.sum().item(), rel=0.1)
    assert (inside > disc.sum().item()) == larger


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([(48, 48), (24, 60), (14, 18, 22)]))
def test_a_deformation_neither_folds_nor_goes_too_far(seed: int, shape: tuple[int, ...]):
    n = len(shape)
    places = torch.stack(torch.meshgrid(*[torch.arange(float(s)) for s in shape], indexing="ij"))
    bent = replace(_STILL, elastic=0.07)
    # Coordinates as an image: what comes out is where each pixel came from.
    found = _changed(places[None], places[None, :1], bent, seed=seed)[0][0]
    assert (found - places).abs().max() <= 0.07 * min(shape) + 1e-3
    middle = tuple(slice(3, -3) for _ in shape)  # away from the mirrored border
    slopes = torch.stack(
        [torch.stack(torch.gradient(found[k], dim=list(range(n))))[:, *middle] for k in range(n)]
    )
    assert torch.linalg.det(slopes.movedim((0, 1), (-2, -1))).min() > 0


def test_a_deformation_bends():
    places = torch.arange(64.0).expand(1, 1, 64, 64)
    found = _changed(places, places, replace(_STILL, elastic=0.05))[0]
    shift = (found - places)[..., 8:-8, 8:-8]
    assert shift.abs().max() > 0.5
    assert shift.std() > 0.3  # not one shift of everything


# --- masks


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(_SHAPES),
    st.sampled_from(list(_NAMED)),
    st.integers(0, 2**40),
    st.sampled_from([torch.uint8, torch.float32]),
)
def test_classes_stay_in_their_set(
    shape: tuple[int, ...], name: str, seed: int, dtype: torch.dtype
):
    masks = torch.tensor([0, 3, 254])[_indices(2, 2, *shape).long() % 3].to(dtype)
    moved = _changed(_noise(2, 1, *shape), masks, _NAMED[name], seed=seed)[1]
    assert moved.dtype == dtype
    assert moved.shape == masks.shape
    assert set(moved.unique().tolist()) <= {0, 3, 254}


def test_every_image_is_moved_in_its_own_way():
    moved = _moved(_letters(32), Augmentation())
    assert len({tuple(m.flatten().tolist()) for m in moved}) == 32


# --- intensities


def test_intensity_leaves_the_mask_alone_and_stays_in_its_range():
    images, masks = _noise(200, 1, 16, 16), _indices(200, 1, 16, 16)
    changed, same = _changed(images, masks, replace(_STILL, intensity=0.3))
    assert torch.equal(same, masks)
    spread = changed.std((2, 3)) / images.std((2, 3))
    assert 0.699 < spread.min() < 0.75
    assert 1.25 < spread.max() < 1.301
    shift = changed.mean((2, 3)) - spread * images.mean((2, 3))
    assert 0.25 < shift.abs().max() < 0.301


@pytest.mark.parametrize("shape", [(16, 16), (6, 8, 10)])
def test_gamma_bends_between_the_ends_of_each_channel_and_keeps_the_order(shape: tuple[int, ...]):
    images = _noise(30, 2, *shape)
    bent = _changed(images, images, replace(_STILL, gamma=0.5))[0]
    flat, found = images.flatten(2), bent.flatten(2)
    torch.testing.assert_close(found.amin(2), flat.amin(2))
    torch.testing.assert_close(found.amax(2), flat.amax(2))
    ordered = found.gather(2, flat.argsort(2))
    assert (ordered.diff() >= 0).all()
    assert (found - flat).abs().amax((1, 2)).max() > 0.3


def test_gamma_leaves_a_constant_channel():
    images = torch.full((4, 1, 8, 8), 0.25)
    assert torch.equal(_changed(images, images, replace(_STILL, gamma=0.5))[0], images)


@pytest.mark.parametrize("shape", [(40, 40), (10, 20, 20)])
def test_noise_is_normal_and_spares_half_of_the_images(shape: tuple[int, ...]):
    images = _noise(200, 1, *shape)
    added = (_changed(images, images, replace(_STILL, noise=0.4))[0] - images).flatten(1)
    spread = added.std(1)
    assert 70 <= (spread == 0).sum() <= 130
    assert 0.35 < spread.max() < 0.43
    noisy = added[spread > 0.1] / spread[spread > 0.1, None]
    assert noisy.mean().abs() < 0.01
    assert (noisy.abs() < 1).float().mean() == pytest.approx(0.683, abs=0.01)
    assert torch.corrcoef(noisy[:10]).fill_diagonal_(0).abs().max() < 0.15


@pytest.mark.usefixtures("_at_the_ends")
@pytest.mark.parametrize(
    ("shape", "spacing"), [((31, 31), None), ((31, 31), (2.0, 1.0)), ((15, 31, 31), (3.0, 1, 1))]
)
def test_a_blur_spreads_a_point_equally_far_in_millimetres(
    shape: tuple[int, ...], spacing: tuple[float, ...] | None
):
    image = torch.zeros(1, 1, *shape)
    image[0, 0, *(side // 2 for side in shape)] = 1
    spread = _changed(image, image, replace(_STILL, blur=2.0), spacing=spacing)[0][0, 0]
    assert spread.sum().item() == pytest.approx(1, abs=1e-5)
    for axis, (side, pitch) in enumerate(zip(shape, spacing or (1.0,) * 3, strict=False)):
        line = spread.sum([other for other in range(len(shape)) if other != axis])
        place = (torch.arange(side) - side // 2) * pitch
        # A bell that is cut off at 3 deviations or taken at few pixels is a little narrower.
        assert (line * place.square()).sum().sqrt().item() == pytest.approx(2, rel=0.06)


def test_a_blur_spares_half_of_the_images_and_needs_no_minimal_size():
    images = _noise(60, 1, 2, 5)
    blurred = _changed(images, images, replace(_STILL, blur=2.0))[0]
    assert 15 < sum(torch.equal(a, b) for a, b in zip(images, blurred, strict=True)) < 45


# --- what it depends on


@pytest.mark.parametrize("name", _NAMED)
@pytest.mark.parametrize("shape", _SHAPES)
def test_the_rest_of_the_batch_does_not_matter(name: str, shape: tuple[int, ...]):
    images, masks = _noise(7, 3, *shape), _indices(7, 1, *shape)
    cases = np.array([5, 2, 900, 17, 0, 3, 2**40])
    spacing = np.linspace(1, 2, 7 * len(shape)).reshape(7, -1)
    together = augment_batch(images, masks, _NAMED[name], 3, 4, cases, spacing=spacing)
    for part in ([0], [3], [6], [4, 1], [5, 6, 2]):
        few = augment_batch(
            images[part], masks[part], _NAMED[name], 3, 4, cases[part], spacing=spacing[part]
        )
        assert torch.equal(few[0], together[0][part])
        assert torch.equal(few[1], together[1][part])


@pytest.mark.parametrize("name", _NAMED)
def test_seed_epoch_and_case_decide_and_the_global_generator_does_not(name: str):
    images, masks = _noise(4, 2, 48, 48), _letters(4)

    def draw(*, seed: int = 1, epoch: int = 1) -> Tensor:
        return _changed(images, masks, _NAMED[name], seed=seed, epoch=epoch)[0]

    first = draw()
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(first, draw())
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, draw(epoch=2))
    assert not torch.equal(first, draw(seed=2))


def test_another_strength_leaves_the_other_draws():
    masks = _letters(6)
    first = _moved(masks, Augmentation())
    assert torch.equal(first, _moved(masks, Augmentation(intensity=0.0, noise=0.3, gamma=0.2)))


def test_inputs_are_not_changed_in_place():
    for strengths in (_STILL, _FLIPPING, _strong()):
        images, masks = _noise(2, 1, 48, 48), _letters(2)
        before = images.clone(), masks.clone()
        _changed(images, masks, strengths)
        assert torch.equal(images, before[0])
        assert torch.equal(masks, before[1])


def test_the_standard_is_what_a_recipe_has_by_itself():
    assert AUGMENTATIONS["standard"] == Augmentation()
    assert AUGMENTATIONS["none"] is None


@pytest.mark.parametrize("name", _NAMED)
def test_memory_formats_make_no_difference(name: str):
    images, masks = _noise(3, 3, 24, 30), _indices(3, 1, 24, 30)
    last = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        _changed(last, masks, _NAMED[name])[0], _changed(images, masks, _NAMED[name])[0]
    )
