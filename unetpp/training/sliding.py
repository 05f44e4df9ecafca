"""A network's outputs for a whole case, put together from windows that overlap.

Shapes: C channels, K outputs a pixel, n = 2 or 3 axes *S of an image or a volume, B windows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from types import EllipsisType
from typing import overload

import torch
from torch import Tensor

from unetpp.data.patches import mirrored

# Deviation of the bell that weighs a window, as a share of its side: pixels near its border have
# seen less of what is around them.
_BELL = 1 / 8
# A corner weighs so little that sums could vanish where no other window helps.
_LEAST_WEIGHT = 1e-3


@overload
def predict_sliding(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    *,
    patch: tuple[int, ...],
    overlap: float = ...,
    batch_size: int,
    device: torch.device | None = ...,
) -> Tensor: ...
@overload
def predict_sliding(
    network: Callable[[Tensor], dict[str, Tensor]],
    image: Tensor,
    *,
    patch: tuple[int, ...],
    overlap: float = ...,
    batch_size: int,
    device: torch.device | None = ...,
) -> dict[str, Tensor]: ...
@torch.inference_mode()
def predict_sliding(
    network: Callable[[Tensor], Tensor] | Callable[[Tensor], dict[str, Tensor]],
    image: Tensor,
    *,
    patch: tuple[int, ...],
    overlap: float = 0.5,
    batch_size: int,
    device: torch.device | None = None,
) -> Tensor | dict[str, Tensor]:
    """Logits [1, K, *S] of an image of any size, float32, on the image's device.

    Where windows overlap, the mean of their logits is taken, weighed by a bell around the middle of
    each. Logits, not probabilities: what comes back is of the same kind as what one window gives,
    for every output and every kind of classes, so that a threshold or the likeliest class follows
    as it does without windows. The mean of heads is of probabilities, but it is one of the
    network's outputs and made before, in each window.

    An image that is not larger than a window is one window. Along sides on which it is smaller it
    is mirrored, as in training, and the result is cut back.

    Args:
        network: from windows [B, C, *patch] to logits [B, K, *patch], or to several by name.
        image: [1, C, *S], standardised. A large one stays on the CPU, and with it the sums.
        patch: n sides of a window.
        overlap: share of a side, 0 to 0.9, that neighbours have at least in common.
        batch_size: windows at a time.
        device: of the network; by default that of the image.
    """
    assert len(image) == 1
    assert image.ndim == 2 + len(patch)
    assert 0 <= overlap <= 0.9
    padded, inside = _padded(image, patch)
    shape = tuple(padded.shape[2:])
    bell = torch.ones(patch) if shape == tuple(patch) else _bell(patch)
    weights, total = bell.to(image.device), torch.zeros(shape, device=image.device)
    sums: dict[str, Tensor] = {}
    named = False
    windows = _windows(shape, patch, overlap)
    while batch := list(itertools.islice(windows, batch_size)):
        found = network(torch.cat([padded[window] for window in batch]).to(device or image.device))
        named = isinstance(found, dict)
        for name, logits in (found if isinstance(found, dict) else {"": found}).items():
            if name not in sums:
                sums[name] = torch.zeros(1, logits.shape[1], *shape, device=image.device)
            for window, part in zip(batch, logits.to(image.device, torch.float32), strict=True):
                sums[name][window] += part * weights
        for window in batch:
            total[window] += weights
    means = {name: logits.div_(total)[..., *inside] for name, logits in sums.items()}
    return means if named else means[""]


def _padded(image: Tensor, patch: tuple[int, ...]) -> tuple[Tensor, tuple[slice, ...]]:
    """The image, mirrored on both sides up to the size of a window, and where in it the image is."""
    inside = []
    for axis, (size, side) in enumerate(zip(image.shape[2:], patch, strict=True), start=2):
        before = max(side - size, 0) // 2
        inside.append(slice(before, before + size))
        if size < side:
            index = torch.from_numpy(mirrored(-before, side, size)).to(image.device)
            image = image.index_select(axis, index)
    return image, tuple(inside)


def _windows(
    shape: tuple[int, ...], patch: tuple[int, ...], overlap: float
) -> Iterator[tuple[EllipsisType | slice, ...]]:
    """An index for each window, for the last axes of a tensor."""
    starts = (_starts(size, side, overlap) for size, side in zip(shape, patch, strict=True))
    for corner in itertools.product(*starts):
        yield ..., *(slice(at, at + side) for at, side in zip(corner, patch, strict=True))


def _starts(size: int, side: int, overlap: float) -> list[int]:
    """First pixels of as few windows as cover a side of `size` pixels, evenly apart."""
    # The hair keeps 10 x (1 - 0.8) from being 1.
    step = max(math.floor(side * (1 - overlap) + 1e-9), 1)
    number = math.ceil((size - side) / step) + 1
    return [round(k * (size - side) / max(number - 1, 1)) for k in range(number)]


def _bell(patch: tuple[int, ...]) -> Tensor:
    """Weights [*patch] of a window's pixels, 1 in the middle."""
    weights = torch.ones(())
    for side in patch:
        place = torch.arange(side) - (side - 1) / 2
        weights = weights[..., None] * torch.exp(-0.5 * (place / (_BELL * side)).square())
    return weights.clamp_min(_LEAST_WEIGHT)
