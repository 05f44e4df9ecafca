"""The hybrid loss of the paper and its relatives, over one head or all.

Shapes: B batch, K logits a pixel, M planes of a mask, *S the axes of an image or a volume, D heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from unetpp.recipe import Loss

# In pixels. It keeps the soft Dice of a case without foreground defined and its gradient finite;
# against cases of some hundred foreground pixels it is small.
_SMOOTH = 1.0
# Of the focal loss: how much pixels that are right already are played down.
_GAMMA = 2.0


def hybrid_loss(
    logits: Tensor, masks: Tensor, *, exclusive: bool, loss: Loss = "cross_entropy_dice"
) -> Tensor:
    """Cross-entropy + (1 - soft Dice), the Dice per image and class, then averaged; or a part.

    The two halves of the paper's segmentation loss (TMI 2019, eq. 2) with equal weight; here each
    is averaged, so that the value does not depend on the size of the image. Classes that exclude
    each other share a softmax, and the background counts in the cross-entropy alone; otherwise
    every class has a sigmoid.

    Args:
        logits: float [B, K, *S].
        masks: integers; class indices [B, 1, *S] in 0..K-1 where classes exclude each other, else
            0 and 1 [B, K, *S].
        exclusive: whether they do.
        loss: see `TrainRecipe.loss`.

    Returns:
        A scalar in fp32.
    """
    logits = logits.float()
    # The focal loss weighs each pixel; torch's own mean is another sum to the last digit.
    reduction = "none" if loss == "focal_dice" else "mean"
    if exclusive:
        index = masks[:, 0].long()
        cross_entropy = F.cross_entropy(logits, index, reduction=reduction)
        probability = torch.softmax(logits, dim=1)[:, 1:]
        target = torch.stack([index == k for k in range(1, logits.shape[1])], dim=1).float()
    else:
        assert logits.shape == masks.shape
        target = masks.float()
        cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction=reduction)
        probability = torch.sigmoid(logits)
    match loss:
        case "cross_entropy":
            return cross_entropy
        case "dice":
            return _soft_dice_loss(probability, target)
        case "focal_dice":
            # exp(-cross-entropy) is the probability that was given to the truth.
            focal = (1 - torch.exp(-cross_entropy)) ** _GAMMA * cross_entropy
            return focal.mean() + _soft_dice_loss(probability, target)
        case "cross_entropy_dice":
            return cross_entropy + _soft_dice_loss(probability, target)


def _soft_dice_loss(probability: Tensor, target: Tensor) -> Tensor:
    axes = tuple(range(2, probability.ndim))
    overlap = (probability * target).sum(axes)
    soft_dice = (2 * overlap + _SMOOTH) / (probability.sum(axes) + target.sum(axes) + _SMOOTH)
    return (1 - soft_dice).mean()


def head_losses(
    heads: Iterable[Tensor],
    masks: Tensor,
    *,
    exclusive: bool,
    loss: Loss = "cross_entropy_dice",
) -> Tensor:
    """`hybrid_loss` of each head, [D] for D heads, in their order."""
    losses = [hybrid_loss(logits, masks, exclusive=exclusive, loss=loss) for logits in heads]
    return torch.stack(losses)


def weighted_loss(losses: Tensor, weights: Sequence[float]) -> Tensor:
    """The heads' losses with fixed weights, see `unetpp.grid.head_weights`.

    A mean, not a sum, so that the learning rate means the same with and without deep supervision.

    Args:
        losses: [D].
        weights: D numbers that sum to 1.
    """
    assert len(weights) == len(losses)
    if len(set(weights)) == 1:
        return losses.mean()
    return torch.stack([w * loss for w, loss in zip(weights, losses, strict=True)]).sum()


def uncertainty_loss(losses: Tensor, log_variances: Tensor) -> Tensor:
    """Mean over the heads of exp(-s) L + s: weights that are learned with the network.

    s is the logarithm of the variance of a head's task (Kendall, Gal, Cipolla, "Multi-Task
    Learning Using Uncertainty to Weigh Losses", CVPR 2018, eq. 7, times 2). At s = 0 it is the
    mean of the losses; it is least at s = log L, where every head weighs 1 / L. It may be
    negative, and it is no measure of how good the heads are.

    Args:
        losses: [D].
        log_variances: s, [D].
    """
    assert losses.shape == log_variances.shape
    return (torch.exp(-log_variances) * losses + log_variances).mean()
