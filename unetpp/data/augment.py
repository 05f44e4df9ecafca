"""Random changes of a whole batch on its device, image and mask together.

What happens to a case follows from the seed, the epoch and the case alone: not from the batch that
it comes in, nor from what was drawn before. Mirroring, rotation, zoom and deformation are one
warp, so that an image is resampled once; it is worked out in millimetres, so that pixels that are
not square, and sides that differ, are not sheared.

Shapes: B batch, C channels, M planes of a mask, n = 2 or 3 axes *S of an image or a volume.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from kornia.enhance import adjust_gamma
from kornia.filters import gaussian_blur2d
from numpy.typing import NDArray
from torch import Tensor

from unetpp.data.streams import sample_generator, uniforms
from unetpp.recipe import Augmentation

# Columns of the draws of a case. Places are fixed, so that another strength, or a third axis,
# leaves the other draws as they are. The deformation's come last: they are as many as it has.
_FLIP = slice(0, 3)
_ANGLE = slice(3, 6)
_ZOOM, _CONTRAST, _BRIGHTNESS, _GAMMA, _NOISE, _BLUR, _NUM_DRAWS = range(6, 13)
# Planes in which a volume is turned; the first is that of the last two axes.
_PLANES = {2: ((0, 1),), 3: ((1, 2), (0, 2), (0, 1))}
# Control points of the deformation along an axis, and the width of the bell around each, in
# distances between points. With these a shift of 0.07 of the side cannot fold a volume: the
# slope is at most 4.7 x the shift, for each axis, and 3 x 4.7 x 0.07 < 1.
_KNOTS = 5
_BELL = 0.75
# Where the bell of a blur is cut off, in its standard deviations.
_BLUR_REACH = 3


def augment_batch(
    images: Tensor,
    masks: Tensor,
    augmentation: Augmentation,
    seed: int,
    epoch: int,
    cases: NDArray[np.int64],
    *,
    spacing: Sequence[float] | NDArray[np.float64] | None = None,
) -> tuple[Tensor, Tensor]:
    """Changed copies of images and masks.

    Pixels that the warp brings in from outside are mirrored, in the image and in the mask.

    Args:
        images: float32 [B, C, *S], standardised.
        masks: [B, M, *S] on the same device, uint8 or float, of any values; no new ones arise.
        augmentation: how strongly; a strength of 0 leaves every bit as it is.
        seed: of the run.
        epoch: 0 or more.
        cases: int64 [B], what the changes of each image are drawn by.
        spacing: millimetres a pixel, [n] or [B, n]; None stands for pixels of 1 x 1 (x 1).
    """
    assert images.shape[0] == masks.shape[0] == len(cases)
    assert images.shape[2:] == masks.shape[2:]
    n = images.ndim - 2
    num_knots = n * _KNOTS**n if augmentation.elastic else 0
    draws = uniforms(seed, epoch, cases, _NUM_DRAWS + num_knots, purpose="change")
    pitch = np.broadcast_to(np.asarray(1.0 if spacing is None else spacing), (len(cases), n))
    flipped = draws[:, _FLIP][:, :n] < augmentation.flip
    if _only_mirrors(augmentation, n):
        images, masks = _mirror(images, flipped), _mirror(masks, flipped)
    else:
        grid = _grid(images, draws, flipped, augmentation, pitch)
        images, masks = _warp(images, grid, "bilinear"), _warp(masks, grid, "nearest")
    if augmentation.blur:
        reach = math.ceil(_BLUR_REACH * augmentation.blur)
        images = _blur(images, augmentation.blur * _half(draws[:, _BLUR]), reach, pitch)
    if augmentation.gamma:
        images = _bend(images, np.exp(augmentation.gamma * _signed(draws[:, _GAMMA])))
    if augmentation.intensity:
        contrast = 1 + augmentation.intensity * _signed(draws[:, _CONTRAST])
        brightness = augmentation.intensity * _signed(draws[:, _BRIGHTNESS])
        images = images * _column(contrast, images) + _column(brightness, images)
    if augmentation.noise:
        deviation = augmentation.noise * _half(draws[:, _NOISE])
        images = images + _noise(images, deviation, seed, epoch, cases)
    return images, masks


def _signed(draw: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2 * draw - 1


def _half(draw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Nothing for half of the images, which stay as clean as those that are scored."""
    return np.maximum(2 * draw - 1, 0)


def _on_device(values: NDArray[np.float64], like: Tensor) -> Tensor:
    # Not waited for: the host goes on while the device trains on the batch before. On MPS such a
    # copy may read memory that is already given back.
    return torch.from_numpy(values.astype(np.float32)).to(like.device, non_blocking=like.is_cuda)


def _column(values: NDArray[np.float64], like: Tensor) -> Tensor:
    """One number a case, [B, 1, ..], with as many axes as `like`."""
    return _on_device(values.reshape(-1, *(1,) * (like.ndim - 1)), like)


# --- the warp


def _only_mirrors(augmentation: Augmentation, n: int) -> bool:
    turns = augmentation.rotation or (augmentation.tilt if n == 3 else 0)
    return not turns and tuple(augmentation.zoom) == (1.0, 1.0) and not augmentation.elastic


def _mirror(batch: Tensor, flipped: NDArray[np.bool_]) -> Tensor:
    """The batch mirrored along the axes of `flipped` [B, n]; nothing is rounded."""
    for axis in np.flatnonzero(flipped.any(axis=0)).tolist():
        chosen = _column(flipped[:, axis].astype(np.float64), batch) > 0
        batch = torch.where(chosen, batch.flip(2 + axis), batch)
    return batch.clone()


def _warp(batch: Tensor, grid: Tensor, mode: str) -> Tensor:
    warped = F.grid_sample(
        batch.float(), grid, mode=mode, padding_mode="reflection", align_corners=False
    )
    return warped.to(batch.dtype)


def _grid(
    images: Tensor,
    draws: NDArray[np.float64],
    flipped: NDArray[np.bool_],
    augmentation: Augmentation,
    pitch: NDArray[np.float64],
) -> Tensor:
    """Where each pixel comes from: [B, *S, n] in the units of `grid_sample`, last axis first.

    Sums are written out, because a matrix product may round a case in another way in a larger
    batch, and because an affine grid is only an outer sum of n lines.
    """
    shape = images.shape[2:]
    n = len(shape)
    low, high = augmentation.zoom
    zoom = low + (high - low) * draws[:, _ZOOM]
    half = pitch * np.array(shape) / 2
    # From millimetres to units in which every side goes from -1 to 1.
    matrix = _rotation(draws, augmentation, n) * half[:, None, :] / half[:, :, None]
    matrix *= np.where(flipped, -1, 1)[:, :, None] / zoom[:, None, None]
    centres = [_along(_centres(side), axis, images) for axis, side in enumerate(shape)]
    rows = []
    for row in range(n):
        lines = [_column(matrix[:, row, axis], images) * centres[axis] for axis in range(n)]
        rows.append(sum(lines[1:], lines[0]))
    if augmentation.elastic:
        # Divided by the zoom: it is the enlarged image that is deformed.
        reach = augmentation.elastic * 2 * half.min(axis=1, keepdims=True) / half / zoom[:, None]
        knots = _signed(draws[:, _NUM_DRAWS:]).reshape(-1, n, *(_KNOTS,) * n)
        for axis in range(n):
            rows[axis] = rows[axis] + _smooth(knots[:, axis], images) * _column(
                reach[:, axis], images
            )
    return torch.cat(rows[::-1], dim=1).movedim(1, -1)


def _rotation(
    draws: NDArray[np.float64], augmentation: Augmentation, n: int
) -> NDArray[np.float64]:
    """A rotation [B, n, n] of each case: the product of one in every plane."""
    largest = (augmentation.rotation, augmentation.tilt, augmentation.tilt)
    matrix = np.broadcast_to(np.eye(n), (len(draws), n, n))
    for (i, j), degrees, draw in zip(_PLANES[n], largest, draws[:, _ANGLE].T, strict=False):
        angle = np.deg2rad(degrees * _signed(draw))
        turn = np.broadcast_to(np.eye(n), matrix.shape).copy()
        turn[:, i, i] = turn[:, j, j] = np.cos(angle)
        turn[:, i, j], turn[:, j, i] = -np.sin(angle), np.sin(angle)
        # The axes are few: written out, each case is rounded alone.
        matrix = (matrix[:, :, :, None] * turn[:, None, :, :]).sum(axis=2)
    return matrix


def _centres(side: int) -> NDArray[np.float64]:
    """Of the pixels along a side that goes from -1 to 1."""
    return (2 * np.arange(side) + 1) / side - 1


def _along(values: NDArray[np.float64], axis: int, like: Tensor) -> Tensor:
    """Values [S] along one axis of *S, [1, 1, 1.., S, ..1]."""
    shape = [1] * like.ndim
    shape[2 + axis] = len(values)
    return _on_device(values.reshape(shape), like)


def _smooth(knots: NDArray[np.float64], images: Tensor) -> Tensor:
    """A smooth field [B, 1, *S] near knots [B, K, ..] in -1..1.

    At each pixel it is a mean of the knots, weighed by their distance, and so in -1..1 too.
    """
    field = _on_device(knots[:, None], images)
    for axis, side in enumerate(images.shape[2:]):
        place = (_centres(side) + 1) / 2 * (_KNOTS - 1)
        weights = np.exp(-0.5 * np.square((place[:, None] - np.arange(_KNOTS)) / _BELL))
        weights /= weights.sum(axis=1, keepdims=True)
        lines = [
            field.narrow(2 + axis, k, 1) * _along(weights[:, k], axis, images)
            for k in range(_KNOTS)
        ]
        field = sum(lines[1:], lines[0])
    return field


# --- intensities


def _blur(
    images: Tensor, deviation: NDArray[np.float64], reach: int, pitch: NDArray[np.float64]
) -> Tensor:
    """Blurred by `deviation` [B], in pixels of the finest axis, equally far along every axis."""
    along = deviation[:, None] * pitch.min(axis=1, keepdims=True) / pitch
    # A bell so narrow is 1 at its pixel and 0 beside it: nothing is blurred.
    sigma = _on_device(np.maximum(along, 1e-3), images)
    size = 2 * reach + 1
    if images.ndim == 4:
        return gaussian_blur2d(images, size, sigma, border_type="replicate")
    # kornia blurs planes: those of the last two axes, and then lines along the first.
    planes = gaussian_blur2d(images.flatten(1, 2), size, sigma[:, 1:], border_type="replicate")
    turned = planes.reshape(images.shape).movedim(2, -1)
    lines = turned.flatten(1, 2)
    lines = gaussian_blur2d(lines, (1, size), sigma[:, [0, 0]], border_type="replicate")
    return lines.reshape(turned.shape).movedim(-1, 2).contiguous()


def _bend(images: Tensor, exponent: NDArray[np.float64]) -> Tensor:
    """Each channel to the power of `exponent` [B] between its least and its greatest value."""
    flat = images.flatten(2)
    low = flat.amin(dim=2, keepdim=True)
    span = (flat.amax(dim=2, keepdim=True) - low).clamp_min(torch.finfo(flat.dtype).tiny)
    bent = adjust_gamma((flat - low) / span, _on_device(exponent, flat))
    return (bent * span + low).reshape(images.shape)


def _noise(
    images: Tensor,
    deviation: NDArray[np.float64],
    seed: int,
    epoch: int,
    cases: NDArray[np.int64],
) -> Tensor:
    noise = torch.zeros_like(images)
    for number in np.flatnonzero(deviation).tolist():
        generator = sample_generator(seed, epoch, int(cases[number]), images.device)
        field = torch.randn(images.shape[1:], generator=generator, device=images.device)
        noise[number] = field * float(deviation[number])
    return noise
