"""What the nodes along the top skip path look at, X[0,0] to X[0,d], for one image.

Zhou et al. (TMI 2020, fig. 6) show such maps to argue that the nodes of the nested skips grow more
semantic from left to right; here each map comes with a number for it.

Shapes: C channels, H and W of a slice, *S the axes of an image (height, width) or of a volume
(depth, height, width).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from unetpp.models.unetpp import UNetPlusPlus
from unetpp.training.observing import evaluating


def top_path_maps(
    model: UNetPlusPlus, image: Tensor, *, at: int | None = None
) -> dict[str, NDArray[np.float32]]:
    """Of each node of level 0, left to right: the mean over its channels of |activation|.

    Args:
        model: in evaluation mode meanwhile, afterwards as it was.
        image: [1, channels, *S], normalised, on the device of the model.
        at: of a volume, which slice along its first axis; None for the middle one.

    Returns:
        {"X_0_2": [H, W]} at the resolution of the node. The scale is the node's own: only the
        pattern compares.
    """
    maps = _top_path(model, image, at=at)
    return {name: x.abs().mean(dim=0).cpu().numpy() for name, x in maps.items()}


def top_path_agreement(
    model: UNetPlusPlus, image: Tensor, mask: Tensor, *, at: int | None = None
) -> dict[str, float]:
    """How well the best channel of each node of level 0 tells the object: max over channels of
    |r|, r being the point-biserial correlation of the channel with the mask over the slice.

    It is the largest of C values, so that a wide node has an advantage; nodes of one width compare.

    Args:
        model: see `top_path_maps`.
        image: see `top_path_maps`.
        mask: [*S], what is not 0 is the object; brought to the resolution of the node by nearest
            neighbours where that is another.
        at: see `top_path_maps`.

    Returns:
        {"X_0_2": |r| in [0, 1]}, of the slice that `top_path_maps` shows; NaN where it holds no
        object, nothing else, or where no channel varies. A channel that does not vary is not best.
    """
    agreement: dict[str, float] = {}
    for name, x in _top_path(model, image, at=at, mask=mask).items():
        channels, truth = x[:-1].flatten(1).double(), x[-1].flatten().double()
        r = _correlations(channels, truth)
        r = r[r.isfinite()]
        agreement[name] = r.abs().max().item() if len(r) else math.nan
    return agreement


def _correlations(channels: Tensor, truth: Tensor) -> Tensor:
    """Pearson's r of each row [C, N] with the truth [N]; not finite where either is constant."""
    # Off the first value before the mean: what is constant becomes 0, not what rounding leaves.
    channels, truth = (x - x[..., :1] for x in (channels, truth))
    channels, truth = (x - x.mean(-1, keepdim=True) for x in (channels, truth))
    return channels @ truth / (channels.norm(dim=1) * truth.norm())


@torch.inference_mode()
def _top_path(
    model: UNetPlusPlus, image: Tensor, *, at: int | None, mask: Tensor | None = None
) -> dict[str, Tensor]:
    """The slice [C, H, W] of each node, with the mask as a last channel if it is given."""
    assert len(image) == 1
    size = image.shape[2]
    at = size // 2 if at is None else at
    with evaluating(model):
        maps = model.features(image)
    found: dict[str, Tensor] = {}
    for node, x in maps.items():
        if node.i == 0:
            if mask is not None:
                assert mask.shape == image.shape[2:]
                truth = (mask != 0).to(x)[None, None]
                x = torch.cat([x, F.interpolate(truth, x.shape[2:], mode="nearest-exact")], dim=1)
            found[str(node)] = x[0] if x.ndim == 4 else x[0, :, at * x.shape[2] // size]
    return found
