"""The one training loop of all arms.

Shapes: N cases, C channels, H height, W width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unetpp.data.augment import BatchAugmenter
from unetpp.errors import UserError
from unetpp.grid import head_weights
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.recipe import TrainRecipe
from unetpp.store import EpochLog
from unetpp.training.losses import head_losses, uncertainty_loss, weighted_loss
from unetpp.training.optimizer import (
    check_encoder_rate,
    gradients_as_wanted,
    make_optimizer,
    to_training_mode,
)
from unetpp.training.predict import named_logits, primary_output

# Share of the steps in which the learning rate rises.
_WARM_UP = 0.2
# The held-out fold is looked at about this often, for the learning curve alone.
_LOOKS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Cases as the network eats them: images float32 [N, C, H, W] standardised, masks float32
    [N, 1, H, W] of 0 and 1, on one device.
    """

    images: Tensor
    masks: Tensor


def make_batches(
    images: NDArray[np.float32], masks: NDArray[np.uint8], device: torch.device
) -> Batches:
    """Standardise every channel of every image to mean 0 and deviation 1, and move to `device`.

    A constant channel becomes 0. Per image, because microscopes and stains differ more in their
    scale of intensity than in what is seen.

    Args:
        images: [N, C, H, W], any range.
        masks: [N, H, W], 0 or 1.
        device: where training takes place; the whole set stays there.
    """
    x = torch.from_numpy(images)
    # In float64: the rounding of a float32 mean would turn a constant channel into another one.
    x = x - x.mean(dim=(2, 3), keepdim=True, dtype=torch.float64).float()
    x = x / x.std(dim=(2, 3), keepdim=True, correction=0).clamp_min(1e-6)
    x = x.contiguous(memory_format=torch.channels_last)
    return Batches(
        images=x.to(device), masks=torch.from_numpy(masks)[:, None].to(device, torch.float32)
    )


def train(
    model: UNetPlusPlus,
    training: Batches,
    held_out: Batches,
    recipe: TrainRecipe,
    *,
    on_epoch: Callable[[EpochLog], None] | None = None,
) -> tuple[EpochLog, ...]:
    """Train `model` in place and return its learning curve; the weights of the last epoch stay.

    All randomness (order, augmentation) is drawn from torch's current random state. The losses of
    the curve weigh the heads by `head_weights`: with learned weights they are the plain mean, in
    training and held out alike, so that the curves of all networks can be read side by side.

    Args:
        model: on the device of the batches.
        training: what is learned from.
        held_out: looked at in some epochs, never learned from and never used to choose.
        recipe: see `TrainRecipe`.
        on_epoch: called after each epoch.

    Raises:
        UserError: when the loss is no longer a finite number, or the recipe has a rate for an
            encoder that takes none.
    """
    check_encoder_rate(model, recipe)
    num_batches = math.ceil(len(training.images) / recipe.batch_size)
    augment = BatchAugmenter(recipe.augmentation) if recipe.augmentation else None
    looks = {round(recipe.epochs * (k + 1) / _LOOKS) for k in range(_LOOKS)}
    curve: list[EpochLog] = []
    with gradients_as_wanted(model, recipe):
        optimizer = make_optimizer(model, recipe)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=recipe.epochs * num_batches,
            pct_start=_WARM_UP,
        )
        for epoch in range(1, recipe.epochs + 1):
            begin = time.perf_counter()
            to_training_mode(model, recipe)
            total = torch.zeros((), device=training.images.device)
            # Parts of nearly equal size: a last batch of one image would break batch norm at 1 x 1.
            for index in torch.randperm(len(training.images)).tensor_split(num_batches):
                images, masks = _fetch(training, index)
                if augment is not None:
                    images, masks = augment(images, masks)
                loss = _step(model, images, masks, optimizer, recipe)
                schedule.step()
                total += loss * len(index)
            train_loss = total.item() / len(training.images)
            _check_finite(train_loss, epoch)
            looked = _look(model, held_out, recipe) if epoch in looks else (None, None)
            log = EpochLog(
                epoch=epoch,
                train_loss=train_loss,
                held_out_loss=looked[0],
                held_out_dice=looked[1],
                seconds=time.perf_counter() - begin,
            )
            curve.append(log)
            if on_epoch is not None:
                on_epoch(log)
    return tuple(curve)


def _check_finite(train_loss: float, epoch: int) -> None:
    if not math.isfinite(train_loss):
        raise UserError(
            f"the training loss must stay finite, but it is {train_loss} in epoch {epoch}; "
            "train in fp32 (--no-bf16) or with a lower learning rate"
        )


def _fetch(batches: Batches, index: Tensor) -> tuple[Tensor, Tensor]:
    index = index.to(batches.images.device)
    return batches.images[index], batches.masks[index]


def _step(
    model: UNetPlusPlus,
    images: Tensor,
    masks: Tensor,
    optimizer: torch.optim.Optimizer,
    recipe: TrainRecipe,
) -> Tensor:
    """One step of the optimizer; returns the loss of the curve."""
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        heads = model.heads(images)
    losses = head_losses(heads.values(), masks)
    loss = weighted_loss(losses, head_weights(model.spec))
    learned = model.head_log_variances
    minimised = loss if learned is None else uncertainty_loss(losses, learned)
    optimizer.zero_grad(set_to_none=True)
    minimised.backward()
    optimizer.step()
    return loss.detach()


@torch.inference_mode()
def _look(
    model: UNetPlusPlus, held_out: Batches, recipe: TrainRecipe
) -> tuple[float, float | None]:
    """Loss and pixel-pooled Dice of the held-out cases; Dice is None when nothing is foreground."""
    model.eval()
    cut = math.log(recipe.threshold / (1 - recipe.threshold))
    loss, overlap, size = 0.0, 0, 0
    for images, masks in zip(held_out.images.split(32), held_out.masks.split(32), strict=True):
        outputs = named_logits(model, images)
        heads = [logits for name, logits in outputs.items() if name != "mean"]
        losses = head_losses(heads, masks)
        loss += weighted_loss(losses, head_weights(model.spec)).item() * len(images)
        predicted = outputs[primary_output(model)] > cut
        overlap += int((predicted & (masks > 0)).sum())
        size += int(predicted.sum()) + int(masks.sum())
    return loss / len(held_out.images), 2 * overlap / size if size else None
