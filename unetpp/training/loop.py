"""The one training loop of all arms.

Shapes: B batch, C channels, M planes of a mask, *S the axes of an image or a volume.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unetpp.data.labels import Labels
from unetpp.grid import head_weights
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.recipe import TrainRecipe
from unetpp.records import EpochLog
from unetpp.training.checkpoints import Keeper, Resumed, Slot, removed_on, training_id
from unetpp.training.device import memory_format
from unetpp.training.failures import DivergenceError
from unetpp.training.feed import Feed
from unetpp.training.losses import head_losses, uncertainty_loss, weighted_loss
from unetpp.training.observing import Observer
from unetpp.training.optimizer import (
    check_encoder_rate,
    gradients_as_wanted,
    make_optimizer,
    to_training_mode,
)
from unetpp.training.predict import case_logits, decide, primary_output

# Share of the steps in which the learning rate rises.
_WARM_UP = 0.2
# The held-out fold is looked at about this often, for the learning curve alone.
_LOOKS = 12


def train(
    model: UNetPlusPlus,
    training: Feed,
    held_out: Feed,
    recipe: TrainRecipe,
    *,
    seed: int,
    on_epoch: Callable[[EpochLog], None] | None = None,
    observers: Sequence[Observer] = (),
    checkpoint: Slot | None = None,
    on_resume: Callable[[Resumed], None] | None = None,
) -> tuple[EpochLog, ...]:
    """Train `model` in place and return its learning curve; the weights of the last epoch stay.

    Order, patches and augmentation follow from the seed, dropout from torch's random state. The
    losses of the curve weigh the heads by `head_weights`: with learned weights they are the plain
    mean, in training and held out alike, so that the curves of all networks can be read side by
    side.

    With a checkpoint, a training that is interrupted goes on after its last finished epoch when it
    is called again with the same arguments and a network that was made in the same way; on the
    same machine with as many threads, the result is that of one that was not, to the bit. (On a
    GPU as far as its kernels are deterministic; dropout on mps is drawn anew.) A training that
    diverges removes its checkpoint, so that one that is started again, perhaps on another machine,
    does not go on from weights that are spoilt.

    Args:
        model: on the device of the feeds.
        training: what is learned from.
        held_out: looked at in some epochs, never learned from and never used to choose.
        recipe: see `TrainRecipe`.
        seed: of the run.
        on_epoch: called after each epoch, when its checkpoint is written; it may raise to end the
            training. Of one that goes on, it is first called for the epochs that are finished.
        observers: look at steps and epochs and change nothing; `seconds` of an epoch counts what
            they do in its steps, not what they do after it.
        checkpoint: where the last finished epoch is kept; it is left there at the end. What it
            holds of another training, or damaged, is ignored with a warning.
        on_resume: called before the first `on_epoch` when training goes on from a checkpoint.

    Raises:
        DivergenceError: when the loss is no longer a finite number.
        UserError: when the recipe has a rate for an encoder that takes none.
    """
    check_encoder_rate(model, recipe)
    begin = time.perf_counter()
    steps = training.num_batches(recipe)
    labels = training.dataset.labels
    looks = {round(recipe.epochs * (k + 1) / _LOOKS) for k in range(_LOOKS)}
    with gradients_as_wanted(model, recipe), removed_on(DivergenceError, checkpoint):
        optimizer = make_optimizer(model, recipe)
        keeper = Keeper(
            slot=checkpoint,
            training=training_id(model, training, held_out, recipe, seed=seed),
            model=model,
            optimizer=optimizer,
            observers=observers,
            epochs=recipe.epochs,
            steps=steps,
        )
        resumed = keeper.resume()
        curve = list(resumed.curve)
        schedule = _one_cycle(optimizer, recipe.epochs * steps, done=len(curve) * steps)
        if curve and on_resume is not None:
            on_resume(resumed)
        for log in resumed.curve:
            if on_epoch is not None:
                on_epoch(log)
        for epoch in range(len(curve) + 1, recipe.epochs + 1):
            epoch_begin = time.perf_counter()
            to_training_mode(model, recipe)
            total = torch.zeros((), device=training.device)
            for images, masks in training.training_batches(recipe, seed=seed, epoch=epoch):
                loss = _step(model, images, masks, optimizer, recipe, labels, observers)
                schedule.step()
                total += loss * len(images)
            train_loss = total.item() / training.num_samples
            _check_finite(train_loss, epoch)
            looked = _look(model, held_out, recipe) if epoch in looks else (None, None)
            log = EpochLog(
                epoch=epoch,
                train_loss=train_loss,
                held_out_loss=looked[0],
                held_out_dice=looked[1],
                seconds=time.perf_counter() - epoch_begin,
            )
            curve.append(log)
            for observer in observers:
                observer.after_epoch(model, epoch)
            keeper.keep(curve, resumed.seconds + time.perf_counter() - begin)
            if on_epoch is not None:
                on_epoch(log)
    return tuple(curve)


def _one_cycle(
    optimizer: torch.optim.Optimizer, num_steps: int, *, done: int
) -> torch.optim.lr_scheduler.OneCycleLR:
    """The learning rate of each group rises to its own within `_WARM_UP` of the steps, then falls.

    After `done` steps: each rate, and each momentum, is a function of the number of the step.
    """
    # Torch divides by the steps of the rise less one: a rise of one step begins at the peak.
    rise = _WARM_UP if num_steps * _WARM_UP != 1 else 0.0
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=num_steps,
        pct_start=rise,
    )
    if done:
        # One step less, and that step is made: it writes the rates into the optimizer.
        schedule.load_state_dict({"last_epoch": done - 1, "_step_count": done + 1})
        schedule.step()
    return schedule


def _check_finite(train_loss: float, epoch: int) -> None:
    if not math.isfinite(train_loss):
        raise DivergenceError(
            f"the training loss must stay finite, but it is {train_loss} in epoch {epoch}; "
            "train in fp32 (--no-bf16) or with a lower learning rate"
        )


def _step(
    model: UNetPlusPlus,
    images: Tensor,
    masks: Tensor,
    optimizer: torch.optim.Optimizer,
    recipe: TrainRecipe,
    labels: Labels,
    observers: Sequence[Observer],
) -> Tensor:
    """One step of the optimizer; returns the loss of the curve."""
    images = images.contiguous(memory_format=memory_format(images.ndim - 2))
    with torch.autocast(images.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        heads = model.heads(images)
    exclusive = labels.kind == "classes"
    losses = head_losses(heads.values(), masks, exclusive=exclusive, loss=recipe.loss)
    loss = weighted_loss(losses, head_weights(model.spec))
    learned = model.head_log_variances
    minimised = loss if learned is None else uncertainty_loss(losses, learned)
    optimizer.zero_grad(set_to_none=True)
    minimised.backward()
    for observer in observers:
        observer.after_backward(model)
    optimizer.step()
    return loss.detach()


@torch.inference_mode()
def _look(model: UNetPlusPlus, held_out: Feed, recipe: TrainRecipe) -> tuple[float, float | None]:
    """Loss and Dice of the held-out cases, pooled over pixels and classes; the Dice is None when
    nothing is foreground.
    """
    model.eval()
    labels = held_out.dataset.labels
    exclusive = labels.kind == "classes"
    loss, overlap, size = 0.0, 0, 0
    for positions, images, masks in held_out.predicted_batches():
        outputs = case_logits(model, images, patch=held_out.patch)
        heads = [logits for name, logits in outputs.items() if name != "mean"]
        losses = head_losses(heads, masks, exclusive=exclusive, loss=recipe.loss)
        loss += weighted_loss(losses, head_weights(model.spec)).item() * len(positions)
        predicted = decide(outputs[primary_output(model)], labels, recipe.threshold)
        overlap += int(((predicted == masks) & (masks > 0)).sum())
        size += int((predicted > 0).sum()) + int((masks > 0).sum())
    return loss / len(held_out), 2 * overlap / size if size else None
