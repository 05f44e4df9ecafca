"""The hybrid loss of the paper, over one head or all.

Shapes: B batch, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

# In pixels. It keeps the soft Dice of a case without foreground defined and its gradient finite;
# against cases of some hundred foreground pixels it is small.
_SMOOTH = 1.0


def hybrid_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy + (1 - soft Dice), the Dice per image, then averaged over the batch.

    The two halves of the paper's segmentation loss (TMI 2019, eq. 2) with equal weight; here each
    is averaged, so that the value does not depend on the size of the image.

    Args:
        logits: float [B, 1, H, W].
        target: float [B, 1, H, W], 0 or 1.

    Returns:
        A scalar in fp32.
    """
    assert logits.shape == target.shape
    logits = logits.float()
    probability = torch.sigmoid(logits)
    axes = (1, 2, 3)
    overlap = (probability * target).sum(axes)
    soft_dice = (2 * overlap + _SMOOTH) / (probability.sum(axes) + target.sum(axes) + _SMOOTH)
    return F.binary_cross_entropy_with_logits(logits, target) + (1 - soft_dice).mean()


def supervised_loss(heads: Iterable[Tensor], target: Tensor) -> Tensor:
    """Mean of `hybrid_loss` over the heads: all weigh the same, as in the paper (eta_i = 1).

    The mean, not the sum, so that the learning rate means the same with and without deep
    supervision.
    """
    losses = [hybrid_loss(logits, target) for logits in heads]
    return torch.stack(losses).mean()
